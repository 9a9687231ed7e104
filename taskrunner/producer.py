"""Producer: sends drafts. Concurrent dispatches share one script call: at most one is in flight per partition, and
whatever is dispatched meanwhile is the next batch. No timer: a lone dispatch goes out at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .envelope import Draft
from .errors import PayloadError, RedisError, TaskRunnerError
from .store.store import BATCH, Store

PATIENCE = 30.0
"""Seconds that a dispatch goes on trying while the server is away. Far less than the server remembers a batch."""

Waiting = tuple[Draft, asyncio.Future[str | None], float]
"""A draft, who waits for it, and since when."""


class Producer:
    """Sends the drafts of one session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: list[list[Waiting]] = [[] for _ in store.partitions]
        self._sending: dict[int, asyncio.Task[None]] = {}

    def partition_of(self, draft: Draft) -> int:
        if len(self._waiting) == 1:
            return 0
        return self._store.keyspace.partition_of(draft.leases[0].digest if draft.leases else draft.envelope.id)

    def submit(self, draft: Draft, partition: int) -> asyncio.Future[str | None]:
        """Takes one draft for the next batch. Gives the id of the job that it duplicates, or None for a new job."""
        future: asyncio.Future[str | None] = self._loop.create_future()
        self._waiting[partition].append((draft, future, self._loop.time()))
        if partition not in self._sending:
            self._sending[partition] = self._loop.create_task(self._send(partition), name="taskrunner-dispatch")
        return future

    async def dispatch_many(self, drafts: Sequence[Draft]) -> list[tuple[int, str | None]]:
        """Sends drafts in chunks, one round trip each. Returns each one's partition and what ``dispatch`` returns."""
        accepted: list[tuple[int, str | None]] = [(0, None)] * len(drafts)
        places: dict[tuple[int, str], list[int]] = {}
        for index, draft in enumerate(drafts):
            places.setdefault((self.partition_of(draft), draft.queue), []).append(index)

        async def send(partition: int, queue: str, chunk: list[int]) -> None:
            batch = [drafts[index] for index in chunk]
            duplicates = await self._store.dispatch(partition, queue, batch, PATIENCE)
            for n, index in enumerate(chunk):
                accepted[index] = (partition, duplicates.get(n))

        # While the server works on one chunk the next is put into words; it goes out when its turn comes.
        flying: asyncio.Task[None] | None = None
        for (partition, queue), indexes in places.items():
            for start in range(0, len(indexes), BATCH):
                following = asyncio.create_task(send(partition, queue, indexes[start : start + BATCH]))
                await asyncio.sleep(0)
                if flying is not None:
                    await _landed(flying, following)
                flying = following
        if flying is not None:
            await flying
        return accepted

    async def close(self) -> None:
        """Waits for what is being sent."""
        while self._sending:
            await asyncio.wait(list(self._sending.values()))

    async def _send(self, partition: int) -> None:
        try:
            await self._send_all(partition, self._waiting[partition])
        finally:
            # Here and not in a callback: whoever dispatches after this instant must start another task.
            del self._sending[partition]

    async def _send_all(self, partition: int, waiting: list[Waiting]) -> None:
        flying: asyncio.Task[None] | None = None
        while waiting or flying is not None:
            following = None
            if waiting:
                batch = self._next(waiting)
                if flying is None and not waiting:
                    await self._send_batch(partition, batch)  # a lone batch needs no task of its own
                    continue
                # While the server works on one batch the next is put into words; it goes out when its turn comes.
                following = asyncio.create_task(self._send_batch(partition, batch))
                await asyncio.sleep(0)
            if flying is not None:
                await flying
            flying = following

    @staticmethod
    def _next(waiting: list[Waiting]) -> list[Waiting]:
        """The next drafts of one queue, as one script takes them."""
        queue = waiting[0][0].queue
        batch = [one for one in waiting[:BATCH] if one[0].queue == queue]
        if len(batch) == len(waiting[:BATCH]):
            del waiting[:BATCH]
        else:
            waiting[:BATCH] = [one for one in waiting[:BATCH] if one[0].queue != queue]
        # Whoever was cancelled before the batch went out has no job.
        return [one for one in batch if not one[1].cancelled()]

    async def _send_batch(self, partition: int, batch: list[Waiting]) -> None:
        if not batch:
            return
        # From when the first of them began to wait: in an outage batches wait for each other, but nobody for their sum.
        patience = max(0.0, batch[0][2] + PATIENCE - self._loop.time())
        try:
            queue = batch[0][0].queue
            duplicates = await self._store.dispatch(partition, queue, [one[0] for one in batch], patience)
        except TaskRunnerError as error:
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(batch, RedisError("the runner was closed while the job was on its way; it may have been accepted"))
            raise
        except Exception as error:
            _refuse(batch, PayloadError(f"the job can't be put into words: {error!r}"))
        else:
            for n, (_, future, _) in enumerate(batch):
                if not future.done():
                    future.set_result(duplicates.get(n))


async def _landed(flying: asyncio.Task[None], following: asyncio.Task[None]) -> None:
    """Waits for a chunk; when it fails, or the caller is cancelled, the chunk after it is stopped."""
    try:
        await flying
    except BaseException:
        following.cancel()
        await asyncio.wait([following])
        raise


def _refuse(batch: list[Waiting], error: TaskRunnerError) -> None:
    for _, future, _ in batch:
        if not future.done():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            future.set_exception(type(error)(*error.args))

"""Producer: sends drafts. Concurrent dispatches share one script call: at most one is in flight per partition and
durability (an outlet), and whatever is dispatched meanwhile is the next batch. No timer: a lone dispatch goes out at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from .durability import Durability
from .envelope import Draft
from .errors import DispatchUncertain, PayloadError, TaskRunnerError
from .store.store import BATCH, BATCH_BYTES, Store

PATIENCE = 30.0
"""Seconds that a dispatch goes on trying while the server is away. Far less than the server remembers a batch."""

Waiting = tuple[Draft, asyncio.Future[str | None], float]
"""A draft, who waits for it, and since when."""
Accepted = tuple[str, int, bool]
"""The id of a job that is on the server, its partition, and whether that was there before."""
T = TypeVar("T")


class Producer:
    """Sends the drafts of one session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._partitions = len(store.partitions)
        # By outlet: first those of Durability.MEMORY, whose numbers are those of the partitions, then the others.
        self._waiting: list[list[Waiting]] = [[] for _ in store.partitions for _ in Durability]
        self._sending: dict[int, asyncio.Task[None]] = {}

    def partition_of(self, draft: Draft) -> int:
        if self._partitions == 1:
            return 0
        return self._store.keyspace.partition_of(draft.digest or draft.envelope.id)

    def submit(self, draft: Draft, partition: int) -> asyncio.Future[str | None]:
        """Takes one draft for the next batch. Gives the id of the job that it duplicates, or None for a new job."""
        outlet = partition + draft.durability * self._partitions
        future: asyncio.Future[str | None] = self._loop.create_future()
        self._waiting[outlet].append((draft, future, self._loop.time()))
        if outlet not in self._sending:
            self._sending[outlet] = self._loop.create_task(self._send(outlet), name="taskrunner-dispatch")
        return future

    async def dispatch_many(self, drafts: Iterable[Draft]) -> list[Accepted]:
        """Sends drafts in chunks, one round trip each, and returns what became of them, in their order.

        They may be made on the way: while the server works on one chunk the next is put into words.
        """
        accepted: list[Accepted] = []
        flying: asyncio.Task[list[Accepted]] | None = None
        for chunk in _chunks(drafts):
            following = asyncio.create_task(self._send_chunk(chunk))
            await asyncio.sleep(0)
            if flying is not None:
                accepted += await _landed(flying, following, chunk)
            flying = following
        if flying is not None:
            accepted += await flying
        return accepted

    async def _send_chunk(self, chunk: list[Draft]) -> list[Accepted]:
        places = [(self.partition_of(draft), draft.queue, draft.durability) for draft in chunk]
        accepted = [(draft.envelope.id, place[0], False) for draft, place in zip(chunk, places, strict=True)]
        for place in dict.fromkeys(places):
            indexes = [index for index, one in enumerate(places) if one == place]
            batch = [chunk[index] for index in indexes]
            for n, holder in (await self._store.dispatch(place[0], place[1], batch, PATIENCE)).items():
                accepted[indexes[n]] = (holder, place[0], True)
        return accepted

    async def close(self) -> None:
        """Waits for what is being sent."""
        while self._sending:
            await asyncio.wait(list(self._sending.values()))

    async def _send(self, outlet: int) -> None:
        try:
            await self._send_all(outlet % self._partitions, self._waiting[outlet])
        finally:
            # Here and not in a callback: whoever dispatches after this instant must start another task.
            self._sending.pop(outlet, None)

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
        batch: list[Waiting] = []
        size = 0
        for one in waiting[:BATCH]:
            size += len(one[0].envelope.payload) + len(one[0].envelope.previous)
            if one[0].queue != queue or (batch and size > BATCH_BYTES):
                break
            batch.append(one)
        del waiting[: len(batch)]
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
        except DispatchUncertain as error:
            _leave_in_doubt(batch, error.reason, error.job_ids)
        except TaskRunnerError as error:
            _refuse(batch, error)
        except asyncio.CancelledError:
            ids = [one[0].envelope.id for one in batch]
            _leave_in_doubt(batch, "the runner was closed while it was on its way", ids)
            raise
        except Exception as error:
            _refuse(batch, PayloadError(f"the job can't be put into words: {error!r}"))
        else:
            for n, (_, future, _) in enumerate(batch):
                if not future.done():
                    future.set_result(duplicates.get(n))


def _chunks(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    """Cuts drafts into what one script call takes."""
    chunk: list[Draft] = []
    size = 0
    for draft in drafts:
        size += len(draft.envelope.payload)
        if len(chunk) == BATCH or (chunk and size > BATCH_BYTES):
            yield chunk
            chunk, size = [], len(draft.envelope.payload)
        chunk.append(draft)
    if chunk:
        yield chunk


async def _landed(flying: asyncio.Task[T], following: asyncio.Task[T], chunk: list[Draft]) -> T:
    """Waits for a chunk; when it fails, or the caller is cancelled, the chunk after it is stopped."""
    try:
        return await flying
    except BaseException as error:
        following.cancel()
        await asyncio.wait([following])
        if isinstance(error, DispatchUncertain):  # that one may have been sent in the same instant
            raise DispatchUncertain(error.reason, [*error.job_ids, *(one.envelope.id for one in chunk)]) from None
        raise


def _leave_in_doubt(batch: list[Waiting], reason: str, ids: Sequence[str]) -> None:
    for (_, future, _), id in zip(batch, ids, strict=True):
        if not future.done():
            future.set_exception(DispatchUncertain(reason, [id]))


def _refuse(batch: list[Waiting], error: TaskRunnerError) -> None:
    for _, future, _ in batch:
        if not future.done():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            future.set_exception(type(error)(*error.args))

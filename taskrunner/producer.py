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


class Producer:
    """Sends the drafts of one session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[int, list[tuple[Draft, asyncio.Future[str | None]]]] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}

    def partition_of(self, draft: Draft) -> int:
        return self._store.keyspace.partition_of(draft.leases[0].digest if draft.leases else draft.envelope.id)

    async def dispatch(self, draft: Draft) -> str | None:
        """Sends one draft. Returns the id of the job that it duplicates, or None when it is a new job."""
        partition = self.partition_of(draft)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(partition, []).append((draft, future))
        if partition not in self._sending:
            self._sending[partition] = asyncio.create_task(self._send(partition), name="taskrunner-dispatch")
        return await future

    async def dispatch_many(self, drafts: Sequence[Draft]) -> list[str | None]:
        """Sends drafts in chunks, one round trip each. Returns as ``dispatch`` does, in their order."""
        duplicates: list[str | None] = [None] * len(drafts)
        places: dict[tuple[int, str], list[int]] = {}
        for index, draft in enumerate(drafts):
            places.setdefault((self.partition_of(draft), draft.queue), []).append(index)
        for (partition, queue), indexes in places.items():
            for start in range(0, len(indexes), BATCH):
                chunk = indexes[start : start + BATCH]
                batch = [drafts[index] for index in chunk]
                for n, holder in (await self._store.dispatch(partition, queue, batch, PATIENCE)).items():
                    duplicates[chunk[n]] = holder
        return duplicates

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

    async def _send_all(self, partition: int, waiting: list[tuple[Draft, asyncio.Future[str | None]]]) -> None:
        while waiting:
            queue = waiting[0][0].queue
            batch = [one for one in waiting[:BATCH] if one[0].queue == queue]
            if len(batch) == len(waiting[:BATCH]):
                del waiting[:BATCH]
            else:
                waiting[:BATCH] = [one for one in waiting[:BATCH] if one[0].queue != queue]
            # Whoever was cancelled before the batch went out has no job.
            batch = [one for one in batch if not one[1].cancelled()]
            if batch:
                await self._send_batch(partition, queue, batch)

    async def _send_batch(
        self, partition: int, queue: str, batch: list[tuple[Draft, asyncio.Future[str | None]]]
    ) -> None:
        try:
            duplicates = await self._store.dispatch(partition, queue, [draft for draft, _ in batch], PATIENCE)
        except TaskRunnerError as error:
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(batch, RedisError("the runner was closed while the job was on its way; it may have been accepted"))
            raise
        except Exception as error:
            _refuse(batch, PayloadError(f"the job can't be put into words: {error!r}"))
        else:
            for n, (_, future) in enumerate(batch):
                if not future.done():
                    future.set_result(duplicates.get(n))


def _refuse(batch: list[tuple[Draft, asyncio.Future[str | None]]], error: TaskRunnerError) -> None:
    for _, future in batch:
        if not future.done():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            future.set_exception(type(error)(*error.args))

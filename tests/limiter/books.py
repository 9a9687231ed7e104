"""What stands in the server of one limiter."""

from __future__ import annotations

import asyncio
import contextlib

import redis.asyncio

from taskrunner import Limiter, LimitReached, Slot
from taskrunner.needs import digest
from taskrunner.store.keys import Keyspace
from tests.waiting import eventually

SNAPSHOT = "return {redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])}"


class Books:
    """The keys of the limiter ``name`` in a namespace with one partition."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str, name: str = "places") -> None:
        [self.partition] = Keyspace("taskrunner", namespace, 1).partitions
        self.client = client
        self.slots, self.owners, self.queue, self.waiters = self.partition.slots(digest("limiter", name))

    async def now(self) -> int:
        seconds, micros = await self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def counts(self) -> tuple[int, int]:
        """In one instant: how many hold a slot, and how many wait."""
        held, waiting = await self.client.eval(SNAPSHOT, 2, self.slots, self.queue)  # type: ignore[misc]
        return held, waiting

    async def waits(self, count: int) -> None:
        """Comes back when so many wait."""

        async def reached() -> bool:
            return (await self.counts())[1] == count

        await eventually(reached)

    async def expiry(self, id: str) -> int:
        score = await self.client.zscore(self.slots, id)
        assert score is not None
        return int(score)

    async def end(self, *ids: str) -> None:
        """As if the timeouts of these holders were over."""
        await self.client.zadd(self.slots, dict.fromkeys(ids, await self.now()), xx=True)

    async def silence(self) -> None:
        """As if none of those who wait had been heard of for 16 s."""
        for ticket, record in (await self.client.hgetall(self.waiters)).items():
            if b"." in ticket:
                asked, _, rest = record.partition(b" ")
                await self.client.hset(self.waiters, ticket, b"%d %s" % (int(asked) - 16_000, rest))

    async def all(self) -> list[str]:
        """The names of all keys of limiters."""
        keys = [key.decode() async for key in self.client.scan_iter(match=self.partition.prefix + "slot*", count=1000)]
        return sorted(key.removeprefix(self.partition.prefix).partition(":")[0] for key in keys)


class Waiter:
    """A task that waits for a slot, and when it has one keeps it until it is told to leave."""

    def __init__(self, limiter: Limiter, id: str, wait: float | None = 20, order: list[str] | None = None) -> None:
        self.slot: Slot = limiter.slot(id, wait=wait)
        self.id = id
        self.inside = asyncio.Event()
        self.refused: LimitReached | None = None
        self._order = order
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async with self.slot:
                if self._order is not None:
                    self._order.append(self.id)
                self.inside.set()
                await self._leave.wait()
        except LimitReached as error:
            self.refused = error

    async def has_it(self) -> None:
        async with asyncio.timeout(20):
            await self.inside.wait()

    async def leave(self) -> None:
        self._leave.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

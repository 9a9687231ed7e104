"""The server side of a worker, moved by hand: what it fetches, beats, takes over and settles, and when."""

from __future__ import annotations

from dataclasses import dataclass

import redis.asyncio

from taskrunner.envelope import Arrival
from taskrunner.forecast import Load
from taskrunner.outcome import Settlement, Succeeded
from taskrunner.store.clock import ServerClock
from taskrunner.store.connect import connect
from taskrunner.store.heart import Heart
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.store.store import BATCH, Store, StoreOptions
from tests.waiting import eventually

RESERVATION = 0.5


@dataclass
class Hand:
    """A worker of this name, whose jobs return its name."""

    store: Store
    heart: Heart
    name: str

    @property
    def keys(self) -> PartitionKeys:
        return self.store.partitions[0]

    @property
    def stream(self) -> str:
        return self.keys.queue("default").stream

    async def fetch(self, count: int = 3000) -> list[Arrival]:
        return await self.store.reader(self.keys).fetch(["default"], count, None)

    def beat(self, *held: Arrival) -> list[Arrival]:
        return self.heart.beat(held, {"slots": 1, "queues": ["default"]})

    async def reclaim(self, limit: int = 100) -> list[Arrival]:
        return (await self.store.reclaim(self.keys, "default", limit))[1]

    async def take_over(self, *held: Arrival) -> list[Arrival]:
        """What a silent worker held, as soon as it may be taken; beats all the time, for what is ``held`` as well."""

        async def taken() -> list[Arrival]:
            self.beat(*held)
            return await self.reclaim()

        arrivals: list[Arrival] = await eventually(taken)
        return arrivals

    async def settle(self, *held: Arrival) -> bytes:
        """Records that these jobs returned the name of this worker. One byte each: 1, or 0 when it was refused."""
        result = b'"%b"' % self.name.encode()
        outcomes = [Settlement(one, Succeeded(result), 0.0) for one in held]
        verdicts = b""
        for start in range(0, len(held), BATCH):
            batch = outcomes[start : start + BATCH]
            verdicts += await self.store.settle(0, "default", batch, len(held), Load(0.0, 0.0, 0, 1), 5.0)
        return verdicts


async def hand(url: str, namespace: str, name: str) -> Hand:
    """A worker of a fleet that has been at work for a while: what falls silent now may be taken at its age."""
    deployment = connect(url)
    options = StoreOptions("taskrunner", name, name, RESERVATION, RESERVATION / 4, 60.0, True)
    keyspace = Keyspace("taskrunner", namespace, 1)
    made = Hand(Store(deployment, keyspace, options), Heart(deployment, keyspace, options, ServerClock()), name)
    await made.store.open()
    await made.store.prepare(made.keys, ["default"])
    made.beat()
    return made


async def end_grace(client: redis.asyncio.Redis, keys: PartitionKeys) -> None:
    """Ends the time in which nothing may be taken over because everybody was silent: as if it had gone by."""
    await client.hset(keys.janitor, "grace", 0)

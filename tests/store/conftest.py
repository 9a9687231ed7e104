"""A place to act in, script by script: stores of several workers in one namespace, and a look at all of its keys.

The server is the shared one; ``python3 dev.py matrix`` runs these tests on every kind that the scripts must work on.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from taskrunner.envelope import KEPT, TRACKED, Arrival, Delivery, Draft, Envelope, Lease
from taskrunner.forecast import Load
from taskrunner.outcome import Outcome, Settlement
from taskrunner.store.clock import ServerClock
from taskrunner.store.connect import connect
from taskrunner.store.heart import Heart
from taskrunner.store.keys import Keyspace
from taskrunner.store.store import Store, StoreOptions
from tests import properties

__all__ = ["Place", "delivery", "place", "properties"]

PATIENCE = 5.0
NO_LOAD = Load(0.0, 0.0, 0, 10)


class Place:
    """One namespace with one partition and the queue ``default``."""

    def __init__(self, url: str, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.keyspace = Keyspace("place", "test-" + secrets.token_hex(6), 1)
        [self.keys] = self.keyspace.partitions
        self.names = self.keys.queue("default")
        self.deployment = connect(url)
        self._stores: dict[str, Store] = {}
        self._numbers = itertools.count(1)

    # -- who acts ------------------------------------------------------------------------------------------------

    async def store(self, worker: str = "one", **options: Any) -> Store:
        """The store of a worker, opened; made at the first call."""
        if worker not in self._stores:
            values: dict[str, Any] = {"reservation": 10.0, "beat": 2.5, "result_ttl": 60.0, "delete_on_ack": True}
            chosen = StoreOptions("group", worker, "client-" + worker, **(values | options))
            store = self._stores[worker] = Store(self.deployment, self.keyspace, chosen)
            await store.open()
            await store.prepare(self.keys, ["default"])
        return self._stores[worker]

    def heart(self, worker: str = "one", reservation: float = 10.0) -> Heart:
        options = StoreOptions("group", worker, "", reservation, reservation / 4, 60.0, True)
        return Heart(self.deployment, self.keyspace, options, ServerClock())

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()

    # -- what they do --------------------------------------------------------------------------------------------

    def draft(
        self,
        id: str = "",
        *,
        task: str = "work",
        flags: int = TRACKED | KEPT,
        payload: bytes = b"[[1]]",
        extras: dict[str, Any] | None = None,
        custom_id: bool = False,
        leases: tuple[Lease, ...] = (),
        delay: float = 0.0,
        due: int = 0,
    ) -> Draft:
        envelope = Envelope(id or f"job-{next(self._numbers):03}", task, 1_000, flags, 1, extras or {}, payload)
        return Draft(envelope, "default", delay, due, custom_id, leases)

    async def dispatch(self, *drafts: Draft, worker: str = "one") -> dict[int, str]:
        return await (await self.store(worker)).dispatch(0, "default", drafts, PATIENCE)

    async def fetch(self, worker: str = "one", count: int = 100) -> list[Any]:
        store = await self.store(worker)
        return await store.reader(self.keys).fetch(["default"], count, block=None)

    async def settle(
        self, worker: str, *outcomes: tuple[Arrival, Outcome], load: Load = NO_LOAD, **options: Any
    ) -> bytes:
        settlements = [Settlement(arrival, outcome, options.get("seconds", 0.5)) for arrival, outcome in outcomes]
        store = await self.store(worker)
        return await store.settle(0, "default", settlements, options.get("held", len(outcomes)), load, PATIENCE)

    async def now(self) -> int:
        seconds, micros = await self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def fall_silent(self, *arrivals: Arrival, worker: str = "one", milliseconds: int = 3_600_000) -> None:
        """As if nobody had renewed these for so long, while others went on beating."""
        for arrival in arrivals:
            await self.client.xclaim(
                self.names.stream, "group", worker, 0, [arrival.entry_id], idle=milliseconds, justid=True
            )
        await self.client.hset(self.keys.janitor, mapping={"last": await self.now(), "grace": 0})
        await self.client.hdel(self.keys.janitor, "next:default")

    # -- what stands in the server --------------------------------------------------------------------------------

    async def pending(self) -> list[tuple[str, str, int]]:
        """(entry id, consumer, delivery count) of everything that is pending."""
        if not await self.client.exists(self.names.stream):
            return []
        rows = await self.client.xpending_range(self.names.stream, "group", "-", "+", 1000)
        return [(row["message_id"].decode(), row["consumer"].decode(), row["times_delivered"]) for row in rows]

    async def entries(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in await self.client.xrange(self.names.stream)]

    async def live(self) -> dict[str, str]:
        """Live records by job, without the entry ids in them."""
        records = await self.client.hgetall(self.keys.live)
        return {id.decode(): " ".join(record.decode().split()[:2]) for id, record in records.items()}

    async def everything(self) -> dict[str, Any]:
        """All keys and what they hold, to compare before and after."""
        found: dict[str, Any] = {}
        async for key in self.client.scan_iter(match=self.keys.prefix + "*", count=1000):
            kind = (await self.client.type(key)).decode()
            reads: dict[str, Any] = {
                "string": self.client.get,
                "hash": self.client.hgetall,
                "set": self.client.smembers,
                "zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
                "list": lambda key: self.client.lrange(key, 0, -1),
                "stream": self.client.xrange,
            }
            found[key.decode().removeprefix(self.keys.prefix)] = await reads[kind](key)
        return found


@asynccontextmanager
async def new_place(url: str) -> AsyncIterator[Place]:
    """A place of its own, of which nothing is left in the end: for each example of a property."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    place = Place(url, client)
    try:
        yield place
    finally:
        await place.close()
        keys = [key async for key in client.scan_iter(match=place.keys.prefix + "*", count=1000)]
        if keys:
            await client.unlink(*keys)
        await client.aclose()


@pytest.fixture
async def place(url: str) -> AsyncIterator[Place]:
    async with new_place(url) as place:
        yield place


def delivery(arrival: Any) -> Delivery:
    assert isinstance(arrival, Delivery)
    return arrival

"""The way into a worker without a server: an usher, its books, and fetchers whose batches are given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from taskrunner.envelope import KEPT, TRACKED, Delivery, Envelope, Extra
from taskrunner.errors import RedisUnavailable
from taskrunner.needs import Seat, digest
from taskrunner.store.keys import Keyspace
from taskrunner.worker.fetcher import Fetcher
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.lanes import Lanes
from taskrunner.worker.usher import Usher


class Server:
    """Grants what it is asked for, but not the jobs in ``refused``, and those in ``taken`` only by the long way.
    Replies when it is let, but not when it is asked for one in ``unanswered``."""

    def __init__(self, partitions: int) -> None:
        self.options = SimpleNamespace(beat=0.1, reservation=1.0)
        self.partitions = Keyspace("taskrunner", "test", partitions).partitions
        self.seating = self
        self.asked: list[tuple[str, int, str, list[str]]] = []
        self.refused: set[str] = set()
        self.taken: set[str] = set()
        self.unanswered: set[str] = set()
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.pending: list[Delivery] = []
        self.swept = 0

    async def sit(self, partition: Any, deliveries: Sequence[Delivery]) -> list[int]:
        return await self._answer("sit", partition.number, deliveries[0].queue, deliveries, self.refused | self.taken)

    async def admit(self, partition: Any, lane: str, deliveries: Sequence[Delivery]) -> list[int]:
        return await self._answer("admit", partition.number, lane, deliveries, self.refused)

    async def _answer(
        self, way: str, partition: int, lane: str, deliveries: Sequence[Delivery], refused: set[str]
    ) -> list[int]:
        first = 100 * (len(self.asked) + 1)
        self.asked.append((way, partition, lane, names(deliveries)))
        await self.go.wait()
        if self.unanswered & set(names(deliveries)):
            raise RedisUnavailable("away")
        if self.error is not None:
            raise self.error
        return [0 if one.envelope.id in refused else first + n for n, one in enumerate(deliveries)]

    async def sweep(self, partition: Any, queue: str) -> list[Delivery]:
        self.swept += 1
        return list(self.pending)

    async def reclaim(self, *arguments: Any) -> tuple[bool, list[Delivery]]:
        return False, list(self.pending)

    @property
    def away(self) -> bool:
        return self.error is not None

    @away.setter
    def away(self, away: bool) -> None:
        self.error = RedisUnavailable("away") if away else None


def lock(key: str) -> str:
    return str(Seat(digest("lock", key), 1))


def job(
    id: str,
    lane: str = "default",
    partition: int = 0,
    *,
    needs: str | None = None,
    age: float = 0.0,
    deliveries: int = 1,
) -> Delivery:
    """A job that needs its own lock, or something else, or nothing; fetched ``age`` seconds ago."""
    extras = {Extra.LOCK: id, Extra.NEEDS: lock(id)} if needs is None else {Extra.NEEDS: needs} if needs else {}
    envelope = Envelope(id, "work", 1, TRACKED | KEPT, 1, extras, b"[]")
    name = digest("lock", id) if needs is None else ""
    return Delivery(envelope, lane, partition, id.encode(), deliveries, time.monotonic() - age, lock=name)


def plain(id: str) -> Delivery:
    return job(id, needs="")


def names(arrivals: Sequence[Any]) -> list[str]:
    return [one.envelope.id for one in arrivals]


class Reader:
    """Gives one batch after the other, and then nothing until it is unblocked. Notes how many it was asked for."""

    def __init__(self, partition: Any, batches: Sequence[list[Delivery]]) -> None:
        self.partition = partition
        self.counts: list[int] = []
        self._batches = list(batches)
        self._unblocked = asyncio.Event()

    async def fetch(self, lanes: Any, count: int) -> list[Delivery]:
        self.counts.append(count)
        if self._batches:
            return self._batches.pop(0)
        self._unblocked.clear()
        await self._unblocked.wait()
        return []

    async def fetch_shares(self, lanes: Any, shares: Any, count: int, less: Any) -> list[Delivery]:
        self.counts.append(count)
        return self._batches.pop(0) if self._batches else []

    async def unblock(self) -> None:
        self._unblocked.set()


class Entrance:
    """An usher with its surroundings."""

    def __init__(self, slots: int = 10, caps: dict[str, int] | None = None, partitions: int = 1) -> None:
        self.server: Any = Server(partitions)
        self.inventory = Inventory(slots, caps)
        self.usher = Usher(self.server, self.inventory)
        self.reader: Any = None

    def fetcher(self, *batches: list[Delivery], capped: str | None = None) -> Fetcher:
        """A fetcher that fetches these, from ``reader``."""
        server, inventory = self.server, self.inventory
        partition = server.partitions[0]
        self.reader = Reader(partition, batches)
        lanes = Lanes(server, partition, ["default"], ["default"], inventory)

        async def nothing() -> None: ...

        lanes.refresh = nothing  # type: ignore[method-assign]
        keeper: Any = SimpleNamespace(beat_now=nothing)
        return Fetcher(server, self.reader, lanes, ["default"], inventory, keeper, 10, capped)

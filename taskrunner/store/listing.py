"""Lists and counts for people: the jobs of a queue in one state. O(what is returned), without KEYS or SCAN."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ..envelope import Envelope
from ..priority import queue_of
from . import wire
from .keys import Keyspace, PartitionKeys
from .links import Link
from .scripts import COUNT, LIST

PAGE = 200
PAGE_BYTES = 2_000_000
"""Most bytes that the server reads for one page: some milliseconds."""

WAITING = ("queued", "running", "scheduled", "retrying", "blocked")
ENDED = ("succeeded", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Listed:
    """One job of a listing. ``at``: ms of its due time, of its entry or of its failure. One of the last three is there,
    or none when what stands there is no letter of ours."""

    id: str
    lane: str
    at: int
    worker: str
    deliveries: int
    envelope: Envelope | None = None
    ended: wire.Ended | None = None
    dead: wire.DeadLetter | None = None


class Listing:
    """Counts and lists over one link per partition."""

    def __init__(self, links: Sequence[Link], keyspace: Keyspace, group: str) -> None:
        self._links = links
        self._keyspace = keyspace
        self._group = group

    async def count(self, state: str, queue: str | None, task: str | None) -> int:
        """How many jobs are in a state: of a queue (None: of all), of a task (None: of all)."""
        total = 0
        for partition, lane in await self._places(queue):
            if state in ENDED and state != "failed":
                total += [one.ended is not None and task in (None, one.ended.task)
                          async for one in self._pages(partition, lane, state, 10**9)].count(True)  # fmt: skip
                continue
            keys, arguments = [*partition.queue(lane).all], [self._group, state, task or ""]
            n = 0 if state == "running" and task else await self._links[partition.number].run(COUNT, keys, arguments)
            if task and state in ("queued", "running"):
                running = 0
                async for one in self._pages(partition, lane, "running", 10**9):
                    running += one.envelope is not None and one.envelope.task == task
                n = running if state == "running" else max(0, n - running)
            total += n
        return total

    async def jobs(self, state: str, queue: str | None, limit: int) -> list[Listed]:
        """Up to ``limit`` jobs in a state: those that wait oldest or next first, those that have ended newest first."""
        found: list[Listed] = []
        for partition, lane in await self._places(queue):
            found += [one async for one in self._pages(partition, lane, state, limit)]
        newest_first = state in ENDED
        found.sort(key=lambda one: one.ended.ended_at if one.ended is not None else one.at, reverse=newest_first)
        return found[:limit]

    async def _places(self, queue: str | None) -> list[tuple[PartitionKeys, str]]:
        """The lanes of a queue, or of all, in each partition."""
        places: list[tuple[PartitionKeys, str]] = []
        for partition in self._keyspace.partitions:
            names = sorted(
                name.decode() for name in await self._links[partition.number].call(b"SMEMBERS", partition.queues)
            )
            places += [(partition, lane) for lane in names if queue is None or queue_of(lane) == queue]
        return places

    async def _pages(self, partition: PartitionKeys, lane: str, state: str, limit: int) -> AsyncIterator[Listed]:
        cursor, left = b"", limit
        while left > 0:
            arguments = [self._group, state, cursor, min(left, PAGE), PAGE_BYTES, partition.prefix, lane]
            reply = await self._links[partition.number].run(LIST, [*partition.queue(lane).all], arguments)
            cursor, rows = reply[0], reply[1:]
            for n in range(0, len(rows), 5):
                left -= 1
                yield _listed(state, lane, *rows[n : n + 5])
            if not cursor:
                return


def _listed(state: str, lane: str, id: bytes, head: bytes, at: bytes, worker: bytes, deliveries: int) -> Listed:
    name, instant = id.decode(), round(float(at))
    try:
        if state == "failed":
            return Listed(name, lane, instant, "", 0, dead=wire.exhume(head + b"\n"))
        if state in ENDED:
            return Listed(name, lane, instant, "", 0, ended=wire.read_record(head + b"\n"))
        envelope = wire.unseal(head + b"\n")
        return Listed(envelope.id, lane, instant, worker.decode(), deliveries, envelope)
    except (ValueError, TypeError, IndexError, KeyError, RecursionError):
        return Listed(name, lane, instant, worker.decode(), deliveries)

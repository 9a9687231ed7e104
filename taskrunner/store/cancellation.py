"""Cancellation: ends jobs because somebody wants them ended, wherever they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..envelope import Delivery
from ..priority import first_lane, queue_of
from . import wire
from .batches import Batches
from .keys import Keyspace, PartitionKeys
from .links import Link
from .persist import persist
from .scripts import CANCEL, DELETE, FORGET, PURGE, Script

PURGED = 100
PURGED_BYTES = 1_000_000
"""Most jobs, and bytes of letters, of one call: two or three milliseconds of server time."""
CHASES = 10
"""Times that a job is looked for which stands in another queue by the time that it is to be ended. Only who dispatches
its id anew moves it there."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was ended. ``waiting``: the job, if it was waiting, its letter was asked for, and that is sound."""

    waiting: Delivery | None = None


class Cancellation:
    """Over the control links. Its scripts are numbered batches: after a lost reply they are asked again, and answer as
    they did."""

    def __init__(
        self,
        links: Sequence[Link],
        keyspace: Keyspace,
        client_id: str,
        result_ttl: float,
        reservation: float,
        delete_on_ack: bool,
    ) -> None:
        self._links = links
        self._keyspace = keyspace
        self._ttl = round(result_ttl * 1000) or 1
        self._reservation = round(reservation * 1000)
        self._leave = int(delete_on_ack)
        self.batches = [
            Batches(link, partition.batch(client_id + "c"))
            for link, partition in zip(links, keyspace.partitions, strict=True)
        ]

    async def cancel(self, id: str, partition: int | None, patience: float, *, letter: bool = False) -> Removed | None:
        """Cancels a job; None when it has ended or is unknown. ``letter``: of a waiting one the job itself is wanted.

        Raises RedisError: RedisUnavailable after ``patience`` seconds.
        """
        for keys in self._keyspace.partitions if partition is None else (self._keyspace.partitions[partition],):
            ended = await self._end(CANCEL, keys, id, patience, letter)
            if ended is not None:
                return ended
        return None

    async def delete(self, id: str, patience: float, *, letter: bool = False) -> Removed | None:
        """Removes a job and all that is known of it, in all places; None when nothing is. As ``cancel``."""
        ended = [await self._end(DELETE, keys, id, patience, letter) for keys in self._keyspace.partitions]
        found = [one for one in ended if one is not None]
        return max(found, key=lambda one: one.waiting is not None, default=None)

    async def delete_result(self, id: str, patience: float) -> bool:
        """Removes what is kept of the outcome of a job that has ended; False when nothing is. Raises as ``cancel``."""
        removed = False
        for keys in self._keyspace.partitions:
            names = [keys.live, keys.job(id), keys.saved(id), keys.progress(id)]
            reply: bytes = await self.batches[keys.number].send(FORGET, names, [id, keys.prefix], patience)
            removed |= reply == b"1"
        return removed

    async def purge(self, queue: str, patience: float) -> int:
        """Ends all jobs of a queue that wait, in all its lanes. Returns how many. Raises as ``cancel``."""
        total = 0
        for keys in self._keyspace.partitions:
            link = self._links[keys.number]
            seconds, micros = await persist(lambda link=link: link.call(b"TIME"), patience)  # type: ignore[misc]
            began = int(seconds) * 1000 + int(micros) // 1000
            # Whoever is let go because others before it were ended comes into the first lane.
            lanes = [lane for lane in await self._lanes(keys, patience) if queue_of(lane) == queue]
            last = [first_lane(queue)] if lanes else []
            for lane in (*(lane for lane in lanes if lane not in last), *last):
                total += await self._purge(keys, lane, began, patience)
        return total

    # -- one job ---------------------------------------------------------------------------------------------

    async def _end(self, script: Script, keys: PartitionKeys, id: str, patience: float, letter: bool) -> Removed | None:
        removed: Removed | None = None
        for _ in range(CHASES):
            moved = False
            for lane in await self._find(keys, id, patience, remains=script is DELETE):
                names = [keys.live, keys.watchers]
                if script is DELETE:
                    names += (keys.job(id), keys.saved(id), keys.progress(id))
                names += keys.queue(lane).all
                arguments: list[Any] = [lane, keys.wake, keys.prefix, self._ttl, self._leave]
                arguments += (self._reservation, id, int(letter))
                reply: bytes = await self.batches[keys.number].send(script, names, arguments, patience)
                moved |= reply == b"elsewhere"
                if reply not in (b"0", b"elsewhere"):
                    removed = _removed(reply, lane, keys) if removed is None or removed.waiting is None else removed
            if not moved:
                break
        return removed

    async def _find(self, keys: PartitionKeys, id: str, patience: float, *, remains: bool) -> list[str]:
        """The lanes where a job stands; with ``remains`` also those that know of one of this id which has ended.

        One that keeps no live record (``ignore_result``) can be found while it waits for its time, and not in a stream.
        """
        link = self._links[keys.number]
        record: bytes | None = await persist(lambda: link.call(b"HGET", keys.live, id), patience)
        places = [record.decode().split(" ")[1]] if record is not None and record.count(b" ") else []
        if places and not remains:
            return places
        lanes = await self._lanes(keys, patience)
        known = remains and await persist(lambda: link.call(b"EXISTS", keys.job(id)), patience)
        questions: list[Any] = []
        for lane in lanes:
            names = keys.queue(lane)
            questions += [(b"ZSCORE", names.due, id), (b"HEXISTS", names.dead_letters, id)]
        replies = await persist(lambda: link.look(questions), patience)
        for n, lane in enumerate(lanes):
            is_due, is_dead = replies[2 * n : 2 * n + 2]
            if is_due is not None or (remains and is_dead):
                places.append(lane)
        if known and not places:
            places = [(*lanes, "default")[0]]  # whichever: of the job there is only its outcome, which is no lane's
        return list(dict.fromkeys(places))

    async def _lanes(self, keys: PartitionKeys, patience: float) -> list[str]:
        link = self._links[keys.number]
        return sorted(name.decode() for name in await persist(lambda: link.call(b"SMEMBERS", keys.queues), patience))

    # -- all jobs --------------------------------------------------------------------------------------------

    async def _purge(self, keys: PartitionKeys, lane: str, began: int, patience: float) -> int:
        """Rounds, until one has ended none: jobs move on while it turns the pages."""
        total, in_round, cursor = 0, 0, b""
        while True:
            names = [keys.live, keys.watchers, *keys.queue(lane).all]
            arguments: list[Any] = [lane, keys.wake, keys.prefix, self._ttl, began, cursor, PURGED, PURGED_BYTES]
            reply: bytes = await self.batches[keys.number].send(PURGE, names, arguments, patience)
            ended, _, cursor = reply.partition(b" ")
            total, in_round = total + int(ended), in_round + int(ended)
            if not cursor:
                if not in_round:
                    return total
                in_round = 0


def _removed(reply: bytes, lane: str, keys: PartitionKeys) -> Removed:
    kind, _, letter = reply.partition(b"\n")
    if kind != b"1" or not letter:
        return Removed()
    waiting = wire.arrive(b"", [wire.VERSION, letter], 0, lane, keys.number, 0.0)
    return Removed(waiting if isinstance(waiting, Delivery) else None)

"""Graveyard: the dead letters of all lanes and partitions: counted, found, paged through and removed.

They sort by the instant at which they failed, and by id where that is the same: over all lanes as within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..envelope import Buried, Draft, Envelope, Extra, Lease
from ..errors import PayloadError
from . import wire
from .keys import PartitionKeys
from .links import Link
from .scripts import PAGE, PRUNE
from .store import BATCH, BATCH_BYTES, Store

TOGETHER = 20
"""Records that one command reads: some may have a megabyte."""


@dataclass(frozen=True, slots=True)
class Grave:
    """Where a dead letter stands, and its ``record`` (empty: not read). ``instant``: ms, as the server wrote it."""

    partition: PartitionKeys
    lane: str
    id: bytes
    instant: bytes
    record: bytes = b""

    @property
    def place(self) -> tuple[float, bytes]:
        return float(self.instant), self.id

    def letter(self) -> wire.DeadLetter:
        """What it says; of a record that nobody can read, the record itself."""
        try:
            # The instant by which they are sorted, and bounded, is the server's.
            return replace(wire.exhume(self.record), failed_at=round(float(self.instant)))
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
            return wire.DeadLetter(
                self.id.decode("utf-8", "replace"), "", self.lane, 0, 0, round(float(self.instant)), "Unreadable",
                f"its record can't be read: {error}", "", "unreadable", None, [self.record],
            )  # fmt: skip

    def draft(self, now: int) -> Draft:
        """The job as a new one, to be dispatched in its place. Raises PayloadError when it can't be run."""
        letter = self.letter()
        what = f"dead letter {letter.id!r} can't be run again and stays where it is"
        if letter.letter is None:
            raise PayloadError(f"{what}: it is no job that this release can read ({letter.message}); look at its raw")
        try:
            envelope = wire.unseal(letter.letter)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
            raise PayloadError(f"{what}: its letter can't be read ({error})") from None
        if (envelope.id.encode(), envelope.task) != (self.id, letter.task):
            raise PayloadError(f"{what}: its letter is that of another job ({envelope.task} {envelope.id})")
        digest = envelope.extras.get(Extra.UNIQUE)
        leases = (Lease(digest, hold=True),) if digest is not None else ()
        return Draft(_fresh(envelope, now), self.lane, leases=leases, claim=Buried(self.instant.decode()))


def _fresh(envelope: Envelope, now: int) -> Envelope:
    """The envelope of a job that begins again: its first attempt, without crashes, and without an end that is past."""
    spent = (Extra.DELIVERIES, Extra.UNKNOWN_SINCE)
    extras = {name: value for name, value in envelope.extras.items() if name not in spent}
    if extras.get(Extra.EXPIRES, now + 1) <= now:
        del extras[Extra.EXPIRES]
    return replace(envelope, attempt=1, enqueued_at=now, extras=extras)


class Graveyard:
    """Over the store's control links. What it reads may be asked again; so may what it removes, but for the count."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _link(self, partition: PartitionKeys) -> Link:
        return self._store.control(partition)

    # -- looking ---------------------------------------------------------------------------------------------

    async def lanes(self) -> list[tuple[PartitionKeys, str]]:
        """All lanes there are, in each partition."""
        found: list[tuple[PartitionKeys, str]] = []
        for partition in self._store.partitions:
            names = await self._link(partition).call(b"SMEMBERS", partition.queues)
            found += [(partition, name.decode()) for name in sorted(names)]
        return found

    async def count(self, task: str | None) -> int:
        """How many there are: of a task (None: of all)."""
        total = 0
        for partition, lanes in (await self._by_partition()).items():
            names = [partition.queue(lane) for lane in lanes]
            if task is None:
                commands: list[Any] = [(b"ZCARD", one.dead) for one in names]
            else:  # members are TASK, instant, ID with line feeds between them, and \v is what follows \n
                commands = [(b"ZLEXCOUNT", one.dead_tasks, f"[{task}\n", f"({task}\v") for one in names]
            total += sum(await self._link(partition).ask(commands))
        return total

    async def dropped(self) -> int:
        """How many the bounds have dropped since the namespace was made."""
        total = 0
        for partition in self._store.partitions:
            total += int(await self._link(partition).call(b"HGET", partition.janitor, "dead-dropped") or 0)
        return total

    async def find(self, id: str, *, read: bool = True) -> list[Grave]:
        """The dead letters of this id, the newest first: one, unless the caller used it again in another queue."""
        found: list[Grave] = []
        for partition, lanes in (await self._by_partition()).items():
            names = [partition.queue(lane) for lane in lanes]
            instants = await self._link(partition).ask([(b"ZSCORE", one.dead, id) for one in names])
            there = [(name, instant) for name, instant in zip(names, instants, strict=True) if instant is not None]
            reads = [(b"HGET", name.dead_letters, id) for name, _ in there]
            records: list[bytes | None] = await self._link(partition).ask(reads) if read else [b"" for _ in there]
            for (name, instant), record in zip(there, records, strict=True):
                if record is not None:
                    found.append(Grave(partition, name.queue, id.encode(), instant, record))
        return sorted(found, key=lambda grave: grave.place, reverse=True)

    async def newest(self, task: str | None, limit: int, after: Grave | None) -> list[Grave]:
        """Up to ``limit`` of them with their records, newest first, from the one ``after`` which they begin."""
        found: list[Grave] = []
        while len(found) < limit:
            asked = min(limit - len(found), BATCH)
            places = [
                grave
                for partition, lane in await self.lanes()
                for grave in await self._page(partition, lane, "newest", after, asked, task)
            ]
            places = sorted(places, key=lambda grave: grave.place, reverse=True)[:asked]
            found += await self._read(places)  # without those that somebody has removed meanwhile
            if len(places) < asked:
                break
            after = places[-1]
        return found

    async def oldest(
        self, partition: PartitionKeys, lane: str, task: str | None, after: Grave | None, until: int
    ) -> list[Grave]:
        """As many as one dispatch takes, with their records, oldest first: of those that failed by ``until``, in ms."""
        page = await self._page(partition, lane, "oldest", after, BATCH, task, BATCH_BYTES)
        return [grave for grave in page if grave.place[0] <= until]

    async def now(self, partition: PartitionKeys) -> int:
        """The time of the server that has this partition, in ms."""
        seconds, micros = await self._link(partition).call(b"TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    # -- removing --------------------------------------------------------------------------------------------

    async def delete(self, id: str) -> bool:
        """Removes the dead letters of this id. Returns whether there was one."""
        removed = 0
        for grave in await self.find(id, read=False):
            removed += await self._prune(grave.partition, grave.lane, "one", id)
        return removed > 0

    async def purge(self, partition: PartitionKeys, lane: str, before: int) -> int:
        """Removes up to 200 of those that failed before an instant (ms), the oldest. Returns how many."""
        return await self._prune(partition, lane, "before", before)

    async def _prune(self, partition: PartitionKeys, lane: str, *arguments: Any) -> int:
        keys = [partition.janitor, *partition.queue(lane).grave]
        return int(await self._link(partition).run(PRUNE, keys, list(arguments)))

    # -- how -------------------------------------------------------------------------------------------------

    async def _by_partition(self) -> dict[PartitionKeys, list[str]]:
        lanes: dict[PartitionKeys, list[str]] = {}
        for partition, lane in await self.lanes():
            lanes.setdefault(partition, []).append(lane)
        return lanes

    async def _page(
        self, partition: PartitionKeys, lane: str, order: str, after: Grave | None, most: int, task: str | None,
        room: int = 0,
    ) -> list[Grave]:  # fmt: skip
        place: tuple[bytes, bytes] = (b"", b"") if after is None else (after.instant, after.id)
        arguments = [order, *place, most, task or "", room]
        reply = await self._link(partition).run(PAGE, list(partition.queue(lane).grave), arguments)
        return [Grave(partition, lane, *reply[n : n + 3]) for n in range(0, len(reply), 3)]

    async def _read(self, places: Sequence[Grave]) -> list[Grave]:
        records: dict[tuple[PartitionKeys, str, bytes], bytes] = {}
        for partition, lane in {(grave.partition, grave.lane) for grave in places}:
            ids = [grave.id for grave in places if (grave.partition, grave.lane) == (partition, lane)]
            for start in range(0, len(ids), TOGETHER):
                some = ids[start : start + TOGETHER]
                texts = await self._link(partition).call(b"HMGET", partition.queue(lane).dead_letters, *some)
                records |= {(partition, lane, id): text for id, text in zip(some, texts, strict=True) if text}
        keys = [(grave.partition, grave.lane, grave.id) for grave in places]
        return [replace(grave, record=records[key]) for grave, key in zip(places, keys, strict=True) if key in records]

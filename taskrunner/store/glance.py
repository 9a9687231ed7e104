"""A glance at many jobs at once: where they stand, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from .inspect import WAITING
from .keys import PartitionKeys
from .links import Link

ENDED = {b"s": "succeeded", b"f": "failed", b"c": "cancelled", b"e": "expired"}
ASKED = 1_000
"""Most jobs that one command asks for, and commands of one write: a millisecond or two of server time."""
SINGLE = 1_000
"""Most entries that are asked for one by one; of more, all that workers hold is read instead."""
HELD = 10_000
"""Most entries in the hands of workers that are read of a queue: more than most fleets run at once."""

T = TypeVar("T")


class Glance:
    """Reads over the control link of one partition."""

    def __init__(self, link: Link, keys: PartitionKeys, group: str) -> None:
        self._link = link
        self._keys = keys
        self._group = group

    async def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The states of jobs, as JobStatus values, without those of which nothing is known in this partition.

        About three commands per thousand jobs, and one more per job for up to 1,000 that are in streams. Of more, those
        beyond the first 10,000 that workers hold of a queue are called queued though they run.
        """
        states: dict[str, str] = {}
        entries: dict[str, dict[str, str]] = {}  # queue -> entry -> id
        missing: list[str] = []
        for chunk in _chunks(ids, ASKED):
            places = await self._link.call(b"HMGET", self._keys.live, *chunk)
            for id, place in zip(chunk, places, strict=True):
                if place is None:
                    missing.append(id)
                    continue
                state, queue, *entry = place.split(b" ")
                if state == b"q" and entry:
                    entries.setdefault(queue.decode(), {})[entry[0].decode()] = id
                    states[id] = "queued"
                else:
                    states[id] = WAITING.get(state, "scheduled")
        for queue, by_entry in entries.items():
            for entry in await self._held(self._keys.queue(queue).stream, list(by_entry)):
                states[by_entry[entry]] = "running"
        await self._add_ended(missing, states)
        return states

    async def _held(self, stream: str, entries: list[str]) -> list[str]:
        """Those of a stream's entries that workers hold."""
        held: list[str] = []
        if len(entries) <= SINGLE:
            commands = [(b"XPENDING", stream, self._group, entry, entry, 1) for entry in entries]
            return [entry for entry, reply in zip(entries, await self._link.look(commands), strict=True) if reply]
        wanted, after = set(entries), "-"
        for _ in range(HELD // ASKED):
            [rows] = await self._link.look([(b"XPENDING", stream, self._group, after, "+", ASKED)])
            if not rows:
                break
            names = [row[0].decode() for row in rows]
            held += [name for name in names if name in wanted]
            after = f"({names[-1]}"
        return held

    async def _add_ended(self, ids: list[str], states: dict[str, str]) -> None:
        for chunk in _chunks(ids, ASKED):
            # The head of a record is a JSON list whose first item is the letter.
            records = await self._link.look([(b"GETRANGE", self._keys.job(id), 2, 2) for id in chunk])
            for id, letter in zip(chunk, records, strict=True):
                if letter in ENDED:
                    states[id] = ENDED[letter]


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest: Iterator[Any] = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk

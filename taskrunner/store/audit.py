"""The audit: what is known of jobs against what is there, page by page. ``audit.lua`` says what is looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from .keys import PartitionKeys
from .links import Link
from .scripts import AUDIT

REST_BEATS = 8
"""Beats between two passes of the whole fleet: two reservations, a minute with the default one."""

How = Literal["turn", "mend", "look"]


@dataclass(frozen=True, slots=True)
class Page:
    """One step of an audit. ``wait``: seconds until the next one may come. ``cursor``: '' when the pass has ended.

    ``readded`` are entries that nobody would have got, as (queue, job id): they are back in their queue. ``orphaned``
    are jobs whose entry or letter is gone: they have failed. After a mere look they will be, or would.
    """

    cursor: str
    wait: float
    readded: list[tuple[str, str]]
    orphaned: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who audits one partition, and with what. Durations in seconds.

    ``trail``: finished entries stay in the stream, so that only those are taken for lost whose live record says so.
    """

    link: Link
    partition: PartitionKeys
    group: str
    caller: str
    reservation: float
    beat: float
    result_ttl: float
    trail: bool

    async def page(self, how: How, cursor: str = "") -> Page:
        """One page of about a hundred things, all queues and then the live records.

        "turn": a worker's, which goes on where the fleet has come to; nothing is done while another worker has the turn
        and in a grace period. "mend" and "look" go on at ``cursor``. Raises RedisError.
        """
        partition = self.partition
        queues = sorted(name.decode() for name in await self.link.call(b"SMEMBERS", partition.queues))
        keys = [partition.janitor, partition.live, partition.watchers, partition.workers]
        for queue in queues:
            keys += partition.queue(queue).buried
        beat, rest = round(self.beat * 1000), round(self.beat * 1000 * REST_BEATS)
        arguments = [self.group, self.caller, how, cursor, round(self.reservation * 1000), beat, rest]
        arguments += [int(not self.trail), round(self.result_ttl * 1000) or 1, partition.prefix, *queues]
        after, wait, *found = await self.link.run(AUDIT, keys, arguments)
        triples = [tuple(part.decode("utf-8", "replace") for part in found[n : n + 3]) for n in range(0, len(found), 3)]
        return Page(
            after.decode(),
            wait / 1000,
            [(queue, id) for what, queue, id in triples if what == "readded"],
            [(queue, id) for what, queue, id in triples if what == "orphaned"],
        )

    async def whole(self, how: How) -> AsyncIterator[Page]:
        """The pages of a whole pass, as fast as the server gives them. Raises RedisError."""
        page = await self.page(how)
        yield page
        while page.cursor:
            page = await self.page(how, page.cursor)
            yield page

"""Outbox: what one partition must know of the workflows of another. It stands in a stream in the partition where it
happened, written by the script in which it happened, and is applied in the other one, once and in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..failpoints import reach
from .keys import Keyspace, PartitionKeys
from .links import Link
from .scripts import DELIVER

CARRIED = 50
"""Messages of one call: a letter may have a megabyte, but nearly all have some hundred bytes."""


class Outbox:
    """Over the control links."""

    def __init__(
        self, links: Sequence[Link], keyspace: Keyspace, result_ttl: float, reservation: float, delete_on_ack: bool
    ) -> None:
        self._links = links
        self._keyspace = keyspace
        self._fixed = (round(result_ttl * 1000) or 1, int(delete_on_ack), round(reservation * 1000))

    async def deliver(self, source: PartitionKeys) -> bool:
        """Carries messages of a partition to the others. Returns whether there may be more. May be done by several at
        once, and again: what has been received is not applied twice."""
        link = self._links[source.number]
        others = [one for one in self._keyspace.partitions if one is not source]
        questions = [(b"XRANGE", source.outbox(one.number), b"-", b"+", b"COUNT", CARRIED) for one in others]
        more = False
        for there, entries in zip(others, await link.look(questions), strict=True):
            if not entries:
                continue
            received = await self._apply(source, there, entries)
            reach("after_deliver")
            gone = [id for id, _ in entries if not _beyond(id, received)]
            if gone:
                await link.call(b"XDEL", source.outbox(there.number), *gone)
            more |= bool(gone)
        return more

    async def _apply(self, source: PartitionKeys, there: PartitionKeys, entries: Sequence[Any]) -> bytes:
        names = [there.live, there.watchers, there.janitor, there.queues, there.received]
        arguments: list[Any] = [there.prefix, there.wake, *self._fixed, source.number]
        for id, fields in entries:
            kind, body, _, workflow = fields if len(fields) == 4 else (b"", b"", b"", b"")
            arguments += (id, kind, body, workflow)
        received: bytes = await self._links[there.number].run(DELIVER, names, arguments)
        return received


def _beyond(id: bytes, other: bytes) -> bool:
    return _place(id) > _place(other)


def _place(id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = id.partition(b"-")
    return int(milliseconds), int(sequence)

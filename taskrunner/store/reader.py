"""Reader: new entries of streams, for one worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis import exceptions as theirs

from ..envelope import Arrival
from ..errors import RedisError, RedisUnavailable
from . import wire
from .keys import PartitionKeys
from .links import Link
from .scripts import FETCH

NONE: Mapping[str, Sequence[str]] = {}
BLOCK = 2.0
"""Seconds that a fetch may wait on the server. A reader that is frozen in it can swallow a batch, so it is short."""


class Reader:
    """Reads the streams of one partition for one worker."""

    def __init__(
        self, link: Link, control: Link, partition: PartitionKeys, group: str, worker_id: str, beat: float
    ) -> None:
        self._link = link
        self._control = control
        self._group = group
        self._worker_id = worker_id
        self._beat = beat
        self._head = (b"XREADGROUP", b"GROUP", group, worker_id, b"COUNT")
        self.partition = partition

    async def fetch(self, queues: Sequence[str], count: int, block: float | None = BLOCK) -> list[Arrival]:
        """Up to ``count`` new entries of each queue; waits up to ``block`` seconds for the first (None: not at all).

        Raises GroupMissing when the server was emptied. After any RedisUnavailable entries may be pending for this
        worker without its knowing: sweep.
        """
        command: list[Any] = [*self._head, count]
        if block is not None:
            if self._link.client_id is None:
                await self._identify()
            # For a beat at most: what was asked for three beats ago counts as too old to be started.
            command += (b"BLOCK", max(1, round(min(block, self._beat) * 1000)))
        streams = [self.partition.queue(queue).stream for queue in queues]
        asked = time.monotonic()
        reply = await self._link.call(
            *command, b"STREAMS", *streams, *(b">" for _ in streams), timeout=(block or 0) + 3
        )
        if not reply:
            return []
        if len(streams) == 1:
            return self._arrived(reply[0][1], queues[0], asked)
        names = {stream.encode(): queue for stream, queue in zip(streams, queues, strict=True)}
        return [arrival for stream, rows in reply for arrival in self._arrived(rows, names[stream], asked)]

    async def fetch_shares(
        self,
        queues: Sequence[str],
        shares: Mapping[str, int],
        count: int,
        giving_way: Mapping[str, Sequence[str]] = NONE,
    ) -> list[Arrival]:
        """Up to ``count`` new entries of all queues together, those of the first queues first; doesn't wait.

        Each may fill its share; what the shares leave over goes to the first queues that have more. ``giving_way``: for
        queues in front that have no share of their own, the others that give up one of theirs, in this order, for each
        entry that it brings. Raises as ``fetch``.
        """
        streams = [self.partition.queue(queue).stream for queue in queues]
        arguments: list[Any] = [self._group, self._worker_id, count]
        arguments += (shares.get(queue) or len(giving_way.get(queue, ())) for queue in queues)
        if giving_way:
            numbers = {queue: str(n) for n, queue in enumerate(queues, 1)}
            arguments += (" ".join(numbers[one] for one in giving_way.get(queue, ())) for queue in queues)
        asked = time.monotonic()
        reply: list[list[Any]] = await self._link.run(FETCH, streams, arguments)
        found: list[Arrival] = []
        for queue, rows in zip(queues, reply, strict=True):
            if rows:
                found += self._arrived(rows, queue, asked)
        return found

    def _arrived(self, rows: list[Any], queue: str, asked: float) -> list[Arrival]:
        arrive, number = wire.arrive, self.partition.number
        return [arrive(row[0], row[1], 1, queue, number, asked) for row in rows]

    async def greet(self) -> None:
        """One round trip that fetches nothing. Raises RedisUnavailable when the server is away."""
        await self._link.call(b"PING")

    async def _identify(self) -> None:
        try:
            await self._link.identify()
        except RedisUnavailable:
            raise
        except RedisError:
            self._link.client_id = 0  # an ACL may forbid it: then a stop waits until the block ends

    async def unblock(self) -> None:
        """Ends a fetch that waits on the server, as if its time were over. Best effort."""
        if self._link.client_id:
            try:
                await self._control.call(b"CLIENT", b"UNBLOCK", self._link.client_id, timeout=2)
            except (RedisError, theirs.RedisError):
                pass

"""Seating: what a worker asks about the seats and permits of the jobs that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..envelope import Delivery, Extra
from ..needs import seats
from .keys import PartitionKeys
from .links import Link
from .scripts import ADMIT, SEATS, SIT

Run = tuple[str, int, str]
"""A run that holds seats: the job's id, the number of its grant, its needs."""


class Seating:
    """Over links of its own, one per partition. Durations in seconds."""

    def __init__(self, links: Sequence[Link], group: str, worker_id: str, reservation: float, beat: float) -> None:
        self._links = links
        self._group = group
        self._worker_id = worker_id
        self._reservation = round(reservation * 1000)
        self._young = round(beat * 500)  # as with a beat, which leaves out what is younger than half of one

    async def sit(self, partition: PartitionKeys, deliveries: Sequence[Delivery]) -> list[int]:
        """The short way for deliveries that have a ``lock``, and have just been fetched for the first time. Returns
        the number of each one's grant, 0 for one that has to be asked for with ``admit``. Raises RedisError.
        """
        keys = [partition.janitor, partition.alone, partition.outlived]
        arguments = [one.lock for one in deliveries]
        arguments += [one.envelope.id for one in deliveries]
        grant, verdicts = await self._links[partition.number].run(SIT, keys, arguments)
        return [grant if verdict == 49 else 0 for verdict in verdicts]  # 49: the digit 1

    async def admit(self, partition: PartitionKeys, lane: str, deliveries: Sequence[Delivery]) -> list[int]:
        """Asks for the seats and permits of up to BATCH deliveries of a lane. Returns the number of each one's grant, 0
        for one that is not ours any more: it waits for its turn, or somebody else has it.

        Each that is granted is renewed, if half a beat has gone by since it was fetched. Asked again, after a lost
        reply, it grants again. Raises RedisError.
        """
        keys = [partition.live, partition.queues, partition.janitor, *partition.queue(lane).ready]
        arguments: list[Any] = [self._group, self._worker_id, lane, partition.prefix, partition.wake, self._young]
        for one in deliveries:
            envelope = one.envelope
            needs = envelope.extras[Extra.NEEDS]
            keys += partition.needed(needs)
            arguments += (one.entry_id, one.deliveries, envelope.id, envelope.task)
            arguments += (one.home or lane, needs, int(one.paced))
        reply = await self._links[partition.number].run(ADMIT, keys, arguments)
        return [int(grant) for grant in reply]

    async def tend(self, partition: PartitionKeys, how: Literal["renew", "free"], runs: Sequence[Run]) -> int:
        """Sees to the seats of runs whose jobs were cancelled: keeps them for a reservation from now on, or frees them.
        Returns how many of them held any. Raises RedisError."""
        keys = [partition.live, partition.queues, partition.janitor, partition.outlived]
        arguments: list[Any] = [how, partition.prefix, partition.wake, self._reservation]
        for id, grant, needs in runs:
            keys += map(partition.lease, seats(needs))
            arguments += (id, grant, needs)
        return int(await self._links[partition.number].run(SEATS, keys, arguments))

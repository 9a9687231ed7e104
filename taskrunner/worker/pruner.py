"""Pruner: drops the dead letters that are beyond the bounds, and tells. What fails drops the oldest as well, as it
comes; but where nothing fails any more somebody must see to it that the old ones go."""

from __future__ import annotations

import asyncio
import logging
import random

from ..priority import queue_of
from ..store.keys import PartitionKeys
from ..store.store import Store
from .lanes import Lanes

log = logging.getLogger("taskrunner.worker")

EVERY = 60.0
"""Seconds between two rounds. A round without a find takes the server some microseconds per lane."""


class Pruner:
    """Rounds over the lanes of one partition. Each worker does them: two at once do no harm."""

    def __init__(self, store: Store, partition: PartitionKeys, lanes: Lanes) -> None:
        self._store = store
        self._partition = partition
        self._lanes = lanes

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY * random.uniform(0.5, 1.0))
            await self.round()

    async def round(self) -> None:
        """Drops all that is beyond the bounds now, some hundred per script."""
        for lane in self._lanes.all:
            while dropped := await self._store.drop(self._partition, lane):
                tell_dropped(lane, dropped)


def tell_dropped(lane: str, dropped: int) -> None:
    """Nothing is dropped silently."""
    log.warning(
        "%d dead letters of queue %r were dropped, the oldest: they were over max_dead_letters or dead_letter_ttl",
        dropped, queue_of(lane),
    )  # fmt: skip

"""Promoter: moves jobs into their stream when they are due. It sleeps until the next due time, and is woken when an
earlier one comes in; there is no polling tick."""

from __future__ import annotations

import asyncio
import logging

from ..errors import RedisConfigurationError
from ..failpoints import reach
from ..priority import queue_of
from ..store.keys import PartitionKeys
from ..store.store import PROMOTED, Store
from .lanes import Lanes

log = logging.getLogger("taskrunner.worker")

LONGEST_SLEEP = 5.0
"""Seconds after which it looks anyway: a wake-up that was lost with a connection costs no more than this."""


class Promoter:
    """Due set → stream, for one partition."""

    def __init__(self, store: Store, partition: PartitionKeys, lanes: Lanes) -> None:
        self._store = store
        self._partition = partition
        self._lanes = lanes
        self.wake = asyncio.Event()
        lanes.followers.append(self.wake.set)

    async def run(self) -> None:
        while True:
            self.wake.clear()
            pause = await self._promote_all()
            try:
                await asyncio.wait_for(self.wake.wait(), pause)
            except TimeoutError:
                continue

    async def _promote_all(self) -> float:
        """All lanes, and then raises what an operator must mend in one of them. Returns seconds to wait."""
        pause, refusal = LONGEST_SLEEP, None
        for queue in self._lanes.all:
            try:
                pause = min(pause, await self._promote(queue))
            except RedisConfigurationError as error:
                refusal = error
        if refusal is not None:
            raise refusal
        return pause

    async def _promote(self, queue: str) -> float:
        """Moves what is due in a queue, so much at a time that no other queue waits for it. Returns seconds to wait."""
        moved, next_due, lost = await self._store.promote(self._partition, queue)
        if lost:
            text = "%d due jobs of queue %r have failed: what was kept of them was deleted (eviction?) or damaged"
            log.error(text, lost, queue_of(queue))
        if moved:
            reach("after_promote")
        if moved == PROMOTED:
            return 0.0
        return LONGEST_SLEEP if next_due is None else min(next_due, LONGEST_SLEEP)

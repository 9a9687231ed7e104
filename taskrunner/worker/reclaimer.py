"""Reclaimer: takes over the jobs of workers that have fallen silent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..envelope import Delivery
from ..errors import RedisConfigurationError, RedisUnavailable
from ..failpoints import reach
from ..outcome import Settlement
from ..priority import queue_of
from ..store.keys import PartitionKeys
from ..store.store import Store
from .inventory import Inventory
from .lanes import Lanes
from .usher import Usher

log = logging.getLogger("taskrunner.worker")

TRIM_EVERY = 60.0


class Reclaimer:
    """Silent workers' jobs → inbox, for one partition. Twice per beat; the server lets one worker pass per turn."""

    def __init__(
        self,
        store: Store,
        partition: PartitionKeys,
        lanes: Lanes,
        inventory: Inventory,
        lost: Callable[[], None],
        confirmed: Callable[[], float],
        max_deliveries: int,
        refusal: Callable[[Delivery], Settlement | None] | None = None,
    ) -> None:
        self._store = store
        self._partition = partition
        self._lanes = lanes
        self._inventory = inventory
        self._usher = Usher(store, inventory, refusal)
        self._lost = lost
        self._confirmed = confirmed
        self._safe = store.options.reservation * 0.75
        self._pause = store.options.beat / 2
        self._last = max_deliveries
        self._trimmed = time.monotonic()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            refusal = None
            for lane in self._lanes.all:
                if self._lanes.paused(lane):
                    continue  # it would only be handed back; the dead worker's name keeps it until it may run
                try:
                    await self._reclaim(lane)
                except RedisConfigurationError as error:
                    refusal = error  # for an operator to mend, and no reason to leave the other queues alone
            if refusal is not None:
                raise refusal
            if not self._store.options.delete_on_ack and time.monotonic() - self._trimmed > TRIM_EVERY:
                self._trimmed = time.monotonic()
                for lane in self._lanes.all:
                    await self._store.trim(self._partition, lane)

    async def _reclaim(self, queue: str) -> None:
        more, inventory = True, self._inventory
        capped = queue_of(queue) if queue_of(queue) in inventory.caps else None
        while more:
            if time.monotonic() - self._confirmed() > self._safe:
                # Its heartbeats don't arrive. It would take its own running jobs as if they were a dead worker's, lose
                # whatever it takes, and spend the deliveries of jobs that are not to blame.
                return
            # One when there is no room, or a fleet whose slots are always full would never take over anything; but not
            # before workers with room had the time to, and not while the last one that was taken so is still waiting.
            # Of a queue that is at its cap it goes back into the stream, for whoever has room.
            room = inventory.room(capped)
            if room < 0:
                return
            limit, times = (room, 1) if room else (1, 2)
            busy = any(one.deliveries == self._last for one in self._inventory.held)
            async with self._inventory.claims[self._partition.number]:
                try:
                    more, arrivals = await self._store.reclaim(self._partition, queue, limit, self._last, busy, times)
                except RedisUnavailable:
                    self._lost()  # the reply may have been on its way, and what was in it is ours without our knowing
                    raise
                if arrivals:
                    reach("after_reclaim")
                    log.warning(
                        "took over %d jobs of queue %r from workers that fell silent", len(arrivals), queue_of(queue)
                    )
                try:
                    await self._usher.take(arrivals)
                except Exception:
                    self._lost()
                    raise
            # With a small limit a call looks at few entries: go on until there was something, or all has been seen.
            more = more and (inventory.room(capped) > 0 or not arrivals)

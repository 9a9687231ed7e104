"""Fetcher: reads as many new jobs of one partition as can be started, and no more."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from ..envelope import Arrival
from ..errors import RedisUnavailable
from ..failpoints import reach
from ..store.persist import wait_before
from ..store.store import Reader, Store
from .inventory import Inventory
from .keeper import Keeper

log = logging.getLogger("taskrunner.worker")

FOREIGN_WAIT = 5.0
"""Seconds after which a queue that strangers write to is looked at again; the others are read meanwhile."""


class Fetcher:
    """Free slots → Store.fetch → inbox, for one partition."""

    def __init__(
        self, store: Store, reader: Reader, queues: Sequence[str], inventory: Inventory, keeper: Keeper, batch_size: int
    ) -> None:
        self._store = store
        self._reader = reader
        self._queues = tuple(queues)
        self._readable: Sequence[str] = self._queues  # without those under whose keys strangers write
        self._look_at = math.inf
        self._inventory = inventory
        self._keeper = keeper
        self._batch_size = batch_size
        self._turn = 0
        self._failures = 0
        self._unsure = False  # a reply may have been lost with jobs in it
        self._stopping = False
        self.done = asyncio.Event()
        self.connected = False

    async def run(self) -> None:
        self.done.clear()
        try:
            while not self._stopping:
                try:
                    if self._unsure or time.monotonic() > self._look_at:
                        await self._sweep_in()
                    self.connected = True  # the server has just answered; an idle fetch takes seconds to say so
                    await self._cycle()
                    self._failures = 0
                except RedisUnavailable:
                    self.connected, self._unsure = False, True
                    self._failures += 1
                    await asyncio.sleep(wait_before(self._failures))
        finally:
            self.connected, self._unsure = False, True
            self.done.set()

    async def stop(self) -> None:
        """No new fetch. One that waits on the server is ended by the server, so that it can't swallow a job."""
        self._stopping = True
        self._inventory.room_made.set()
        while not self.done.is_set():
            await self._reader.unblock()
            try:
                await asyncio.wait_for(self.done.wait(), 0.05)
            except TimeoutError:
                continue

    def look_again(self) -> None:
        """Somebody else's reply was lost, with jobs in it: before the next fetch."""
        self._unsure = True

    async def _cycle(self) -> None:
        room = await self._inventory.wait_for_room(lambda: self._stopping)
        if self._stopping:
            return
        share = max(1, room // len(self._store.partitions))
        if len(self._readable) == 1:
            count = min(share, self._batch_size)
            arrivals = await self._reader.fetch(self._readable, count)
            if arrivals:
                reach("after_fetch")
            if self._late(arrivals):
                return
            self._inventory.take(arrivals)
            self._inventory.meter.saturate(len(arrivals) == count)
        else:
            await self._fetch_several(share)

    async def _fetch_several(self, room: int) -> None:
        """COUNT holds for each stream, so each queue gets its share; with less room than queues they take turns."""
        count = min(room, self._batch_size) // len(self._readable)
        if count:
            arrivals = await self._reader.fetch(self._readable, count)
        else:
            arrivals = await self._fetch_in_turn(room) or await self._reader.fetch(self._readable, 1)
        if arrivals:
            reach("after_fetch")
        if self._late(arrivals):
            return
        self._inventory.take(arrivals[:room])
        # More than there is room for: several queues woke the blocked read in one instant. Back with the rest.
        self._inventory.hand_back(arrivals[room:])
        self._inventory.meter.saturate(len(arrivals) >= min(room, max(count, 1) * len(self._readable)))

    async def _fetch_in_turn(self, room: int) -> list[Arrival]:
        for _ in self._readable:
            self._turn = (self._turn + 1) % len(self._readable)
            arrivals = await self._reader.fetch(self._readable[self._turn : self._turn + 1], room, block=None)
            if arrivals:
                return arrivals
        return []

    def _late(self, arrivals: Sequence[Arrival]) -> bool:
        """Whether a reply may have lain unread for most of a reservation, with no heartbeat for what is in it: the loop
        was blocked, or the process stood still. Then the server is asked what of it is still ours."""
        late = bool(arrivals) and time.monotonic() - arrivals[0].fetched_at > 3 * self._store.options.beat
        self._unsure |= late
        return late

    async def _sweep_in(self) -> None:
        """After a failure: the group may be gone, and jobs may be ours that we don't know of."""
        self._readable = await self._store.prepare(self._reader.partition, self._queues)
        self._look_at = math.inf
        if len(self._readable) < len(self._queues):
            foreign = sorted(set(self._queues) - set(self._readable))
            log.error("foreign data under the keys of %s: not read until it is gone", ", ".join(foreign))
            self._look_at = time.monotonic() + FOREIGN_WAIT
        await self._keeper.beat_now()
        self._inventory.take(await self.sweep())
        self._unsure = False

    async def sweep(self) -> list[Arrival]:
        """What the server thinks that we hold and we don't know of."""
        found: list[Arrival] = []
        for queue in self._queues:
            partition = self._reader.partition
            async with self._inventory.claims[partition.number]:
                known = self._known()
                pending = await self._store.sweep(partition, queue)
                known |= self._known()  # the settler may have recorded some meanwhile
            found += (one for one in pending if (one.queue, one.partition, one.entry_id) not in known)
        return found

    def _known(self) -> set[tuple[str, int, bytes]]:
        return {(one.queue, one.partition, one.entry_id) for one in self._inventory.held}

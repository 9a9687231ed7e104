"""Fetcher: reads as many new jobs of one partition as can be started, and no more; of several lanes by the rule of
priorities."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from itertools import groupby

from ..envelope import Arrival, Delivery
from ..errors import RedisUnavailable
from ..failpoints import reach
from ..outcome import Settlement
from ..priority import Turns, first_lane, priority_of, queue_of
from ..store.persist import wait_before
from ..store.reader import Reader
from ..store.store import BATCH, Store
from .inventory import Inventory
from .keeper import Keeper
from .lanes import Lanes
from .usher import Usher

LONGEST_WAIT = 2.0
"""Seconds after which a fetcher that may read nothing, because all is paused, asks whether the server is there."""
CALM = 16
"""Fetches in a row that a first lane brought nothing to, after which it is read together with the other lane of its
queue, in a plain XREADGROUP: a third of the cost of the script, but should it bring something now, as many jobs of the
other lane have to go back."""
UNBLOCK_EVERY = 0.05
"""Seconds between two tries to end a fetch: the first may come to the server before the fetch does."""


class Fetcher:
    """Free slots → Reader.fetch → inbox, for one partition and some of the worker's queues.

    A queue with a cap of its own has a fetcher of its own (``capped``), so that none waits for another one's room.
    """

    def __init__(
        self,
        store: Store,
        reader: Reader,
        lanes: Lanes,
        queues: Collection[str],
        inventory: Inventory,
        keeper: Keeper,
        batch_size: int,
        capped: str | None = None,
        refusal: Callable[[Delivery], Settlement | None] | None = None,
    ) -> None:
        self._store = store
        self._reader = reader
        self._lanes = lanes
        self._queues = frozenset(queues)
        self._inventory = inventory
        self._keeper = keeper
        self._usher = Usher(store, inventory, refusal)
        self._batch_size = batch_size
        self._capped = capped
        self._failures = 0
        self._asking: asyncio.Task[None] | None = None  # for the seats of what was fetched last
        self._unsure = False  # a reply may have been lost with jobs in it
        self._stopping = False
        self._waits_for: Sequence[str] = ()  # lanes of the fetch that waits on the server
        self._changed = asyncio.Event()  # what may be read, or whether there is a stop
        self._returned = asyncio.Event()
        self._unblocking: asyncio.Task[None] | None = None
        self.done = asyncio.Event()
        self.connected = False
        self._set_readable()
        lanes.followers.append(self._follow)

    def _set_readable(self) -> None:
        self._readable = self._lanes.readable(self._queues)
        self._turns = Turns(self._readable)
        self._rank = 0
        self._calm = 0
        readable = self._readable
        self._is_first_and_one = len(readable) == 2 and readable[0] == first_lane(queue_of(readable[1]))

    def _follow(self) -> asyncio.Task[None] | None:
        """There are other lanes to read: a fetch that waits on the server for those of before is ended."""
        readable = self._lanes.readable(self._queues)
        if readable == self._readable:
            return None
        self._set_readable()
        self._changed.set()
        if self._waits_for and (self._unblocking is None or self._unblocking.done()):
            self._unblocking = asyncio.create_task(self._unblock(), name="taskrunner-unblock")
        return self._unblocking

    async def _unblock(self) -> None:
        while self._waits_for and self._waits_for != self._readable and not self._stopping:
            await self._has_ended()

    async def _end_fetch(self) -> None:
        while self._waits_for and not self._stopping and not await self._has_ended():
            continue

    async def _has_ended(self) -> bool:
        """Ends a fetch that waits on the server; False when it had not begun to wait there."""
        self._returned.clear()
        await self._reader.unblock()
        try:
            await asyncio.wait_for(self._returned.wait(), UNBLOCK_EVERY)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        self.done.clear()
        try:
            while not self._stopping or self._asking is not None:
                try:
                    if self._stopping:
                        await self._asked()
                        continue
                    if self._unsure:
                        await self._sweep_in()
                    self.connected = True  # the server has just answered; an idle fetch takes seconds to say so
                    await self._cycle()
                    self._failures = 0
                except RedisUnavailable:
                    self.connected, self._unsure = False, True
                    self._failures += 1
                    await asyncio.sleep(wait_before(self._failures))
        except asyncio.CancelledError:
            if self._asking is not None:
                self._asking.cancel()
            raise
        finally:
            self.connected, self._unsure = False, True
            self.done.set()

    async def stop(self) -> None:
        """No new fetch. One that waits on the server is ended by the server, so that it can't swallow a job."""
        self._stopping = True
        self._changed.set()
        self._inventory.end_waiting()
        while not self.done.is_set():
            await self._reader.unblock()
            try:
                await asyncio.wait_for(self.done.wait(), UNBLOCK_EVERY)
            except TimeoutError:
                continue

    def look_again(self) -> None:
        """Somebody else's reply was lost, with jobs in it: before the next fetch."""
        self._unsure = True

    async def _cycle(self) -> None:
        if self._capped is not None:
            await self._asked()  # only what is in hand counts against the cap
        room = await self._inventory.wait_for_room(lambda: self._stopping, self._capped)
        if self._stopping:
            return
        share = max(1, room // len(self._store.partitions))
        count, readable = min(share, self._batch_size), self._readable
        if not self._inventory.caps and (len(readable) == 1 or self._calm >= CALM):
            arrivals = await self._wait_for_any(readable, count)
        elif readable:
            count = min(count, BATCH)
            arrivals = await self._fetch_now(count)
            if not arrivals and not self._stopping and readable == self._readable:
                arrivals = await self._wait_for_any(readable, 1)
        else:
            await self._wait_until_readable()
            return
        if self._is_first_and_one and readable == self._readable:
            self._calm = 0 if arrivals and arrivals[0].queue == readable[0] else self._calm + 1
        if arrivals:
            reach("after_fetch")
        await self._asked()  # before it is asked how old they are, as meanwhile no heartbeat renews them
        if not self._late(arrivals):
            await self._take(arrivals, share)
            if self._capped is None:  # the others tell nothing of how many slots are occupied while jobs wait
                self._inventory.meter.saturate(len(arrivals) >= count)

    async def _fetch_now(self, count: int) -> list[Arrival]:
        turns = self._turns
        asked = (self._in_order(), turns.share_out(count), count, turns.giving_way())
        if self._inventory.caps:
            with self._inventory.asking_for(count):
                arrivals = await self._reader.fetch_shares(*asked)
        else:
            arrivals = await self._reader.fetch_shares(*asked)
        turns.came(one.queue for one in arrivals)
        return arrivals

    async def _wait_for_any(self, lanes: Sequence[str], count: int) -> list[Arrival]:
        self._waits_for = lanes
        try:
            return await self._reader.fetch(lanes, count)
        finally:
            self._waits_for = ()
            self._returned.set()

    async def _wait_until_readable(self) -> None:
        self._changed.clear()
        if self._readable or self._stopping:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), LONGEST_WAIT)
        except TimeoutError:
            await self._reader.greet()

    def _in_order(self) -> list[str]:
        """The readable lanes, high ones first; among those of one priority each is the first in turn, as what the
        shares leave over goes to the first that has more."""
        self._rank += 1
        ordered: list[str] = []
        for _, lanes in groupby(self._readable, priority_of):
            rank = list(lanes)
            turn = self._rank % len(rank)
            ordered += rank[turn:] + rank[:turn]
        return ordered

    async def _take(self, arrivals: list[Arrival], room: int) -> None:
        if self._inventory.caps and arrivals:
            room = max(0, self._inventory.room(self._capped))  # other fetchers have brought some meanwhile
        if len(arrivals) > room:
            # Several lanes woke the waiting fetch in one instant. Back with the rest.
            self._inventory.hand_back(arrivals[room:])
            arrivals = arrivals[:room]
        waiting = self._usher.let_in(arrivals, self._stopping)
        if waiting:
            # While the server answers the next are fetched already; it asks before they are asked for.
            self._asking = asyncio.create_task(self._usher.ask(waiting), name="taskrunner-admission")
            self._asking.add_done_callback(self._end_fetch_if_failed)
            await asyncio.sleep(0)

    def _end_fetch_if_failed(self, asking: asyncio.Task[None]) -> None:
        """What was to be admitted is to be swept in again, at once, and not only when the fetch brings something."""
        if self._waits_for and not asking.cancelled() and asking.exception() is not None:
            self._unblocking = asyncio.create_task(self._end_fetch(), name="taskrunner-unblock")

    async def _asked(self) -> None:
        """Waits until the batch before is in the inbox. Raises what asking for it raised."""
        asking, self._asking = self._asking, None
        if asking is not None:
            await asking

    def _late(self, arrivals: Sequence[Arrival]) -> bool:
        """Whether a reply may have lain unread for most of a reservation, with no heartbeat for what is in it: the loop
        was blocked, or the process stood still. Then the server is asked what of it is still ours."""
        late = bool(arrivals) and time.monotonic() - arrivals[0].fetched_at > 3 * self._store.options.beat
        self._unsure |= late
        return late

    async def _sweep_in(self) -> None:
        """After a failure: the group may be gone, and jobs may be ours that we don't know of."""
        await self._asked()
        await self._lanes.refresh()
        await self._keeper.beat_now()
        await self._usher.take(await self.sweep(), self._stopping)
        self._unsure = False

    async def sweep(self) -> list[Arrival]:
        """What the server thinks that we hold and we don't know of."""
        found: list[Arrival] = []
        for queue in self._lanes.of(self._queues):
            partition = self._reader.partition
            async with self._inventory.claims[partition.number]:
                known = self._known()
                pending = await self._store.sweep(partition, queue)
                known |= self._known()  # the settler may have recorded some meanwhile
            found += (one for one in pending if (one.queue, one.partition, one.entry_id) not in known)
        return found

    def _known(self) -> set[tuple[str, int, bytes]]:
        # What holds seats must not run twice at once here, even where it has lost its reservation.
        inventory = self._inventory
        return {(one.queue, one.partition, one.entry_id) for one in (*inventory.held, *inventory.outliving)}

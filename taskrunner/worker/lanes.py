"""Lanes: which streams of a partition a worker reads: those that its queues have, without foreign and paused ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from .. import priority
from ..errors import RedisConfigurationError
from ..store.keys import PartitionKeys
from ..store.store import Store
from .inventory import Inventory

log = logging.getLogger("taskrunner.worker")

LOOK_EVERY = 5.0
"""Seconds after which it looks anyway: for a notice that was lost, and whether foreign data is gone."""


class Lanes:
    """The lanes of a worker's queues in one partition. Asks when there is a notice, and tells those who follow.

    ``all`` are those there are: they are promoted, reclaimed, swept and left. ``known`` are those that this worker
    makes itself; the others are read as soon as somebody has dispatched to them.
    """

    def __init__(
        self, store: Store, partition: PartitionKeys, queues: Sequence[str], known: Sequence[str], inventory: Inventory
    ) -> None:
        self._store = store
        self._partition = partition
        self._possible = priority.by_priority(lane for queue in queues for lane in priority.lanes(queue))
        self._inventory = inventory
        self._foreign: Collection[str] = ()
        self._paused: frozenset[str] = frozenset()
        self._turn = asyncio.Lock()
        self.all: tuple[str, ...] = tuple(priority.by_priority(known))
        self.wake = asyncio.Event()
        self.followers: list[Callable[[], asyncio.Task[None] | None]] = []
        """Told of every change. What one returns has ended when nothing goes on as it was before."""
        self._asked: list[str] = []  # who waits to hear that a pause is obeyed
        self._ending: list[asyncio.Task[None]] = []  # fetches that wait on the server for what is paused now

    def tell(self, asked: str) -> None:
        """Something is new; ``asked``: by whom an answer is wanted when it is seen to, or nothing."""
        if asked:
            self._asked.append(asked)
        self.wake.set()

    async def run(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self.wake.wait(), LOOK_EVERY)
            except TimeoutError:
                pass
            asked, self._asked = self._asked, []
            try:
                await self.refresh()
                ending, self._ending = self._ending, []
                if ending:
                    await asyncio.wait(ending)
                for one in asked:
                    await self._store.answer(self._partition, one)
            except RedisConfigurationError as error:
                log.debug("no lane can be read, as the fetcher tells: %s", error)
            except BaseException:
                self.wake.set()  # started anew it looks at once: what was told has not been done
                raise

    async def refresh(self) -> None:
        """Makes what is missing, and looks what there is. Raises RedisConfigurationError when all of it is foreign."""
        async with self._turn:
            self.wake.clear()
            further = [lane for lane in self._possible if lane not in self.all]
            found = await self._store.prepare(self._partition, self.all, further)
            if set(found.foreign) - set(self._foreign):
                names = ", ".join(sorted(found.foreign))
                log.error("foreign data under the keys of %s: not read until it is gone", names)
            there = {*self.all, *found.lanes}
            before = (self.all, self._foreign, self._paused)
            self.all = tuple(lane for lane in self._possible if lane in there)
            self._foreign, self._paused = tuple(found.foreign), found.paused
            # First the books: what a fetch that is under way still brings must not start.
            self._inventory.bar(self._partition.number, {lane for lane in self.all if self.paused(lane)})
            if before != (self.all, self._foreign, self._paused):
                for follow in self.followers:
                    ending = follow()
                    if ending is not None:
                        self._ending.append(ending)

    def paused(self, lane: str) -> bool:
        """Whether an operator has paused its queue, or all queues."""
        return bool(self._paused) and not self._paused.isdisjoint(("*", priority.queue_of(lane)))

    def of(self, queues: Collection[str]) -> tuple[str, ...]:
        """The lanes there are of these queues, the highest priorities first."""
        return tuple(lane for lane in self.all if priority.queue_of(lane) in queues)

    def readable(self, queues: Collection[str]) -> tuple[str, ...]:
        """Those of them that may be read now."""
        return tuple(lane for lane in self.of(queues) if lane not in self._foreign and not self.paused(lane))

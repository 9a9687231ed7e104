"""Unfolder: goes on with what workflows have left over for another step: a group of a hundred thousand, a chain of a
thousand that is cancelled. It sleeps until it is told of some; there is no polling but a look every few seconds, as a
notice may be lost."""

from __future__ import annotations

import asyncio

from ..failpoints import reach
from ..store.keys import PartitionKeys
from ..store.store import Store

LONGEST_SLEEP = 5.0
"""Seconds after which it looks anyway."""


class Unfolder:
    """Store.workflows, for one partition."""

    def __init__(self, store: Store, partition: PartitionKeys) -> None:
        self._store = store
        self._partition = partition
        self.wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.wake.clear()
            wait = await self._store.workflows.unfold(self._partition)
            if wait == 0:
                reach("after_unfold")
                continue  # a step is a call: whoever else is waiting has its turn in between
            try:
                await asyncio.wait_for(self.wake.wait(), LONGEST_SLEEP if wait is None else min(wait, LONGEST_SLEEP))
            except TimeoutError:
                continue

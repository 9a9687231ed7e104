"""Courier: carries to other partitions what they must know of workflows: a job that starts there, one that has ended
here. Every worker has one per partition; the server sees to it that what two carry counts once."""

from __future__ import annotations

import asyncio

from ..store.keys import PartitionKeys
from ..store.store import Store

LONGEST_SLEEP = 5.0
"""Seconds after which it looks anyway: a notice may be lost."""


class Courier:
    """Store.outbox, of one partition."""

    def __init__(self, store: Store, partition: PartitionKeys) -> None:
        self._store = store
        self._partition = partition
        self.wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.wake.clear()
            while await self._store.outbox.deliver(self._partition):
                continue
            try:
                await asyncio.wait_for(self.wake.wait(), LONGEST_SLEEP)
            except TimeoutError:
                continue

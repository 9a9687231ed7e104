"""What a sweep finds is what the worker doesn't know of, whatever the other roles do meanwhile."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from taskrunner.envelope import KEPT, TRACKED, Delivery, Envelope
from taskrunner.store.keys import Keyspace
from taskrunner.worker.fetcher import Fetcher
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.lanes import Lanes
from taskrunner.worker.reclaimer import Reclaimer

PARTITION = Keyspace("taskrunner", "test", 1).partitions[0]


class SlowStore:
    """A server that has one job of a dead worker, and whose replies to sweeps take their time."""

    def __init__(self, job: Delivery) -> None:
        self.options = SimpleNamespace(beat=0.1, reservation=1.0)
        self.job = job
        self.pending: list[Delivery] = []
        self.looks, self.replies = asyncio.Event(), asyncio.Event()

    async def reclaim(self, *arguments: Any) -> tuple[bool, list[Delivery]]:
        self.pending.append(self.job)
        return False, [self.job]

    async def sweep(self, partition: Any, queue: str) -> list[Delivery]:
        await self.looks.wait()
        pending = list(self.pending)
        await self.replies.wait()
        return pending


async def turns() -> None:
    """Lets everybody go on who can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_job_that_is_taken_over_and_settled_during_a_sweep_is_not_taken_twice() -> None:
    envelope = Envelope("job", "work", 1, TRACKED | KEPT, 1, {}, b"[]")
    job = Delivery(envelope, "default", 0, b"1-1", 2, 0.0)
    store: Any = SlowStore(job)
    inventory = Inventory(4)
    reader: Any = SimpleNamespace(partition=PARTITION)
    keeper: Any = None
    lanes = Lanes(store, PARTITION, ["default"], ["default"], inventory)
    fetcher = Fetcher(store, reader, lanes, ["default"], inventory, keeper, 10)
    reclaimer = Reclaimer(store, PARTITION, lanes, inventory, fetcher.look_again, time.monotonic, 4)
    sweep = asyncio.create_task(fetcher.sweep())
    await turns()
    takeover = asyncio.create_task(reclaimer._reclaim("default"))
    await turns()
    store.looks.set()
    await turns()
    if job in inventory.held:  # the job is short: it is run and settled before the sweep's reply is here
        inventory.held.discard(job)
        store.pending.clear()
    store.replies.set()
    assert await sweep == []
    await takeover
    assert store.pending == [job]
    assert job in inventory.held

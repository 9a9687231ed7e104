"""Holders of a limiter's slots: they need no task and no worker."""

from __future__ import annotations

import asyncio
import random

from taskrunner import LimitReached, RedisError, SlotLost, TaskRunner
from tests.chaos.journal import Journal

NAME, LIMIT = "slots", 2
HOLDERS = 3
"""Per producer: more than there are slots."""


async def hold(runner: TaskRunner, journal: Journal, id: str, timeout: float, stopping: asyncio.Event) -> None:
    """Takes a slot again and again, and tells the journal when it has one."""
    chance = random.Random(id)
    limiter = runner.limiter(NAME, limit=LIMIT, timeout=timeout)
    while not stopping.is_set():
        try:
            async with limiter.slot(id, wait=chance.uniform(0.0, 2.0) * timeout) as slot:
                # From here on it counts on its slot, whatever is said of it later.
                journal.write("slot", id=id, fence=slot.fence)
                try:
                    await asyncio.sleep(chance.uniform(0.0, 1.2 if chance.random() < 0.1 else 0.2) * timeout)
                finally:
                    journal.write("slot over", id=id, fence=slot.fence)
        except (LimitReached, SlotLost, RedisError, TimeoutError):
            pass
        await asyncio.sleep(chance.uniform(0.0, 0.3))

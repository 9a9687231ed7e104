"""Monitor: fires the long-queue hook. One runner of the fleet at a time evaluates, outside the hot path."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..forecast import QueueStats
from ..store.store import Store

log = logging.getLogger("taskrunner.worker")

SHORTEST, LONGEST = 0.1, 60.0


@dataclass
class LongQueueHook:
    """Who wants to know of long queues, and when. Seconds.

    Called at each evaluation with a drain time over ``threshold``, but not within ``cooldown`` of its last call. With
    ``clear``, called once more when the drain time of an alerted queue has fallen to that; ``is_long`` is False then.
    """

    call: Callable[[QueueStats], Awaitable[None]]
    threshold: float
    clear: float | None = None
    cooldown: float = 0.0
    long: set[str] = field(default_factory=set[str])
    called: dict[str, float] = field(default_factory=dict[str, float])
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by queue: a slow one holds up no other

    @property
    def interval(self) -> float:
        return min(max(self.threshold / 2, SHORTEST), LONGEST)

    def wants(self, stats: QueueStats, now: float) -> bool | None:
        """Whether to call now: True for an alert, False for its end, None for nothing."""
        if stats.drain_time > self.threshold:
            self.long.add(stats.queue)
            if now - self.called.get(stats.queue, -1e9) < self.cooldown:
                return None
            self.called[stats.queue] = now
            return True
        if self.clear is None:
            self.long.discard(stats.queue)
        elif stats.queue in self.long and stats.drain_time <= self.clear:
            self.long.discard(stats.queue)
            return False
        return None


class Monitor:
    """Evaluates every threshold / 2, while this runner leads."""

    def __init__(self, store: Store, hooks: Sequence[LongQueueHook], replication_factor: int | None) -> None:
        self._store = store
        self._hooks = hooks
        self._replication_factor = replication_factor

    async def run(self) -> None:
        interval = min(hook.interval for hook in self._hooks)
        try:
            while True:
                if await self._store.lead(max(3 * interval, 1.0)):
                    await self._evaluate()
                await asyncio.sleep(interval)
        finally:
            for hook in self._hooks:
                for call in hook.busy.values():
                    call.cancel()

    async def _evaluate(self) -> None:
        for queue in await self._store.inspection.queues():
            stats = await self._store.inspection.stats(queue, self._replication_factor)
            now = time.monotonic()
            for hook in self._hooks:
                if queue in hook.busy and not hook.busy[queue].done():
                    continue  # a slow hook misses evaluations, it doesn't pile up
                wanted = hook.wants(stats, now)
                if wanted is not None:
                    told = dataclasses.replace(stats, is_long=wanted)
                    hook.busy[queue] = asyncio.create_task(_contained(hook, told))
                    await asyncio.sleep(0)


async def _contained(hook: LongQueueHook, stats: QueueStats) -> None:
    try:
        await hook.call(stats)
    except Exception:
        log.exception("a long-queue hook failed")

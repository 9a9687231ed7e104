"""Our side of the benchmarks: a TaskRunner with default settings, and the tasks that are measured."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from taskrunner import JobContext, Limit, LimitReached, Rate, TaskRunner

from .workload import Stopwatch, Tally, payloads, resident

LIMIT = 3
"""How many limited jobs may run at once, and how many slots the limiter has."""
RATE = 100
"""How many rated jobs may start in a second, and at once after a rest."""


class Ours:
    """Everything that a child process may be asked to do with a runner; see ``children``."""

    def __init__(self, url: str, namespace: str) -> None:
        self.runner = TaskRunner(url, namespace=namespace)
        self._tally = Tally()
        self._lags: list[float] = []
        self._naps: list[tuple[float, float]] = []
        self._peak = 0
        self._watcher: asyncio.Task[None] | None = None
        self._started = contextlib.AsyncExitStack()
        self.noop = self.runner.task(name="noop", ignore_result=True)(self._noop)
        self.kept = self.runner.task(name="kept")(self._noop)
        self.instant = self.runner.task(name="instant", ignore_result=True)(self._instant)
        # Naps under several names: what the forecast tells apart is tasks.
        self.naps = {
            name: self.runner.task(name=name, ignore_result=True)(self._nap) for name in ("short", "long", "any")
        }
        self.step = self.runner.task(name="step")(self._step)
        self.limited = self.runner.task(name="limited", ignore_result=True, limit=Limit(LIMIT))(self._nap)
        self.rated = self.runner.task(name="rated", ignore_result=True, rate_limit=Rate(RATE, per=1))(self._nap)

    # -- the tasks -----------------------------------------------------------------------------------------------------

    async def _noop(self, data: dict[str, Any]) -> None:
        self._tally.add()

    async def _instant(self, sent: float) -> None:
        self._lags.append(time.monotonic() - sent)

    async def _nap(self, seconds: float) -> None:
        began = time.monotonic()
        if seconds:
            await asyncio.sleep(seconds)
        self._tally.add()
        self._naps.append((began, time.monotonic()))

    async def _step(self, context: JobContext) -> float:
        if context.previous is not None:
            self._lags.append(time.monotonic() - context.previous)
        return time.monotonic()

    # -- producing -----------------------------------------------------------------------------------------------------

    async def one_by_one(self, count: int) -> dict[str, float]:
        items = payloads(count)
        await self.runner.opened()
        with Stopwatch() as watch:
            for item in items:
                await self.noop.dispatch(item)
        return watch.report(count)

    async def concurrent(self, count: int, width: int) -> dict[str, float]:
        """``await dispatch()``, ``width`` of them at a time."""
        items = payloads(count)
        await self.runner.opened()
        with Stopwatch() as watch:
            for start in range(0, count, width):
                await asyncio.gather(*[self.noop.dispatch(item) for item in items[start : start + width]])
        return watch.report(count)

    async def many(self, count: int, kept: bool = False, lock_key: str | None = None) -> dict[str, float]:
        items, task = payloads(count), self.kept if kept else self.noop
        if lock_key is not None:
            task = task.with_options(lock_key=lock_key)
        await self.runner.opened()
        with Stopwatch() as watch:
            await self.runner.dispatch_many([task.job(item) for item in items])
        return watch.report(count)

    async def send_instant(self) -> None:
        await self.instant.dispatch(time.monotonic())

    async def send_delayed(self, delay: float) -> None:
        """The lag of such a job counts from its due time as its sender knows it; the server's is a little later."""
        await self.instant.with_options(delay=delay).dispatch(time.monotonic() + delay)

    # -- consuming -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to consume."""
        self._tally, self._lags, self._naps = Tally(), [], []
        await self._started.enter_async_context(self.runner.start(fail_fast=True))

    async def stop(self) -> dict[str, Any]:
        """Stops consuming, and tells what was done."""
        report = self._tally.report()
        await self._started.aclose()
        return report | {"lags": self._lags}

    async def cpu(self) -> float:
        """Seconds of CPU time that this process has used."""
        return time.process_time()

    async def last_end(self, after: float) -> float:
        """When the last of the naps ended that began after an instant."""
        return max((end for began, end in self._naps if began > after), default=after)

    async def spans(self) -> list[tuple[float, float]]:
        """When each of the naps began and ended."""
        return self._naps

    async def race(self, width: int, seconds: float, hold: float) -> list[tuple[float, float]]:
        """So many who take slots of one limiter for a while, again and again: when each was held."""
        limiter = self.runner.limiter("race", limit=LIMIT, timeout=30)
        held, end = list[tuple[float, float]](), time.monotonic() + seconds
        await self.runner.opened()

        async def take(number: int) -> None:
            while (left := end - time.monotonic()) > 0:
                with contextlib.suppress(LimitReached):
                    async with limiter.slot(f"{id(self)}-{number}", wait=left):
                        began = time.monotonic()
                        await asyncio.sleep(hold)
                        held.append((began, time.monotonic()))

        await asyncio.gather(*(take(number) for number in range(width)))
        return held

    # -- memory --------------------------------------------------------------------------------------------------------

    async def watch(self) -> int:
        """Begins to note the process's peak of memory. Returns what it holds now, in bytes."""
        self._peak = resident()
        self._watcher = asyncio.create_task(self._watch())
        return self._peak

    async def peak(self) -> int:
        """Ends the watch; the peak in bytes."""
        assert self._watcher is not None
        self._watcher.cancel()
        return self._peak

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self._peak = max(self._peak, resident())

    async def aclose(self) -> None:
        await self.runner.aclose()

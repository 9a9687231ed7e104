"""A pool in any order of submits, ends, cancellations and stops, beside a model: a list of who runs, and a line."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import tests.properties  # noqa: F401
from taskrunner.local import LocalTask, PoolStopped, WorkerPool
from tests.local.work import VirtualLoop


class Submitted:
    """One call of ``submit``, the task that it is about, and how its function is to end."""

    def __init__(self, loop: VirtualLoop, pool: WorkerPool) -> None:
        self.go: asyncio.Future[Any] = loop.create_future()
        self.calls = 0
        self.task = LocalTask(self.function)
        self.call = loop.create_task(pool.submit(self.task))

    async def function(self) -> Any:
        self.calls += 1
        return await self.go


class OnePool(RuleBasedStateMachine):
    @initialize(workers=st.integers(0, 3))
    def make(self, workers: int) -> None:
        self.loop = VirtualLoop()
        self.workers = max(1, workers)
        self.pool = WorkerPool(workers)
        self.running: list[Submitted] = []
        self.line: list[Submitted] = []
        self.refused: list[Submitted] = []
        self.given_up: list[Submitted] = []
        self.ends = {"done": 0, "failed": 0, "canceled": 0}
        self.stops: list[asyncio.Task[None]] = []

    def ended(self, one: Submitted, way: str) -> None:
        self.running.remove(one)
        self.ends[way] += 1
        if self.line:
            self.running.append(self.line.pop(0))
        self.loop.settle()

    @rule()
    def submit(self) -> None:
        one = Submitted(self.loop, self.pool)
        if self.stops:
            self.refused.append(one)
        elif len(self.running) < self.workers:
            self.running.append(one)
        else:
            self.line.append(one)
        self.loop.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), way=st.sampled_from(["done", "failed", "canceled"]))
    def one_ends(self, data: Any, way: str) -> None:
        one = data.draw(st.sampled_from(self.running))
        if way == "canceled":
            assert one.task.cancel()
        elif way == "failed":
            one.go.set_exception(ValueError("no"))
        else:
            one.go.set_result(None)
        self.ended(one, way)
        assert (one.task.error is None) is (way == "done")

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def one_gives_up_in_line(self, data: Any) -> None:
        one = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        one.call.cancel()
        self.given_up.append(one)
        self.loop.settle()

    @precondition(lambda self: self.running and self.line)
    @rule()
    def the_first_in_line_gives_up_when_a_worker_is_given_to_it(self) -> None:
        ends, first = self.running[0], self.line.pop(0)
        ends.go.set_result(None)
        self.loop.call_soon(first.call.cancel)  # behind the end of the task, and before the call is woken
        self.given_up.append(first)
        self.ended(ends, "done")

    @rule(cancel=st.booleans())
    def stop(self, cancel: bool) -> None:
        self.stops.append(self.loop.create_task(self.pool.stop(cancel=cancel)))
        self.refused += self.line
        self.line = []
        if cancel:
            self.ends["canceled"] += len(self.running)
            self.running = []
        self.loop.settle()

    @invariant()
    def the_pool_is_as_the_model_says(self) -> None:
        if not hasattr(self, "pool"):
            return
        stats = self.pool.stats()
        assert (stats.created, stats.pending, stats.started) == (len(self.line), 0, len(self.running))
        assert {name: getattr(stats, name) for name in self.ends} == self.ends
        assert stats.total == len(self.line) + len(self.running) + sum(self.ends.values())
        assert (stats.active_workers, stats.max_workers) == (len(self.running), self.workers)
        assert stats.stopped is bool(self.stops)
        assert self.pool.tasks() == [one.task for one in self.running]
        assert [stop.done() for stop in self.stops] == [not self.running] * len(self.stops)
        assert all(one.calls == 1 for one in self.running)
        for one in (*self.line, *self.refused, *self.given_up):
            assert one.calls == 0
            assert one.task.is_created

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        assert all(one.call.cancelled() for one in self.given_up)
        self.loop.do(self.pool.stop(cancel=True))
        self.loop.settle()
        for one in self.refused:
            assert isinstance(one.call.exception(), PoolStopped)
        for one in self.line:
            assert isinstance(one.call.exception(), PoolStopped)
        self.loop.close()


TestOnePool = OnePool.TestCase

"""Limits and rates: never more at once, never more in a time, over the whole fleet; and never fewer than may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskrunner import Backoff, Job, JobContext, JobStatus, Limit, Rate, TaskRunner
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


class Gauge:
    """Tasks that wait to be let go, and how many of them run."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.go = asyncio.Event()

    async def work(self, tenant: str = "t") -> None:
        self.now[tenant] = self.now.get(tenant, 0) + 1
        self.most[tenant] = max(self.most.get(tenant, 0), self.now[tenant])
        await self.go.wait()
        await asyncio.sleep(0.001)
        self.now[tenant] -= 1

    def at(self, **now: int) -> Callable[[], bool]:
        return lambda: self.now == now


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


def fleet(make_runner: MakeRunner, register: Callable[[TaskRunner], Any]) -> tuple[list[TaskRunner], Any]:
    """Two runners with the same tasks, and those of the second."""
    runners = [make_runner(num_workers=20), make_runner(num_workers=20)]
    return runners, [register(runner) for runner in runners][1]


async def finished(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        await job.result(timeout=30)


async def counted(runner: TaskRunner, **states: int) -> bool:
    return {state: await runner.count(state=state) for state in states} == states


async def test_as_many_run_at_once_as_the_limit_says_over_two_runners(make_runner: MakeRunner, gauge: Gauge) -> None:
    runners, task = fleet(make_runner, lambda runner: runner.task(limit=Limit(3))(gauge.work))
    async with AsyncExitStack() as stack:
        for runner in runners:
            await stack.enter_async_context(runner.start())
        jobs = await runners[0].dispatch_many([task.job() for _ in range(30)])
        await eventually(gauge.at(t=3))
        await eventually(lambda: counted(runners[0], running=3, blocked=27))
        gauge.go.set()
        await finished(jobs)
    assert gauge.most == {"t": 3}


async def test_a_limit_with_a_key_is_one_for_each_key(make_runner: MakeRunner, gauge: Gauge) -> None:
    def register(runner: TaskRunner) -> Any:
        return runner.task(limit=Limit(2, key="tenant:{tenant}"))(gauge.work)

    runners, task = fleet(make_runner, register)
    async with AsyncExitStack() as stack:
        for runner in runners:
            await stack.enter_async_context(runner.start())
        jobs = [await task.dispatch(tenant) for tenant in "aaaaabbbbbc"]
        await eventually(gauge.at(a=2, b=2, c=1))
        await eventually(lambda: counted(runners[0], running=5, blocked=6))
        gauge.go.set()
        await finished(jobs)
    assert gauge.most == {"a": 2, "b": 2, "c": 1}


async def test_tasks_that_name_the_same_key_share_it_and_each_job_obeys_its_own_count(
    runner: TaskRunner, gauge: Gauge
) -> None:
    wide = runner.task(name="wide", limit=Limit(3, key="shared"))(gauge.work)
    narrow = runner.task(name="narrow", limit=Limit(1, key="shared"))(gauge.work)
    async with runner.start():
        jobs = [await wide.dispatch("wide") for _ in range(2)]
        await eventually(gauge.at(wide=2))
        jobs.append(await narrow.dispatch("narrow"))
        await eventually(lambda: counted(runner, blocked=1))
        gauge.go.set()
        await finished(jobs)
    assert gauge.most == {"wide": 2, "narrow": 1}


async def test_limits_without_a_key_are_each_tasks_own(runner: TaskRunner, gauge: Gauge) -> None:
    one = runner.task(name="one", limit=Limit(1))(gauge.work)
    two = runner.task(name="two", limit=Limit(1))(gauge.work)
    async with runner.start():
        jobs = [await one.dispatch("one"), await two.dispatch("two")]
        await eventually(gauge.at(one=1, two=1))
        gauge.go.set()
        await finished(jobs)


async def test_a_place_is_free_while_a_job_waits_for_its_retry(runner: TaskRunner) -> None:
    order = list[str]()

    @runner.task(limit=Limit(1), backoff=Backoff.constant(1))
    async def work(name: str) -> None:
        order.append(name)
        if order == ["first"]:
            raise ValueError

    jobs = [await work.dispatch("first"), await work.dispatch("second")]
    async with runner.start():
        await finished(jobs)
    assert order == ["first", "second", "first"]


async def test_a_job_with_lock_and_limit_takes_both_or_none(runner: TaskRunner, gauge: Gauge) -> None:
    task = runner.task(name="both", lock_key="{tenant}", limit=Limit(2, key="shared"))(gauge.work)
    other = runner.task(name="other", limit=Limit(2, key="shared"))(gauge.work)
    async with runner.start():
        jobs = [await task.dispatch("a") for _ in range(5)]
        await eventually(gauge.at(a=1))
        jobs.append(await other.dispatch("b"))
        await eventually(gauge.at(a=1, b=1))  # those who wait for the lock hold no place of the limit
        gauge.go.set()
        await finished(jobs)
    assert gauge.most["a"] == 1


# -- rates -----------------------------------------------------------------------------------------------------------


def granted(fence: int) -> int:
    """When the server let it start, in ms."""
    return fence >> 22


async def test_starts_are_spaced_evenly_without_a_burst_over_two_runners(make_runner: MakeRunner) -> None:
    fences = list[int]()

    def register(runner: TaskRunner) -> Any:
        @runner.task(rate_limit=Rate(20, per=1, burst=1), max_retry=0)
        async def ask(ctx: JobContext) -> None:
            fences.append(ctx.fence)

        return ask

    runners, task = fleet(make_runner, register)
    async with AsyncExitStack() as stack:
        for runner in runners:
            await stack.enter_async_context(runner.start())
        await finished(await runners[0].dispatch_many([task.job() for _ in range(12)]))
    times = sorted(granted(fence) for fence in fences)
    # A permit each 50 ms. Who waited for it is forgiven half of that, as the one before may have been late; and these
    # are instants that were cut to milliseconds.
    early = [time - times[0] - 50 * n for n, time in enumerate(times)]
    assert len(early) == 12
    assert min(early) >= -26, times


async def test_in_any_span_no_more_start_than_count_and_burst(runner: TaskRunner) -> None:
    fences = list[int]()

    @runner.task(rate_limit=Rate(10, per=timedelta(milliseconds=200), burst=5), max_retry=0)
    async def ask(ctx: JobContext) -> None:
        fences.append(ctx.fence)

    async with runner.start():
        await finished(await runner.dispatch_many([ask.job() for _ in range(60)]))
    times = sorted(granted(fence) for fence in fences)
    assert len(times) == 60
    for n, time in enumerate(times):
        assert len([one for one in times[n:] if one < time + 199]) <= 15


async def test_a_job_without_a_permit_waits_as_scheduled_for_its_time(runner: TaskRunner) -> None:
    @runner.task(rate_limit=Rate(3, per=3000))
    async def ask() -> None: ...

    @runner.task
    async def other() -> None: ...

    async with runner.start():
        before = datetime.now(UTC)
        await finished(jobs := [await ask.dispatch() for _ in range(3)])
        assert {await job.status() for job in jobs} == {JobStatus.SUCCEEDED}, "a whole burst at once"
        late = await ask.dispatch()
        await eventually(lambda: counted(runner, scheduled=1))
        due = (await late.info()).due_at
        assert due is not None
        assert timedelta(seconds=980) < due - before < timedelta(seconds=1100)
        await finished([await other.dispatch()])
        assert await late.cancel()


async def test_a_rate_with_a_key_is_one_for_each_key(runner: TaskRunner) -> None:
    @runner.task(rate_limit=Rate(1, per=1000, key="{user}"))
    async def ask(user: str) -> str:
        return user

    async with runner.start():
        first, late, other = await ask.dispatch("a"), await ask.dispatch("a"), await ask.dispatch("b")
        assert await first.result(timeout=20) == "a"
        assert await other.result(timeout=20) == "b"
        await eventually(lambda: counted(runner, scheduled=1))
        assert await late.cancel()

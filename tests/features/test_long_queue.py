"""The long-queue hook: called while a queue would take too long to drain, by one runner of the fleet."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from taskrunner import QueueStats, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.worker.monitor import Monitor
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Monitor]:
    """The evaluations that were made, by the monitor that made them."""
    made, original = list[Monitor](), Monitor._evaluate

    async def evaluate(self: Monitor) -> None:
        await original(self)
        made.append(self)

    monkeypatch.setattr(Monitor, "_evaluate", evaluate)
    return made


class Jam:
    """A queue whose workers stand still until they are let go, after some jobs have shown how long they take."""

    def __init__(self, *runners: TaskRunner) -> None:
        self.go, self.runners = asyncio.Event(), runners
        for runner in runners:
            runner.task(name="sample", ignore_result=True)(self.sample)
            runner.task(name="work", ignore_result=True)(self.work)

    async def sample(self) -> None:
        await asyncio.sleep(0.05)

    async def work(self) -> None:
        await self.go.wait()

    @asynccontextmanager
    async def of(self, jobs: int) -> AsyncIterator[None]:
        """The block runs while so many jobs wait behind workers that stand still; then they are let go."""
        runner = self.runners[0]
        await runner.dispatch_many([runner.tasks["sample"].job() for _ in range(2)])
        await eventually(lambda: idle(runner))
        slots = sum(one.settings.num_workers for one in self.runners)
        await runner.dispatch_many([runner.tasks["work"].job() for _ in range(jobs + slots)])
        try:
            yield
        finally:
            self.go.set()
            await eventually(lambda: idle(runner))


async def idle(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running == 0


async def test_it_is_called_at_each_evaluation_while_the_drain_time_is_over_the_threshold(
    make_runner: MakeRunner, evaluations: list[Monitor]
) -> None:
    told = list[QueueStats]()
    runner = make_runner(num_workers=4, long_queue_threshold=0.1, long_queue_hook=told.append)
    jam = Jam(runner)
    async with runner.start(), jam.of(16):
        await eventually(lambda: len(told) >= 3)
    assert len(told) <= len(evaluations)
    last = told[2]
    assert (last.queue, last.waiting, last.workers, last.replicas, last.is_long) == ("default", 16, 4, 1, True)
    assert last.drain_time > 0.1
    assert last.avg_run_time >= 0.05


async def test_it_is_not_called_while_there_are_slots_enough(
    make_runner: MakeRunner, evaluations: list[Monitor]
) -> None:
    told = list[QueueStats]()
    runner = make_runner(num_workers=30, long_queue_threshold=0.2, long_queue_hook=told.append)

    @runner.task
    async def work() -> None:
        await asyncio.sleep(0.05)

    async with runner.start():
        for _ in range(3):
            jobs = await runner.dispatch_many([work.job() for _ in range(20)])
            for job in jobs:
                await job.wait(timeout=10)
        seen = len(evaluations)
        await eventually(lambda: len(evaluations) >= seen + 2)
    assert told == []


async def test_several_hooks_have_thresholds_of_their_own(runner: TaskRunner, make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=1)
    low, high = list[QueueStats](), list[QueueStats]()
    runner.on_long_queue(threshold=0.2)(low.append)
    runner.on_long_queue(threshold=3600)(high.append)
    jam = Jam(runner)
    async with runner.start(), jam.of(100):
        await eventually(lambda: len(low) >= 2)
    assert high == []


async def test_with_a_cooldown_it_is_called_once_in_that_time(
    make_runner: MakeRunner, evaluations: list[Monitor]
) -> None:
    runner, told = make_runner(num_workers=1), list[QueueStats]()
    runner.on_long_queue(threshold=0.2, cooldown=3600)(told.append)
    jam = Jam(runner)
    async with runner.start(), jam.of(100):
        await eventually(lambda: told)
        seen = len(evaluations)
        await eventually(lambda: len(evaluations) >= seen + 3)
    assert len(told) == 1


async def test_with_clear_it_is_told_once_that_the_queue_has_drained(
    make_runner: MakeRunner, evaluations: list[Monitor]
) -> None:
    runner, told = make_runner(num_workers=1), list[bool]()

    @runner.on_long_queue(threshold=0.2, clear=0.1, cooldown=3600)
    async def hook(stats: QueueStats) -> None:
        told.append(stats.is_long)

    jam = Jam(runner)
    async with runner.start():
        async with jam.of(100):
            await eventually(lambda: told)
        await eventually(lambda: len(told) == 2)
        seen = len(evaluations)
        await eventually(lambda: len(evaluations) >= seen + 2)
    assert told == [True, False]


@pytest.mark.parametrize("error", [ValueError("hook"), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_a_hook_that_fails_is_logged_and_called_again(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    runner, calls = make_runner(num_workers=1), list[int]()

    @runner.on_long_queue(threshold=0.2)
    def hook(stats: QueueStats) -> None:
        calls.append(1)
        raise error

    jam = Jam(runner)
    async with runner.start(), jam.of(100):
        await eventually(lambda: len(calls) >= 2)
    assert any("hook" in record.message for record in caplog.records)


async def test_a_slow_hook_holds_up_neither_jobs_nor_evaluations_and_does_not_pile_up(
    make_runner: MakeRunner, evaluations: list[Monitor]
) -> None:
    runner, calls, end = make_runner(num_workers=1), list[int](), asyncio.Event()

    @runner.on_long_queue(threshold=0.2)
    async def hook(stats: QueueStats) -> None:
        calls.append(1)
        await end.wait()

    jam = Jam(runner)
    async with runner.start():
        async with jam.of(100):
            await eventually(lambda: calls)
            seen = len(evaluations)
            await eventually(lambda: len(evaluations) >= seen + 3)
        assert calls == [1], "the jobs were done while the hook still ran, and it was not called twice"


async def test_two_long_queues_are_both_told_of_though_the_hook_is_slow(make_runner: MakeRunner) -> None:
    runner, told, end = make_runner(num_workers=1), list[str](), asyncio.Event()

    @runner.on_long_queue(threshold=0.2)
    async def hook(stats: QueueStats) -> None:
        told.append(stats.queue)
        await end.wait()

    jam = Jam(runner)
    runner.task(name="other sample", queue="other", ignore_result=True)(jam.sample)
    runner.task(name="other", queue="other", ignore_result=True)(jam.work)
    await runner.dispatch("other sample")
    async with runner.start(), jam.of(100):
        await runner.dispatch_many([runner.tasks["other"].job() for _ in range(100)])
        await eventually(lambda: set(told) == {"default", "other"})
        end.set()


async def test_one_runner_of_the_fleet_evaluates_and_another_takes_over_when_it_leaves(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    calls = list[int]()
    first, second = make_runner(num_workers=1, shutdown_timeout=0), make_runner(num_workers=1)
    for n, runner in enumerate((first, second)):
        runner.on_long_queue(threshold=0.2)(lambda stats, n=n: calls.append(n))
    jam = Jam(second, first)
    async with AsyncExitStack() as leading:
        await leading.enter_async_context(first.start())
        await eventually(lambda: redis_client.exists(keys.leader))
        async with second.start(), jam.of(100):
            await eventually(lambda: len(calls) >= 5)
            assert set(calls) == {0}
            await leading.aclose()
            await eventually(lambda: 1 in calls)


@pytest.mark.parametrize(("factor", "share"), [(None, 1), (4, 4)])
async def test_the_replicas_are_the_live_ones_unless_their_number_is_given(
    make_runner: MakeRunner, factor: int | None, share: int
) -> None:
    runner = make_runner(num_workers=1, replication_factor=factor)
    jam = Jam(runner)
    async with runner.start(), jam.of(80):
        stats = await runner.stats()
        assert stats.replicas == share
        assert 0 < stats.drain_time < math.inf
        assert stats.desired_replicas(stats.drain_time * share / 8) in (8, 9), "rounded up"


@pytest.mark.parametrize("options", [{"threshold": -1}, {"threshold": "5"}, {"clear": -1}, {"cooldown": float("nan")}])
def test_a_wrong_option_is_refused_by_its_name(runner: TaskRunner, options: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError, match=next(iter(options))):
        runner.on_long_queue(**options)(lambda stats: None)

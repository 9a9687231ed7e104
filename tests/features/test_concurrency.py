"""concurrency=: how many jobs of a queue run at once in one process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import QueueConflict, Snooze, TaskOptionError, TaskRunner
from taskrunner.priority import PRIORITIES
from tests.features.remembered import alone
from tests.programs import Program
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


class Gauge:
    """How many run at once, and the most there ever were."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0

    async def run(self, seconds: float = 0.01) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1
        self.done += 1


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("cap", [1, 3])
async def test_no_more_jobs_of_a_queue_run_than_its_concurrency(
    make_runner: MakeRunner, cap: int, partitions: int
) -> None:
    runner, gauge = make_runner(partitions=partitions), Gauge()

    @runner.task(queue="reports", concurrency=cap)
    async def report(n: int) -> None:
        await gauge.run()

    @runner.task(queue="reports")
    async def summary(n: int) -> None:
        await gauge.run()

    specs = [one.with_options(priority=p).job(n) for n in range(10) for p in PRIORITIES for one in (report, summary)]
    await runner.dispatch_many(specs)
    async with runner.start():
        await eventually(lambda: gauge.done == 60)
    assert gauge.most == cap


async def test_the_cap_holds_with_retries_and_snoozes(make_runner: MakeRunner) -> None:
    runner, gauge = make_runner(), Gauge()

    @runner.task(concurrency=2, max_retry=100, backoff=lambda attempt: 0.01)
    async def work(n: int) -> None:
        await gauge.run()
        if gauge.done % 3 == 1:
            raise ValueError
        if gauge.done % 3 == 2:
            raise Snooze(0.005)

    jobs = await runner.dispatch_many([work.job(n) for n in range(20)])
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert gauge.most == 2


async def test_a_slow_queue_with_a_cap_does_not_hold_up_the_others(make_runner: MakeRunner) -> None:
    runner, go = make_runner(num_workers=4), asyncio.Event()

    @runner.task(queue="slow", concurrency=2)
    async def slow(n: int) -> None:
        await go.wait()

    @runner.task(queue="quick")
    async def quick(n: int) -> int:
        return n

    blocked = await runner.dispatch_many([slow.job(n) for n in range(20)])
    async with runner.start():
        await eventually(lambda: _running(runner, "slow", 2))
        for n in range(30):
            assert await (await quick.dispatch(n)).result(timeout=20) == n
        go.set()
        for job in blocked:
            await job.wait(timeout=20)


async def _running(runner: TaskRunner, queue: str, number: int) -> bool:
    return (await runner.stats(queue)).running == number


@pytest.mark.parametrize("slots", [2, 4])
async def test_several_capped_queues_share_the_slots_with_one_without_a_cap(
    make_runner: MakeRunner, slots: int
) -> None:
    runner, gauges, all_ = make_runner(num_workers=slots), {name: Gauge() for name in "abc"}, Gauge()

    def make(queue: str, **options: Any) -> Any:
        async def work(n: int) -> None:
            await asyncio.gather(gauges[queue].run(0.002), all_.run(0.002))

        return runner.task(name=queue, queue=queue, **options)(work)

    tasks = [make("a", concurrency=2), make("b", concurrency=3), make("c")]
    await runner.dispatch_many([task.job(n) for n in range(40) for task in tasks])
    async with runner.start():
        await eventually(lambda: all_.done == 120)
    assert gauges["a"].most == 2
    assert gauges["b"].most == min(3, slots)
    assert all_.most <= slots


async def test_the_cap_holds_when_the_jobs_of_dead_workers_are_taken_over(
    make_runner: MakeRunner,
    program: Callable[..., Program],
    url: str,
    namespace: str,
    redis_client: redis.asyncio.Redis,
) -> None:
    hoarder = program(
        """
        import asyncio, os
        from taskrunner import TaskRunner
        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=0.5)
        running = 0
        @runner.task
        async def work(n):
            global running
            running += 1
            if running == 12:
                print("full")
            await asyncio.sleep(1000)
        async def main():
            await runner.dispatch_many([work.job(n) for n in range(12)])
            await runner.run()
        asyncio.run(main())
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    assert await hoarder.line() == "full"
    runner, gauge = make_runner(reservation_timeout=0.5), Gauge()

    @runner.task(concurrency=2)
    async def work(n: int) -> None:
        await gauge.run(0.02)

    hoarder.signal(signal.SIGKILL)
    async with runner.start():
        await eventually(lambda: gauge.done == 12)
        await eventually(lambda: alone(redis_client, runner))
    assert gauge.most == 2


async def test_the_cap_holds_when_a_sweep_finds_more_than_there_is_room_for(make_runner: MakeRunner) -> None:
    runner, gauge = make_runner(), Gauge()

    @runner.task(concurrency=2)
    async def work(n: int) -> None:
        await gauge.run(0.02)

    async with runner.start():
        await eventually(lambda: runner.ready)
        store = runner.session().store
        # As if a reply was lost with many jobs in it: pending for this worker without its knowing.
        await runner.pause()
        [lanes] = runner._consumer._worker.lanes.values()  # type: ignore[union-attr]
        await eventually(lambda: lanes.paused("default"))
        await runner.dispatch_many([work.job(n) for n in range(12)])
        stray = store.reader(store.partitions[0])
        assert len(await stray.fetch(["default"], 12, None)) == 12
        await runner.resume()
        for fetcher in _fetchers(runner):
            fetcher.look_again()
        await work.dispatch(12)
        await eventually(lambda: gauge.done == 13)
    assert gauge.most == 2


def _fetchers(runner: TaskRunner) -> Any:
    assert runner._consumer is not None
    return runner._consumer._worker.fetchers


async def test_plain_functions_count_until_their_thread_returns(make_runner: MakeRunner) -> None:
    runner, gauge = make_runner(), Gauge()

    @runner.task(concurrency=2)
    def work(n: int) -> None:
        asyncio.run(gauge.run())

    jobs = await runner.dispatch_many([work.job(n) for n in range(10)])
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert gauge.most <= 2


@pytest.mark.parametrize(("cap", "workers"), [(3, 3), (50, 10)])
async def test_the_figures_of_a_capped_queue_tell_how_many_may_run(
    make_runner: MakeRunner, cap: int, workers: int
) -> None:
    runner = make_runner(num_workers=10)

    @runner.task(queue="reports", concurrency=cap)
    async def report() -> None: ...

    async with runner.start():
        await eventually(lambda: runner.ready)
        assert (await runner.stats("reports")).workers == workers
        assert (await runner.stats("default")).workers == 10


# -- who fixes it ------------------------------------------------------------------------------------------------------


def test_the_first_task_that_names_it_fixes_it_and_another_number_is_a_conflict(runner: TaskRunner) -> None:
    runner.declare("unset-before", queue="reports")
    runner.declare("first", queue="reports", concurrency=2)
    runner.declare("unset", queue="reports")
    runner.declare("same", queue="reports", concurrency=2)
    with pytest.raises(QueueConflict, match=r"task 'other': queue 'reports' has concurrency=2 already, not 3"):
        runner.declare("other", queue="reports", concurrency=3)
    assert "other" not in runner.tasks
    runner.declare("elsewhere", queue="mail", concurrency=3)
    assert runner.concurrency == {"reports": 2, "mail": 3}


def test_the_runners_own_queue_is_one_like_the_others(runner: TaskRunner) -> None:
    runner.declare("first", concurrency=2)
    with pytest.raises(QueueConflict, match="queue 'default' has concurrency=2 already"):
        runner.declare("second", queue="default", concurrency=1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, float("nan")])
def test_a_concurrency_that_is_no_whole_number_is_refused(runner: TaskRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="concurrency must be a whole number of at least 1"):
        runner.declare("work", concurrency=value)
    assert runner.concurrency == {}


async def test_a_single_dispatch_has_no_concurrency(runner: TaskRunner) -> None:
    options: dict[str, Any] = {"concurrency": 2}
    with pytest.raises(TaskOptionError, match="there is no option 'concurrency' here"):
        runner.declare("work").with_options(**options)

"""delay and at: never early, and no tick to wait for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobContext, JobStatus, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.worker import promoter
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def server_time(client: redis.asyncio.Redis) -> float:
    seconds, micros = await client.time()
    return float(seconds) + float(micros) / 1e6


@pytest.fixture
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promoter never looks by itself: only a due time or a notice brings it to."""
    monkeypatch.setattr(promoter, "LONGEST_SLEEP", 3600.0)


async def test_no_job_starts_early_by_the_servers_clock(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, no_tick: None
) -> None:
    late = dict[int, float]()
    due = dict[int, float]()

    @runner.task
    async def work(n: int) -> None:
        late[n] = await server_time(redis_client) - due[n]

    async with runner.start():
        for n in range(60):
            delay = random.uniform(0.001, 0.5)
            due[n] = await server_time(redis_client) + delay  # taken before the dispatch, so the earliest instant
            await work.with_options(delay=delay, ignore_result=True).dispatch(n)
        await eventually(lambda: len(late) == 60)
    assert min(late.values()) >= -0.001


@pytest.mark.parametrize(
    "when",
    [
        lambda: {"delay": 0.05},
        lambda: {"delay": timedelta(milliseconds=50)},
        lambda: {"at": datetime.now(UTC) + timedelta(milliseconds=50)},
        lambda: {"at": datetime.now(timezone(timedelta(hours=9))) + timedelta(milliseconds=50)},
    ],
    ids=["seconds", "timedelta", "utc", "tokyo"],
)
async def test_a_job_that_comes_due_on_an_idle_worker_starts_without_a_tick(
    runner: TaskRunner, no_tick: None, when: Callable[[], dict[str, Any]]
) -> None:
    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        assert await (await work.with_options(**when()).dispatch()).result(timeout=10) == 1


@pytest.mark.parametrize("past", [{"delay": 0}, {"at": datetime(2001, 1, 1, tzinfo=UTC)}], ids=repr)
async def test_a_job_that_is_due_already_is_queued_at_once(runner: TaskRunner, past: dict[str, Any]) -> None:
    @runner.task
    async def work() -> int:
        return 1

    job = await work.with_options(**past).dispatch()
    assert await job.status() is JobStatus.QUEUED
    async with runner.start():
        assert await job.result(timeout=10) == 1


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
async def test_an_earlier_job_wakes_a_sleeping_worker(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, no_tick: None
) -> None:
    producer, worker = make_runner(), make_runner()
    worker.task(name="work")(number)
    later = producer.declare("work")
    far = await later.with_options(delay=1000).dispatch(1)
    async with worker.start():
        assert await (await later.dispatch(2)).result(timeout=10) == 2  # it runs, and its promoter has gone to sleep
        for n in range(3):
            near = await later.with_options(delay=0.05).dispatch(n)
            assert await near.result(timeout=10) == n
        assert await far.status() is JobStatus.SCHEDULED


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
async def test_a_scheduled_job_tells_when_it_is_due(runner: TaskRunner) -> None:
    at = datetime(2100, 1, 1, 12, 30, tzinfo=UTC)
    job = await runner.declare("work").with_options(at=at).dispatch(1)
    info = await job.info()
    assert (info.status, info.due_at, info.task, info.queue) == (JobStatus.SCHEDULED, at, "work", "default")
    assert (await runner.stats()).scheduled == 1


async def test_jobs_that_are_due_together_start_in_the_order_of_their_dispatch(make_runner: MakeRunner) -> None:
    runner, order = make_runner(num_workers=1), list[int]()

    @runner.task
    async def work(n: int) -> None:
        order.append(n)

    wait = 0.3
    while True:
        at = datetime.now(UTC) + timedelta(seconds=wait)
        for n in range(25):
            await work.with_options(at=at).dispatch(n)
        await runner.dispatch_many([work.with_options(at=at).job(n) for n in range(25, 50)])
        if datetime.now(UTC) < at:
            break
        await runner.purge("default")  # too slow: some were due before the others were there
        wait *= 4
    async with runner.start():
        await eventually(lambda: len(order) == 50)
    assert order == list(range(50))


async def test_a_thousand_jobs_that_are_due_at_once_run_once_each_though_two_workers_promote(
    make_runner: MakeRunner, no_tick: None
) -> None:
    ran = list[int]()

    async def work(n: int) -> None:
        ran.append(n)

    runners = [make_runner(), make_runner()]
    for runner in runners:
        runner.task(work)
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    bound = runners[0].tasks["work"].with_options(at=at, ignore_result=True)
    async with runners[0].start(), runners[1].start():
        await runners[0].dispatch_many([bound.job(n) for n in range(1000)])
        await eventually(lambda: len(ran) >= 1000)
        await eventually(lambda: nothing_to_do(runners[0]))
    assert sorted(ran) == list(range(1000))


async def test_jobs_become_due_in_every_queue_and_partition(make_runner: MakeRunner, no_tick: None) -> None:
    runner = make_runner(partitions=3)

    @runner.task(queue="mail")
    async def mail(n: int) -> int:
        return n

    @runner.task
    async def work(n: int) -> int:
        return -n

    async with runner.start():
        specs = [task.with_options(delay=0.05).job(n) for n in range(20) for task in (mail, work)]
        jobs: list[Job[int]] = await runner.dispatch_many(specs)
        assert [await job.result(timeout=10) for job in jobs] == [n * s for n in range(20) for s in (1, -1)]


async def test_a_delayed_job_keeps_its_attempt_number_and_headers(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext) -> tuple[int, dict[str, str]]:
        return ctx.attempt, dict(ctx.headers)

    async with runner.start():
        job = await work.with_options(delay=0.01, headers={"trace": "1-2"}).dispatch()
        assert await job.result(timeout=10) == [1, {"trace": "1-2"}]


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delay",
    [-0.001, -1, float("nan"), float("inf"), 1e15, timedelta(seconds=-1), timedelta.max, "5", True, None],
    ids=repr,
)
def test_a_delay_that_can_not_be_is_refused(runner: TaskRunner, delay: Any) -> None:
    with pytest.raises(TaskOptionError, match="delay must be"):
        runner.declare("work").with_options(delay=delay)


def test_a_naive_datetime_is_refused_with_a_word_about_time_zones(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match=r"naive; use datetime\.now\(UTC\)"):
        runner.declare("work").with_options(at=datetime(2030, 1, 1))


@pytest.mark.parametrize("at", [5, "2030-01-01", None], ids=repr)
def test_an_instant_that_is_none_is_refused(runner: TaskRunner, at: Any) -> None:
    with pytest.raises(TaskOptionError, match="aware datetime"):
        runner.declare("work").with_options(at=at)


def test_delay_and_at_together_are_refused(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="give delay or at, not both"):
        runner.declare("work").with_options(delay=1, at=datetime.now(UTC))


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
async def test_the_longest_delay_is_the_end_of_datetime_and_is_told_as_such(runner: TaskRunner) -> None:
    job = await runner.declare("work").with_options(at=datetime.max.replace(tzinfo=UTC, microsecond=0)).dispatch()
    assert (await job.info()).due_at == datetime.max.replace(tzinfo=UTC, microsecond=0)


async def number(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def nothing_to_do(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running + stats.scheduled == 0

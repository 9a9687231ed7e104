"""A job that has not started in time never will."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskrunner import Backoff, JobContext, JobExpired, JobStatus, TaskOptionError, TaskRunner
from tests.waiting import eventually


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(milliseconds=20)


@pytest.mark.parametrize("expires", [lambda: 0.02, lambda: timedelta(milliseconds=20), soon])
async def test_a_job_that_has_not_started_in_time_never_runs(runner: TaskRunner, expires: Any) -> None:
    runs = 0

    @runner.task
    async def work() -> None:
        nonlocal runs
        runs += 1

    jobs = [await work.with_options(expires=expires(), delay=0.05).dispatch() for _ in range(3)]
    async with runner.start():
        for job in jobs:
            with pytest.raises(JobExpired, match=job.id):
                await job.result(timeout=10)
            assert await job.status() is JobStatus.EXPIRED
    assert runs == 0


async def test_a_job_expires_while_it_waits_for_a_worker(runner: TaskRunner) -> None:
    @runner.task(expires=0.001)
    async def work() -> None: ...

    job = await work.dispatch()
    await asyncio.sleep(0.01)  # nobody consumes: the time goes by
    async with runner.start():
        with pytest.raises(JobExpired):
            await job.result(timeout=10)


async def test_a_job_that_started_in_time_is_not_cut_short(runner: TaskRunner) -> None:
    @runner.task(expires=2)
    async def work() -> str:
        await asyncio.sleep(2.1)
        return "done"

    async with runner.start():
        await eventually(lambda: runner.ready)
        assert await (await work.dispatch()).result(timeout=10) == "done"


async def test_a_retry_is_held_to_the_instant_of_the_dispatch(runner: TaskRunner) -> None:
    attempts = list[int]()

    @runner.task(expires=2, backoff=Backoff.constant(2.01))
    async def work(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        raise ValueError

    async with runner.start():
        await eventually(lambda: runner.ready)
        job = await work.dispatch()
        with pytest.raises(JobExpired):
            await job.result(timeout=10)
    assert attempts == [1]


async def test_jobs_that_expire_in_the_instants_of_their_start_their_promotion_and_their_retry_end_once(
    make_runner: Callable[..., TaskRunner],
) -> None:
    runner, other, runs = make_runner(num_workers=2), make_runner(num_workers=2), Counter[str]()
    for one in (runner, other):

        @one.task(name="work", max_retry=1, backoff=Backoff.constant(0.01))
        async def work(ctx: JobContext) -> None:
            runs[ctx.job_id] += 1
            if ctx.attempt == 1:
                raise ValueError

    task = runner.tasks["work"]
    async with runner.start(), other.start():
        specs = [
            task.with_options(expires=random.uniform(0.001, 0.1), delay=random.uniform(0, 0.1)).job()
            for _ in range(300)
        ]
        # However slow the machine is: some that have all the time of the world, and some that have none.
        specs += [task.with_options(expires=60, delay=random.uniform(0, 0.1)).job() for _ in range(20)]
        specs += [task.with_options(expires=0.001, delay=0.1).job() for _ in range(20)]
        jobs = await runner.dispatch_many(specs)
        await asyncio.gather(*(job.wait(timeout=20) for job in jobs))
        infos = [await job.info() for job in jobs]
        figures = (await runner.stats("default")).per_task["work"]
    ended = Counter((info.status, runs[info.id]) for info in infos)
    succeeded, cut, never = JobStatus.SUCCEEDED, JobStatus.EXPIRED, JobStatus.EXPIRED
    assert {(succeeded, 2), (never, 0)} <= set(ended) <= {(succeeded, 2), (cut, 1), (never, 0)}
    assert figures.succeeded == ended[succeeded, 2]
    assert figures.waiting == 0


async def test_a_job_that_expires_in_its_backoff_ends_when_its_turn_comes(runner: TaskRunner) -> None:
    runs = 0

    @runner.task(unique=True, max_retry=3, backoff=Backoff.constant(2.2))
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise ValueError

    async with runner.start():
        await eventually(lambda: runner.ready)
        job = await work.with_options(expires=2.0).dispatch()
        with pytest.raises(JobExpired):
            await job.result(timeout=20)
        assert runs == 1
        assert (await job.info()).attempts == 2, "its second run never began"
        assert not (await work.with_options(delay=0.01, expires=0.001).dispatch()).deduplicated
        await eventually(lambda: nothing_waits(runner))


async def nothing_waits(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting == stats.scheduled == stats.running == 0


async def test_a_job_that_waited_for_another_one_for_too_long_expires(runner: TaskRunner) -> None:
    ran, go = list[int](), asyncio.Event()

    @runner.task(unique="latest", unique_key="key")
    async def work(n: int) -> None:
        ran.append(n)
        await go.wait()

    async with runner.start():
        first = await work.dispatch(1)
        await eventually(lambda: ran)
        second = await work.with_options(expires=0.05).dispatch(2)
        assert await second.status() is JobStatus.BLOCKED
        await asyncio.sleep(0.1)  # it is the time that must go by
        go.set()
        await first.result(timeout=20)
        with pytest.raises(JobExpired):
            await second.result(timeout=20)
    assert ran == [1]


async def test_a_dispatch_can_have_its_own_expiry_or_none(runner: TaskRunner) -> None:
    @runner.task(expires=0.001)
    async def work() -> int:
        return 1

    forever = await work.with_options(expires=None).dispatch()
    longer = await work.with_options(expires=60).dispatch()
    await asyncio.sleep(0.01)
    async with runner.start():
        assert await forever.result(timeout=10) == 1
        assert await longer.result(timeout=10) == 1


@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", True], ids=repr)
def test_a_wrong_duration_is_refused(runner: TaskRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="expires must be"):
        runner.declare("work").with_options(expires=value)


def test_a_naive_datetime_is_refused_with_a_word_about_time_zones(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="naive"):
        runner.declare("work").with_options(expires=datetime(2030, 1, 1))

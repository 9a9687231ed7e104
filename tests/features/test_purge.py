"""runner.purge(): all jobs of a queue that wait end as cancelled; what runs, and what lies dead, stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import Backoff, JobCancelled, JobFailed, JobStatus, TaskOptionError, TaskRunner
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_whatever_waits_in_the_queue_is_cancelled_and_nothing_else(
    make_runner: MakeRunner, partitions: int
) -> None:
    runner, ran = make_runner(partitions=partitions), list[int]()

    @runner.task(queue="mail")
    async def send(n: int) -> None:
        ran.append(n)

    specs = [send.with_options(priority=priority, delay=delay).job(n)
             for priority in ("high", "normal", "low") for delay in (0, 60) for n in range(40)]  # fmt: skip
    jobs = await runner.dispatch_many(specs)
    other = await send.with_options(queue="other", delay=0).dispatch(-1)
    assert await runner.purge("mail") == 240
    assert await runner.purge("mail") == 0
    assert {await job.status() for job in jobs[::7]} == {JobStatus.CANCELLED}
    assert await runner.count("mail") == await runner.count("mail", state="scheduled") == 0
    assert await runner.count("mail", state="cancelled") == 240
    assert (await runner.stats("mail")).waiting == 0
    assert await other.status() is JobStatus.QUEUED
    async with runner.start(queues=["mail", "other"]):
        await other.result(timeout=20)
    assert ran == [-1]


async def test_what_runs_goes_on_and_what_waits_for_a_retry_ends(runner: TaskRunner) -> None:
    go, failed = asyncio.Event(), asyncio.Event()

    @runner.task
    async def work() -> int:
        await go.wait()
        return 1

    @runner.task(backoff=Backoff.constant(60))
    async def bad() -> None:
        failed.set()
        raise ValueError

    async with runner.start():
        running, retrying = await work.dispatch(), await bad.dispatch()
        await asyncio.wait_for(failed.wait(), 20)

        async def both() -> bool:
            return [await one.status() for one in (running, retrying)] == [JobStatus.RUNNING, JobStatus.RETRYING]

        await eventually(both)
        assert await runner.purge("default") == 1
        with pytest.raises(JobCancelled):
            await retrying.result(timeout=20)
        go.set()
        assert await running.result(timeout=20) == 1


@pytest.mark.leaves("dead")
async def test_dead_letters_stay(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError

    async with runner.start():
        with pytest.raises(JobFailed):
            await (await work.dispatch()).result(timeout=20)
        assert await runner.purge("default") == 0
    assert await runner.dead_letters.count() == 1


async def test_all_who_wait_are_told_and_all_keys_are_free(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(n: int) -> None: ...

    jobs = await runner.dispatch_many([work.with_options(delay=60).job(n) for n in range(20)])
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(job.result(timeout=20)) for job in jobs]
    await asyncio.sleep(0.05)
    assert await runner.purge("default") == 20
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in outcomes} == {JobCancelled}
    again = await runner.dispatch_many([work.with_options(delay=60).job(n) for n in range(20)])
    assert not any(job.deduplicated for job in again)
    assert await runner.purge("default") == 20


async def test_a_purge_ends_while_others_dispatch(make_runner: MakeRunner) -> None:
    runner, busy = make_runner(), make_runner()

    @busy.task
    async def work(n: int) -> None: ...

    before = await busy.dispatch_many([work.with_options(delay=60 * (n % 2)).job(n) for n in range(500)])
    stop = False

    async def dispatch() -> None:
        n = 0
        while not stop:
            n += 1
            await work.with_options(delay=60 * (n % 2)).dispatch(n)

    others = [asyncio.create_task(dispatch()) for _ in range(4)]
    try:
        async with asyncio.timeout(20):
            assert await runner.purge("default") >= 500
        assert {await job.status() for job in before[::50]} == {JobStatus.CANCELLED}
    finally:
        stop = True
        await asyncio.gather(*others)
    await runner.purge("default")
    assert await runner.count() == 0


async def test_a_wrong_name_is_refused(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError):
        await runner.purge("a/b")


async def test_an_unknown_queue_has_nothing(runner: TaskRunner) -> None:
    assert await runner.purge("nowhere") == 0

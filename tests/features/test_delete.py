"""runner.delete(): a job and all that is known of it go; what is not there is no error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskrunner import JobContext, JobFailed, JobNotFound, JobStatus, TaskRunner
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_waiting_job_never_runs_and_is_unknown(make_runner: MakeRunner, partitions: int) -> None:
    runner, ran = make_runner(partitions=partitions), list[int]()

    @runner.task(unique=True, unique_key="key")
    async def work(n: int) -> None:
        ran.append(n)

    job = await work.dispatch(1)
    waiting = asyncio.create_task(job.wait(timeout=20))
    await asyncio.sleep(0.05)
    assert await runner.delete(job.id)
    with pytest.raises(JobNotFound):
        await waiting
    with pytest.raises(JobNotFound):
        await job.status()
    async with runner.start():
        await (await work.dispatch(2)).result(timeout=20)
    assert ran == [2]


async def test_a_running_job_is_cut_and_its_key_is_free(runner: TaskRunner) -> None:
    seen = list[str]()

    @runner.task(unique=True, unique_key="key")
    async def work(first: bool) -> None:
        seen.append("started")
        try:
            await asyncio.sleep(60 if first else 0)
        except asyncio.CancelledError:
            seen.append("cut")
            raise

    async with runner.start():
        job = await work.dispatch(True)
        await eventually(lambda: seen)
        assert await runner.delete(job.id)
        second = await work.dispatch(False)
        assert not second.deduplicated
        await second.result(timeout=20)
        await eventually(lambda: "cut" in seen)
    with pytest.raises(JobNotFound):
        await job.status()


async def test_the_outcome_and_what_was_saved_go(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext) -> int:
        await ctx.save("half")
        return 1

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=20) == 1
        assert await runner.delete(job.id)
    with pytest.raises(JobNotFound):
        await job.info()
    assert not await runner.delete(job.id)


async def test_a_dead_letter_goes_with_its_job(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        with pytest.raises(JobFailed):
            await job.result(timeout=20)
        assert await runner.dead_letters.count() == 1
        assert await runner.delete(job.id)
    assert await runner.dead_letters.count() == 0
    assert await runner.count(state="failed") == 0


async def test_what_is_not_there_is_no_error(runner: TaskRunner) -> None:
    assert not await runner.delete("nobody")

    @runner.task
    async def work() -> None: ...

    other = await work.with_options(delay=60).dispatch()
    assert not await runner.delete("nobody")
    assert await other.status() is JobStatus.SCHEDULED
    assert await runner.delete(other.id)


async def test_the_hooks_are_told_of_a_job_that_had_not_ended(runner: TaskRunner) -> None:
    told = list[str]()
    runner.on_cancel(lambda event: told.append(event.job_id))

    @runner.task
    async def work() -> None: ...

    job = await work.with_options(delay=60).dispatch()
    assert await runner.delete(job.id)
    assert told == [job.id]

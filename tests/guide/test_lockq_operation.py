"""lockq's deleting, dead letters and counts; the table is in ``test_lockq_checklist.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from taskrunner import (
    Backoff,
    JobContext,
    JobFailed,
    JobStatus,
    JobTimeout,
    NotFound,
    TaskRunner,
    UniqueConflict,
)
from tests.guide.states import failing, forgotten, is_in, quiet
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


@pytest.mark.leaves("dead")
async def test_a_dead_letter_keeps_error_and_instant_and_outlives_the_outcome(make_runner: MakeRunner) -> None:
    runner = make_runner(result_ttl=0.05)
    bad, before = failing(runner), datetime.now(UTC)
    async with runner.start():
        job = await bad.dispatch(7)
        await eventually(lambda: runner.dead_letters.count())
        await eventually(lambda: forgotten(runner, job.id))
    [letter] = await runner.dead_letters.list()
    assert (letter.id, letter.task, letter.args, letter.queue) == (job.id, "bad", [7], "default")
    assert (letter.error_type, letter.message, letter.attempts) == ("ValueError", "no 7", 1)
    assert abs((letter.failed_at - before).total_seconds()) < 3600
    assert await runner.count() == await runner.count(state="retrying") == 0


async def test_deleting_takes_a_job_out_of_whatever_it_is_in(runner: TaskRunner) -> None:
    @runner.task(max_retry=1, backoff=Backoff.constant(1000), unique=True)
    async def work(n: int) -> None:
        if n:
            raise ValueError(n)

    queued = await work.dispatch(0)
    scheduled = await work.with_options(delay=1000).dispatch(1)
    assert await runner.delete(queued.id)
    assert await runner.delete(scheduled.id)
    assert not (await work.dispatch(0)).deduplicated, "its key is free"
    async with runner.start():
        retrying = await work.dispatch(2)
        failed = await work.with_options(max_retry=0).dispatch(3)
        await failed.wait(timeout=20)
        await eventually(lambda: is_in(retrying, JobStatus.RETRYING))
        done = await work.dispatch(0)
        await done.wait(timeout=20)
        for job in (retrying, failed, done):
            assert await runner.delete(job.id)
            assert await forgotten(runner, job.id)
    assert [await runner.count(state=state) for state in JobStatus] == [0] * 5 + [1] + [0] * 3, "but the second 0"
    assert await runner.dead_letters.count() == 0
    assert not await runner.delete("never was")


async def test_deleting_a_running_job_ends_its_run(runner: TaskRunner) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True)
    async def work() -> None:
        running.set()
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    async with runner.start():
        job = await work.dispatch()
        await running.wait()
        assert await runner.delete(job.id)
        await asyncio.wait_for(ended.wait(), 20)
        await eventually(lambda: quiet(runner))
    assert await forgotten(runner, job.id)


async def test_a_dead_letter_that_is_run_again_begins_anew_in_its_own_queue(runner: TaskRunner) -> None:
    runs, mended = list[tuple[int, str]](), list[bool]()

    @runner.task(queue="mail", max_retry=1, backoff=Backoff.constant(0))
    async def work(ctx: JobContext, n: int) -> int:
        runs.append((ctx.attempt, ctx.queue))
        if not mended:
            raise ValueError
        return n

    async with runner.start():
        job = await work.dispatch(7)
        with pytest.raises(JobFailed):
            await job.result(timeout=20)
        mended.append(True)
        again = await runner.dead_letters.retry(job.id)
        assert await again.result(timeout=20) == 7
    assert runs == [(1, "mail"), (2, "mail"), (1, "mail")]
    info = await again.info()
    assert (info.status, info.error, info.attempts) == (JobStatus.SUCCEEDED, None, 1)
    assert await runner.dead_letters.count() == 0
    with pytest.raises(NotFound, match=job.id):
        await runner.dead_letters.retry(job.id)


@pytest.mark.leaves("dead", "stream:default", "live", "unique:")
async def test_a_dead_letter_stays_when_an_equal_job_has_taken_its_key(runner: TaskRunner) -> None:
    bad = failing(runner, unique=True)
    async with runner.start():
        job = await bad.dispatch(1)
        await job.wait(timeout=20)
    rival = await bad.dispatch(1)
    with pytest.raises(UniqueConflict) as conflict:
        await runner.dead_letters.retry(job.id)
    assert conflict.value.job_id == rival.id
    assert [letter.id for letter in await runner.dead_letters.list()] == [job.id]
    assert await runner.dead_letters.retry_all() == 0


@pytest.mark.leaves("stream:default", "live", "due:", "letters:", "retrying:", "tallies:")
async def test_only_a_dead_letter_is_run_again(runner: TaskRunner) -> None:
    work = runner.declare("work")
    for job in (await work.dispatch(), await work.with_options(delay=1000).dispatch()):
        with pytest.raises(NotFound, match=job.id):
            await runner.dead_letters.retry(job.id)
    assert (await runner.count(), await runner.count(state="scheduled")) == (1, 1)


async def test_dead_letters_are_listed_looked_at_and_purged(runner: TaskRunner) -> None:
    bad = failing(runner)
    async with runner.start():
        for n in range(5):
            await (await bad.dispatch(n)).wait(timeout=20)
    newest = await runner.dead_letters.list(limit=2)
    assert [letter.args for letter in newest] == [[4], [3]]
    assert [one.args for one in await runner.dead_letters.list("bad", after=newest[-1].id)] == [[2], [1], [0]]
    assert await runner.dead_letters.list("another") == []
    assert await runner.dead_letters.get(newest[0].id) == newest[0]
    assert await runner.dead_letters.purge(older_than=3600) == 0
    assert await runner.dead_letters.delete(newest[0].id)
    assert await runner.dead_letters.purge() == 4
    assert await runner.dead_letters.count() == 0


@pytest.mark.leaves("dead")
async def test_a_run_over_its_time_leaves_a_dead_letter_that_can_be_run_again(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(reservation_timeout=0.4), [True]

    @runner.task(max_retry=0, timeout=1.2)
    async def work(text: str) -> str:
        if slow:
            await asyncio.sleep(1000)
        return text

    async with runner.start():
        job = await work.dispatch("payload")
        with pytest.raises(JobFailed) as failed:
            await job.result(timeout=20)
        [letter] = await runner.dead_letters.list()
        assert (letter.task, letter.args, letter.error_type) == ("work", ["payload"], JobTimeout.__name__)
        slow.clear()
        again = await runner.dead_letters.retry(job.id)
        assert await again.result(timeout=20) == "payload"
    assert failed.value.error_type == JobTimeout.__name__


async def test_counts_are_by_task_and_queue_for_any_process_and_what_runs_is_a_state_of_its_own(
    make_runner: MakeRunner,
) -> None:
    worker, observer = make_runner(num_workers=1), make_runner()
    running, go = asyncio.Event(), asyncio.Event()

    @worker.task(max_retry=0)
    async def one(n: int) -> None:
        running.set()
        await go.wait()
        if n == 3:
            raise ValueError

    @worker.task(queue="mail")
    async def two() -> None: ...

    await worker.dispatch_many([one.job(n) for n in range(4)])
    for _ in range(2):
        await two.with_options(delay=1000).dispatch()
    await two.with_options(queue="default", delay=1000).dispatch()
    async with worker.start():
        await running.wait()
        await eventually(lambda: counted(observer, 3, task="one"))
        assert await observer.count("mail") == await observer.count(task="two") == 0
        assert await observer.count(state="running") == await observer.count("default", "one", "running") == 1
        assert await observer.count(state="scheduled") == await observer.count(task="two", state="scheduled") == 3
        assert await observer.count("mail", state="scheduled") == 2
        assert await observer.count("mail", "one", "scheduled") == 0
        assert [job.task for job in await observer.jobs("running")] == ["one"]
        assert await observer.dead_letters.count() == 0
        go.set()
        await eventually(lambda: observer.dead_letters.count("one"))
        assert await observer.count(state="failed") == await observer.count("default", "one", "failed") == 1
        for job in await observer.jobs("scheduled"):
            assert await observer.delete(job.id)
        assert await observer.dead_letters.purge() == 1


async def counted(runner: TaskRunner, expected: int, **which: Any) -> bool:
    return await runner.count(**which) == expected

"""Tasqueue's jobs; the table is in ``test_tasqueue_checklist.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    Job,
    JobContext,
    JobEvent,
    JobFailed,
    JobNotFound,
    JobStatus,
    JobTimeout,
    TaskRunner,
)
from tests.guide.states import is_in, quiet
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_a_job_goes_to_its_own_queue_and_its_handler_is_found_by_name(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner(queue="special")

    @worker.task
    async def work(ctx: JobContext) -> tuple[str, int, str]:
        return ctx.queue, ctx.max_retry, ctx.job_id

    declared = producer.declare("work", queue="usual")
    job = await declared.with_options(queue="special", id="mine", max_retry=9, timeout=50, delay=0.05).dispatch()
    async with worker.start():
        assert await job.result(timeout=20) == ["special", 9, "mine"]


@pytest.mark.leaves("stream:default", "live")
async def test_an_id_is_kept_or_made_and_known_at_once(runner: TaskRunner) -> None:
    work = runner.declare("work")
    jobs = [await work.with_options(id="mine").dispatch(), await work.dispatch(), await work.dispatch()]
    assert jobs[0].id == "mine"
    assert len({job.id for job in jobs}) == 3
    assert [await runner.job(job.id).status() for job in jobs] == [JobStatus.QUEUED] * 3


@pytest.mark.leaves("dead")
async def test_all_that_is_known_of_a_job_can_be_asked_for(runner: TaskRunner) -> None:
    @runner.task(queue="mail", max_retry=1, backoff=Backoff.constant(0))
    async def work(ctx: JobContext, n: int) -> None:
        await ctx.save({"half": n})
        raise ValueError("the text")

    job = await work.dispatch(7)
    waiting = await job.info()
    async with runner.start():
        await job.wait(timeout=20)
        info = await job.info()
    assert (waiting.status, waiting.attempts, waiting.error, waiting.saved) == (JobStatus.QUEUED, 1, None, None)
    assert (info.id, info.task, info.queue, info.status, info.attempts) == (job.id, "work", "mail", JobStatus.FAILED, 2)
    assert info.enqueued_at is not None
    assert info.ended_at is not None
    assert info.ended_at >= info.enqueued_at
    assert info.error is not None
    assert (info.error.error_type, info.error.message) == ("ValueError", "the text")
    assert info.saved == {"half": 7}
    with pytest.raises(JobNotFound):
        await runner.job("never was").info()


@pytest.mark.leaves("dead")
async def test_the_words_for_the_states_and_their_order(runner: TaskRunner) -> None:
    running, go, seen = asyncio.Queue[str](), asyncio.Queue[Exception | None](), list[str]()

    @runner.task(max_retry=1, backoff=Backoff.constant(1))
    async def work(ctx: JobContext) -> None:
        await running.put(str(await ctx.runner.job(ctx.job_id).status()))
        error = await go.get()
        if error is not None:
            raise error

    async def states(*ends: Exception | None) -> list[str]:
        seen.clear()
        job = await work.with_options(delay=1).dispatch()
        await note(job)
        for end in ends:
            seen.append(await asyncio.wait_for(running.get(), 20))
            go.put_nowait(end)
            if end is not ends[-1]:
                await eventually(lambda: is_in(job, JobStatus.RETRYING))
                seen.append("retrying")
        await job.wait(timeout=20)
        await note(job)
        return list(seen)

    async def note(job: Job[Any]) -> None:
        seen.append(str(await job.status()))

    async with runner.start():
        good = await states(ValueError(), None)
        bad = await states(ValueError("first"), ValueError("second"))
    assert good == ["scheduled", "running", "retrying", "running", "succeeded"]
    assert bad == ["scheduled", "running", "retrying", "running", "failed"]
    job = await work.dispatch()
    assert str(await job.status()) == "queued"
    assert await job.cancel()
    assert str(await job.status()) == "cancelled"


@pytest.mark.leaves("dead")
async def test_retries_keep_the_id_and_know_the_attempt(runner: TaskRunner) -> None:
    runs = list[tuple[str, int]]()

    @runner.task(max_retry=2, backoff=Backoff.constant(0))
    async def work(ctx: JobContext) -> None:
        runs.append((ctx.job_id, ctx.attempt))
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
    assert runs == [(job.id, 1), (job.id, 2), (job.id, 3)]


async def test_a_timeout_is_a_failure_like_any_other(runner: TaskRunner) -> None:
    told = list[str]()
    runner.on_retry(lambda event: told.append(event.error.error_type))

    @runner.task(timeout=0.1, max_retry=1, backoff=Backoff.constant(0))
    async def work(ctx: JobContext) -> int:
        if ctx.attempt == 1:
            await asyncio.sleep(1000)
        return ctx.attempt

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=20) == 2
    assert told == [JobTimeout.__name__]


@pytest.mark.leaves("dead")
async def test_the_last_value_that_was_saved_is_there_after_success_and_after_failure(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work(ctx: JobContext, good: bool) -> str:
        await ctx.save("first")
        await ctx.save(["last", 2])
        if not good:
            raise ValueError
        return "returned"

    async with runner.start():
        good, bad = await work.dispatch(True), await work.dispatch(False)
        assert await good.result(timeout=20) == "returned"
        with pytest.raises(JobFailed):
            await bad.result(timeout=20)
        for job in (good, bad):
            assert (await job.info()).saved == ["last", 2]
        assert await runner.delete(good.id)
        with pytest.raises(JobNotFound):
            await good.info()


@pytest.mark.leaves("dead")
async def test_callbacks_are_called_in_order_before_the_outcome_is_known(runner: TaskRunner) -> None:
    told = list[tuple[str, str, str | None]]()

    def tell(kind: str) -> Callable[[JobEvent], Any]:
        async def hook(event: JobEvent) -> None:
            status = str(await runner.job(event.job_id).status())
            told.append((kind, status, None if event.error is None else event.error.message))

        return hook

    @runner.task(
        max_retry=1, backoff=Backoff.constant(0),
        on_start=tell("start"), on_success=tell("success"), on_retry=tell("retry"), on_failure=tell("failure"),
    )  # fmt: skip
    async def work(ctx: JobContext, good: bool) -> None:
        told.append(("run", "", None))
        if ctx.attempt == 1 or not good:
            raise ValueError(f"attempt {ctx.attempt}")

    async with runner.start():
        for good in (True, False):
            await (await work.dispatch(good)).wait(timeout=20)
    begin = [("start", "running", None), ("run", "", None)]
    retry = ("retry", "running", "attempt 1")
    assert told == [
        *begin, retry, *begin, ("success", "running", None),
        *begin, retry, *begin, ("failure", "running", "attempt 2"),
    ]  # fmt: skip


async def test_a_deleted_job_leaves_nothing_of_its_own(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    @runner.task(max_retry=0, unique=True)
    async def work(ctx: JobContext, good: bool) -> None:
        await ctx.save("something")
        if not good:
            raise ValueError

    async with runner.start():
        jobs = [await work.with_options(id=f"job-{good}").dispatch(good) for good in (True, False)]
        for job in jobs:
            await job.wait(timeout=20)
    jobs.append(await work.with_options(id="job-waiting").dispatch(True))
    jobs.append(await work.with_options(id="job-later", delay=1000).dispatch(False))
    for job in jobs:
        assert await runner.delete(job.id)
        assert not await runner.delete(job.id)
    for status in JobStatus:
        assert await runner.count(state=status) == 0
        assert await runner.jobs(status) == []
    traces = [key async for key in redis_client.scan_iter(match=f"*{namespace}*") if await mentions(redis_client, key)]
    assert traces == []


async def mentions(client: redis.asyncio.Redis, key: bytes) -> bool:
    """Whether the id of one of the jobs stands in a key, its name included. What ends by itself may have the bare id:
    the numbered reply of a dispatch, and the list of the latest, which passes over what is not known any more."""
    if b"}:batch:" in key or b"}:succeeded:" in key:
        return not await client.pttl(key) > 0
    return b"job-" in key or b"job-" in (await client.dump(key) or b"")


async def test_what_waits_succeeded_and_failed_is_listed_and_the_latest_first(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=1)

    @runner.task(max_retry=0)
    async def work(n: int) -> None:
        if n % 2:
            raise ValueError

    jobs = await runner.dispatch_many([work.with_options(id=str(n)).job(n) for n in range(10)])
    assert [job.id for job in await runner.jobs("queued")] == [str(n) for n in range(10)]
    assert [job.id for job in await runner.jobs("queued", limit=3)] == ["0", "1", "2"]
    assert await runner.jobs("queued", "another") == []
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert await runner.jobs("queued") == []
    assert [job.id for job in await runner.jobs("succeeded")] == ["8", "6", "4", "2", "0"]
    assert [job.id for job in await runner.jobs("failed", "default")] == ["9", "7", "5", "3", "1"]
    assert [job.id for job in await runner.jobs("failed", limit=2)] == ["9", "7"]
    assert await runner.dead_letters.purge() == 5


@pytest.mark.leaves("dead")
async def test_a_job_follows_on_success_with_the_result_and_another_on_the_final_failure(runner: TaskRunner) -> None:
    followed = asyncio.Queue[tuple[str, Any]]()

    @runner.task
    async def after(ctx: JobContext, what: str) -> None:
        followed.put_nowait((what, ctx.previous))

    @runner.task(
        max_retry=2, backoff=Backoff.constant(0), on_success=after.job("success"), on_failure=after.job("failure")
    )
    async def work(ctx: JobContext, good: bool) -> dict[str, int]:
        if not good or ctx.attempt < 3:
            raise ValueError
        return {"attempt": ctx.attempt}

    async with runner.start():
        for good, expected in ((True, ("success", {"attempt": 3})), (False, ("failure", None))):
            await (await work.dispatch(good)).wait(timeout=20)
            assert await asyncio.wait_for(followed.get(), 20) == expected
        await eventually(lambda: quiet(runner))
    assert followed.empty()


async def test_a_job_follows_one_that_returned_nothing(runner: TaskRunner) -> None:
    followed = asyncio.Queue[Any]()

    @runner.task
    async def after(ctx: JobContext) -> None:
        followed.put_nowait(ctx.previous)

    @runner.task(on_success=after.job(), ignore_result=True)
    async def work() -> None: ...

    async with runner.start():
        await work.dispatch()
        assert await asyncio.wait_for(followed.get(), 20) is None
        await eventually(lambda: quiet(runner))


async def test_the_oldest_job_runs_first(make_runner: MakeRunner) -> None:
    runner, order = make_runner(num_workers=1), list[int]()

    @runner.task
    async def work(n: int) -> None:
        order.append(n)

    jobs = [await work.dispatch(n) for n in range(50)]
    async with runner.start():
        jobs += [await work.dispatch(n) for n in range(50, 100)]
        for job in jobs:
            await job.wait(timeout=20)
    assert order == list(range(100))


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("way", ["raises", "is cancelled"])
async def test_a_cancelled_handler_is_no_success(runner: TaskRunner, way: str) -> None:
    followed, told = list[str](), list[str]()
    runner.on_success(lambda event: told.append(event.task))

    @runner.task
    async def after() -> None:
        followed.append("after")

    @runner.task(max_retry=0, on_success=after.job())
    async def work() -> None:
        if way == "raises":
            raise asyncio.CancelledError
        await asyncio.sleep(1000)

    async with runner.start():
        job = await work.dispatch()
        if way == "is cancelled":
            await eventually(lambda: is_in(job, JobStatus.RUNNING))
            assert await job.cancel()
        await job.wait(timeout=20)
        assert await job.status() is (JobStatus.FAILED if way == "raises" else JobStatus.CANCELLED)
    assert (followed, told) == ([], [])

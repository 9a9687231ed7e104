"""job.cancel(): a job that waits never runs, one that runs is cut wherever it is, and everybody is told at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import (
    Backoff,
    JobCancelled,
    JobContext,
    JobEvent,
    JobNotFound,
    JobStatus,
    TaskRunner,
)
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def refused(job: Any) -> None:
    """The job ends as cancelled for whoever waits for it."""
    with pytest.raises(JobCancelled):
        await job.result(timeout=20)
    assert await job.status() is JobStatus.CANCELLED


# -- waiting jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"priority": "low"}, {"id": "mine"}], ids=str)
async def test_a_job_that_waits_never_runs(make_runner: MakeRunner, partitions: int, options: dict[str, Any]) -> None:
    runner, ran = make_runner(partitions=partitions), list[int]()

    @runner.task
    async def work(n: int) -> None:
        ran.append(n)

    job = await work.with_options(**options).dispatch(1)
    assert await job.cancel()
    await refused(job)
    info = await job.info()
    assert (info.task, info.queue, info.attempts, info.error) == ("work", "default", 0, None)
    async with runner.start():
        await (await work.dispatch(2)).result(timeout=20)
    assert ran == [2]


async def test_it_is_cancelled_by_its_id_alone_from_another_runner(make_runner: MakeRunner) -> None:
    mine, theirs = make_runner(partitions=3), make_runner(partitions=3)

    @mine.task(unique=True)
    async def work() -> None: ...

    job = await work.with_options(delay=60).dispatch()
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    assert await theirs.job(job.id).cancel()
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(waiting, 20)


async def test_a_job_that_waits_for_a_retry_is_cancelled_in_its_backoff(runner: TaskRunner) -> None:
    runs = 0

    @runner.task(max_retry=5, backoff=Backoff.constant(60))
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: runs == 1)

        async def waits() -> bool:
            return await job.status() is JobStatus.RETRYING

        await eventually(waits)
        waiting = asyncio.create_task(job.result(timeout=20))
        await asyncio.sleep(0.05)
        assert await job.cancel()
        with pytest.raises(JobCancelled):
            await waiting
    assert runs == 1
    assert (await job.info()).attempts == 1


async def test_cancelling_the_job_that_holds_the_key_lets_the_one_that_waits_for_it_run(runner: TaskRunner) -> None:
    ran = list[int]()

    @runner.task(unique="latest", unique_key="key")
    async def work(n: int) -> None:
        if n == 1:
            await asyncio.sleep(60)
        ran.append(n)

    async with runner.start():
        first = await work.dispatch(1)
        await eventually(lambda: is_running(first))
        parked = await work.dispatch(2)
        assert await first.cancel()
        await parked.result(timeout=20)
    assert ran == [2]


async def is_running(job: Any) -> bool:
    return await job.status() is JobStatus.RUNNING


# -- running jobs -----------------------------------------------------------------------------------------------------


async def test_a_run_is_cut_and_cleans_up(runner: TaskRunner) -> None:
    seen = list[str]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        seen.append("started")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert ctx.cancelled
            seen.append("cut")
            raise

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: seen)
        assert await job.cancel()
        await refused(job)
        await eventually(lambda: seen == ["started", "cut"])
    assert (await job.info()).attempts == 1


async def test_what_a_cancelled_run_returns_is_refused(runner: TaskRunner, caplog: pytest.LogCaptureFixture) -> None:
    ended, told = asyncio.Event(), list[str]()
    runner.on_success(lambda event: told.append("success"))
    runner.on_cancel(lambda event: told.append("cancel"))

    @runner.task
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        ended.set()
        return "done all the same"

    async with runner.start():
        job = await stubborn.dispatch()
        await eventually(lambda: is_running(job))
        assert await job.cancel()
        await refused(job)
        await asyncio.wait_for(ended.wait(), 20)
        await eventually(lambda: told)
    await refused(job)
    assert told == ["cancel"]
    assert [one for one in caplog.records if one.levelname != "INFO"] == []


async def test_what_a_cancelled_run_raises_is_no_failure(runner: TaskRunner) -> None:
    told = list[str]()
    for kind in ("success", "failure", "retry", "cancel"):
        getattr(runner, f"on_{kind}")(lambda event, kind=kind: told.append(kind))

    @runner.task
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("a driver's way of being cancelled") from None

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: is_running(job))
        assert await job.cancel()
        await eventually(lambda: told)
    await refused(job)
    assert told == ["cancel"]
    assert await runner.dead_letters.count() == 0


async def test_a_thread_goes_on_in_its_slot_and_can_look(make_runner: MakeRunner) -> None:
    runner, seen = make_runner(num_workers=1), list[str]()

    @runner.task
    def work(ctx: JobContext) -> str:
        seen.append("started")
        while not ctx.cancelled:
            time.sleep(0.01)
        seen.append("saw it")
        return "done"

    @runner.task
    async def other() -> None:
        seen.append("other")

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: seen)
        following = await other.dispatch()
        assert await job.cancel()
        await refused(job)
        await following.result(timeout=20)
    assert seen == ["started", "saw it", "other"]
    await refused(job)


async def test_the_key_of_a_running_job_is_free_at_once(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task(unique=True)
    async def work() -> None:
        await go.wait()

    async with runner.start():
        first = await work.dispatch()
        await eventually(lambda: is_running(first))
        assert (await work.dispatch()).deduplicated
        assert await first.cancel()
        second = await work.dispatch()
        assert not second.deduplicated
        go.set()
        await second.result(timeout=20)
    await refused(first)


async def test_it_is_cut_in_another_process(
    runner: TaskRunner, program: Callable[..., Any], url: str, namespace: str
) -> None:
    worker = program(
        """
        import asyncio, os
        from taskrunner import TaskRunner
        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"])

        @runner.on_cancel
        def told(event):
            print("told of", event.job_id, flush=True)

        @runner.task
        async def work():
            print("started", flush=True)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("cut", flush=True)
                raise

        asyncio.run(runner.run())
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    work = runner.declare("work")
    job = await work.dispatch()
    assert await worker.line() == "started"
    assert await job.cancel()
    await refused(job)
    assert await worker.line() == "cut"
    assert await worker.line() == f"told of {job.id}"
    worker.process.terminate()
    assert await worker.ended() == 0


# -- the answer -------------------------------------------------------------------------------------------------------


async def test_an_ended_job_can_not_be_cancelled_any_more(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=20) == 1
        assert not await job.cancel()
        assert await job.status() is JobStatus.SUCCEEDED
    cancelled = await work.with_options(delay=60).dispatch()
    assert await cancelled.cancel()
    assert not await cancelled.cancel()


async def test_an_unknown_job_is_no_error(runner: TaskRunner) -> None:
    assert not await runner.job("nobody").cancel()


async def test_of_many_who_cancel_a_job_one_did_it(make_runner: MakeRunner) -> None:
    runners = [make_runner() for _ in range(5)]

    @runners[0].task
    async def work() -> None: ...

    job = await work.with_options(delay=60).dispatch()
    answers = await asyncio.gather(*(runner.job(job.id).cancel() for runner in runners))
    assert sorted(answers) == [False] * 4 + [True]


async def test_a_job_without_a_record_can_be_cancelled_while_it_waits_for_its_time(runner: TaskRunner) -> None:
    ran = list[int]()

    @runner.task(ignore_result=True)
    async def work(n: int) -> None:
        ran.append(n)

    waits = await work.with_options(delay=0.2).dispatch(1)
    assert await waits.cancel()
    ready = await work.dispatch(2)
    assert not await ready.cancel(), "nothing says where in the stream it is"
    with pytest.raises(JobNotFound):
        await waits.status()
    async with runner.start():
        last = await work.with_options(delay=0.3, ignore_result=False).dispatch(3)
        await last.result(timeout=20)
    assert ran == [2, 3]


async def test_it_is_known_for_the_result_ttl_that_was_chosen_at_its_dispatch(
    runner: TaskRunner, redis_client: Any, namespace: str
) -> None:
    @runner.task
    async def work() -> None: ...

    job = await work.with_options(delay=60, result_ttl=20).dispatch()
    assert await job.cancel()
    [key] = [key async for key in redis_client.scan_iter(match=f"*{namespace}*job:{job.id}")]
    assert 10_000 < await redis_client.pttl(key) <= 20_000


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_of_a_waiting_job_the_hooks_of_who_cancels_are_told_once(make_runner: MakeRunner) -> None:
    mine, theirs, told = make_runner(), make_runner(), list[tuple[str, JobEvent]]()
    mine.on_cancel(lambda event: told.append(("mine", event)))
    theirs.on_cancel(lambda event: told.append(("theirs", event)))

    @mine.task(priority="high")
    async def work(n: int, *, word: str) -> None: ...

    job = await work.with_options(delay=60).dispatch(1, word="x")
    assert await theirs.job(job.id).cancel()
    assert not await job.cancel()
    [(who, event)] = told
    assert who == "theirs"
    assert (event.job_id, event.task, event.queue, event.attempt) == (job.id, "work", "default", 1)
    assert event.payload == ([1], {"word": "x"})
    assert (event.duration, event.error) == (0.0, None)


async def test_of_a_running_job_the_hooks_of_its_worker_are_told(runner: TaskRunner) -> None:
    told = list[JobEvent]()

    @runner.on_cancel
    async def hook(event: JobEvent) -> None:
        await asyncio.sleep(0)
        told.append(event)
        raise RuntimeError("a hook that fails changes nothing")

    @runner.task
    async def work(n: int) -> None:
        await asyncio.sleep(60)

    async with runner.start():
        job = await work.dispatch(7)
        await eventually(lambda: is_running(job))
        assert await job.cancel()
        await eventually(lambda: told)
    [event] = told
    assert (event.job_id, event.payload) == (job.id, ([7], {}))
    assert event.duration > 0

"""A run over its timeout is cancelled and counts as a failure."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import Backoff, JobContext, JobFailed, JobTimeout, TaskOptionError, TaskRunner
from tests.waiting import eventually

end_in_dead_letters = pytest.mark.leaves("dead")
AT_ONCE = Backoff.constant(0)


@end_in_dead_letters
@pytest.mark.parametrize("timeout", [0.02, timedelta(milliseconds=20)], ids=str)
async def test_a_run_over_its_timeout_is_cancelled_and_fails_with_job_timeout(runner: TaskRunner, timeout: Any) -> None:
    cancelled = asyncio.Event()

    @runner.task(timeout=timeout, max_retry=0)
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await work.dispatch()).result(timeout=10)
    assert cancelled.is_set()
    assert failed.value.error_type == "JobTimeout"
    assert "0.02 s" in failed.value.message


async def test_a_timeout_is_retried_like_any_failure(runner: TaskRunner) -> None:
    @runner.task(timeout=0.02, backoff=AT_ONCE)
    async def work(ctx: JobContext) -> int:
        if ctx.attempt < 3:
            await asyncio.Event().wait()
        return ctx.attempt

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == 3


@end_in_dead_letters
async def test_a_timeout_can_be_an_error_that_is_not_retried(runner: TaskRunner) -> None:
    @runner.task(timeout=0.02, backoff=AT_ONCE, give_up_on=JobTimeout)
    async def work() -> None:
        await asyncio.Event().wait()

    async with runner.start():
        with pytest.raises(JobFailed, match="JobTimeout") as failed:
            await (await work.dispatch()).result(timeout=10)
    assert failed.value.attempts == 1


@end_in_dead_letters
async def test_a_timeout_error_of_the_tasks_own_is_its_own(runner: TaskRunner) -> None:
    @runner.task(timeout=60, max_retry=0)
    async def work() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await work.dispatch()).result(timeout=10)
    assert failed.value.error_type == "TimeoutError"


@end_in_dead_letters
async def test_a_run_that_swallows_its_cancellation_has_still_timed_out(runner: TaskRunner) -> None:
    @runner.task(timeout=0.02, max_retry=0)
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return "never"

    async with runner.start():
        with pytest.raises(JobFailed, match="JobTimeout"):
            await (await work.dispatch()).result(timeout=10)


async def test_a_plain_function_over_its_timeout_fails_when_it_returns_and_never_runs_twice_at_once(
    runner: TaskRunner,
) -> None:
    release, at_once, most = threading.Event(), 0, 0
    guard = threading.Lock()

    @runner.task(timeout=0.02, max_retry=1, backoff=AT_ONCE)
    def work() -> None:
        nonlocal at_once, most
        with guard:
            at_once += 1
            most = max(most, at_once)
        release.wait(10)
        with guard:
            at_once -= 1

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: at_once == 1)
        await asyncio.sleep(0.06)  # past the timeout: what must not happen has no event to wait for
        assert (await job.info()).attempts == 1
        release.set()
        await job.result(timeout=10)
        assert (await job.info()).attempts == 2, "the first run had timed out, though it could not be cut short"
    assert most == 1


@end_in_dead_letters
async def test_a_dispatch_can_have_its_own_timeout(runner: TaskRunner) -> None:
    @runner.task(timeout=60, max_retry=0)
    async def work() -> None:
        await asyncio.Event().wait()

    async with runner.start():
        with pytest.raises(JobFailed, match="JobTimeout"):
            await (await work.with_options(timeout=0.02).dispatch()).result(timeout=10)


async def test_a_dispatch_can_have_no_timeout_though_its_task_has(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task(timeout=0.02, max_retry=0)
    async def work() -> str:
        await go.wait()
        return "patient"

    async with runner.start():
        job = await work.with_options(timeout=None).dispatch()
        await asyncio.sleep(0.06)  # past the task's timeout
        go.set()
        assert await job.result(timeout=10) == "patient"


async def test_a_run_within_its_timeout_is_left_alone(runner: TaskRunner) -> None:
    @runner.task(timeout=60)
    async def work() -> int:
        return 1

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == 1


@pytest.mark.parametrize("name", ["timeout", "reservation_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True], ids=repr)
def test_a_wrong_duration_is_refused_at_the_registration(runner: TaskRunner, name: str, value: Any) -> None:
    with pytest.raises(TaskOptionError, match=f"'work': {name} must be"):
        runner.declare("work", **{name: value})

"""What a task says itself: run me again, run me later, never again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskrunner import Backoff, GiveUp, Job, JobContext, JobStatus, Retry, Snooze, TaskRunner
from tests.features.retrying import AT_ONCE, end_in_dead_letters, failure, retrying, stays_waiting
from tests.waiting import eventually


@end_in_dead_letters
async def test_retry_runs_again_and_spends_an_attempt(runner: TaskRunner) -> None:
    attempts = list[int]()

    @runner.task(max_retry=2, backoff=Backoff.constant(1000), retry_on=())
    async def work(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        raise Retry(0, "later, please")

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert attempts == [1, 2, 3]
    assert (failed.error_type, failed.message, failed.reason) == ("Retry", "later, please", "no retries left")


@stays_waiting
@pytest.mark.parametrize(
    ("delay", "seconds"), [(None, 500), (200, 200), (timedelta(seconds=100), 100)], ids=["backoff", "float", "delta"]
)
async def test_the_delay_of_retry_replaces_the_backoff(runner: TaskRunner, delay: Any, seconds: float) -> None:
    @runner.task(backoff=Backoff.constant(500))
    async def work() -> None:
        raise Retry(delay)

    async with runner.start():
        job = await work.dispatch()
        info = await eventually(lambda: retrying(job, attempts=2))
    assert seconds <= (info.due_at - info.enqueued_at).total_seconds() < seconds + 15


async def test_snooze_comes_back_and_spends_no_attempt(runner: TaskRunner) -> None:
    attempts = list[int]()

    @runner.task(max_retry=0)
    async def work(ctx: JobContext) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) < 5:
            raise Snooze(timedelta(milliseconds=1) if len(attempts) % 2 else 0)
        return ctx.attempt

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == 1
    assert attempts == [1] * 5


@stays_waiting
async def test_a_snoozed_job_is_scheduled(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> None:
        raise Snooze(1000)

    async with runner.start():
        job = await work.dispatch()
        info = await eventually(lambda: in_state(job, JobStatus.SCHEDULED))
    assert info.attempts == 1
    assert (info.due_at - info.enqueued_at).total_seconds() >= 1000


@end_in_dead_letters
@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "soon", None], ids=repr)
async def test_a_snooze_without_a_usable_delay_fails_the_job_and_says_so(runner: TaskRunner, delay: Any) -> None:
    @runner.task
    async def work() -> None:
        raise Snooze(delay)

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert failed.reason.startswith("its delay can't be used")


@end_in_dead_letters
async def test_give_up_fails_for_good_whatever_attempts_are_left(runner: TaskRunner) -> None:
    @runner.task(max_retry=10, backoff=AT_ONCE)
    async def work() -> None:
        raise GiveUp("the account is closed")

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert (failed.attempts, failed.message, failed.reason) == (1, "the account is closed", "gave up")


async def in_state(job: Job[Any], status: JobStatus) -> Any:
    info = await job.info()
    return info if info.status is status else None

"""Failed runs are run again: how often, after which wait, for which errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import (
    Backoff,
    JobContext,
    TaskOptionError,
    TaskRunner,
)
from tests.features.retrying import AT_ONCE, end_in_dead_letters, failure, retrying, stays_waiting
from tests.waiting import eventually


@end_in_dead_letters
@pytest.mark.parametrize("max_retry", [0, 1, 5])
async def test_max_retry_counts_the_runs_after_the_first(runner: TaskRunner, max_retry: int) -> None:
    attempts = list[int]()

    @runner.task(max_retry=max_retry, backoff=AT_ONCE)
    async def work(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("not today")

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert attempts == list(range(1, max_retry + 2))
    assert (failed.error_type, failed.message, failed.attempts) == ("ValueError", "not today", max_retry + 1)
    assert failed.reason == ("no retries left" if max_retry else "no retries")
    assert 'raise ValueError("not today")' in failed.traceback


@end_in_dead_letters
async def test_the_default_is_three_retries(runner: TaskRunner) -> None:
    runs = 0

    @runner.task(backoff=AT_ONCE)
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise ValueError

    async with runner.start():
        await failure(await work.dispatch())
    assert runs == 4


async def test_a_run_that_succeeds_after_failures_ends_them(runner: TaskRunner) -> None:
    @runner.task(backoff=AT_ONCE)
    async def work(ctx: JobContext) -> int:
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=10) == 3
        assert (await job.info()).attempts == 3


@stays_waiting
@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        (None, 1),
        (Backoff.constant(500), 500),
        (Backoff.linear(70), 70),
        (lambda attempt: 100 * attempt, 100),
        (lambda attempt: timedelta(minutes=attempt), 60),
    ],
    ids=["default", "constant", "linear", "function", "timedelta"],
)
async def test_the_backoff_says_when_the_next_run_is_due(runner: TaskRunner, backoff: Any, seconds: float) -> None:
    options = {} if backoff is None else {"backoff": backoff}

    @runner.task(**options)
    async def work(ctx: JobContext) -> None:
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        info = await eventually(lambda: retrying(job, attempts=2))
        assert info.due_at is not None
        waits = (info.due_at - info.enqueued_at).total_seconds()
    assert seconds <= waits < seconds + 15, "counted from the failure, which is a little after the dispatch"


@stays_waiting
async def test_jitter_spreads_jobs_that_failed_together_within_its_bounds(runner: TaskRunner) -> None:
    @runner.task(backoff=Backoff.constant(1000, jitter=0.2))
    async def work() -> None:
        raise ValueError

    async with runner.start():
        jobs = await runner.dispatch_many([work.job() for _ in range(30)])
        infos = [await eventually(lambda job=job: retrying(job, attempts=2)) for job in jobs]
    waits = [(info.due_at - info.enqueued_at).total_seconds() for info in infos]
    assert min(waits) >= 800
    assert max(waits) < 1200 + 15
    assert max(waits) - min(waits) > 50


@end_in_dead_letters
@pytest.mark.parametrize(
    "backoff",
    [lambda attempt: 1 / 0, lambda attempt: -1, lambda attempt: float("nan"), lambda attempt: None],
    ids=["raises", "negative", "nan", "none"],
)
async def test_a_backoff_that_gives_no_delay_fails_the_job_and_says_so(
    runner: TaskRunner, backoff: Callable[[int], Any]
) -> None:
    @runner.task(backoff=backoff)
    async def work() -> None:
        raise ValueError("the cause")

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert (failed.error_type, failed.message) == ("ValueError", "the cause")
    assert failed.reason.startswith("its backoff can't be used")


# -- for which errors ---------------------------------------------------------------------------------------------


@end_in_dead_letters
@pytest.mark.parametrize(
    ("options", "error", "runs"),
    [
        ({"retry_on": OSError}, OSError(), 3),
        ({"retry_on": OSError}, ConnectionError(), 3),
        ({"retry_on": OSError}, ValueError(), 1),
        ({"retry_on": (OSError, KeyError)}, KeyError(), 3),
        ({"give_up_on": ValueError}, ValueError(), 1),
        ({"give_up_on": (ValueError, KeyError)}, KeyError(), 1),
        ({"give_up_on": ValueError}, OSError(), 3),
        ({"retry_on": OSError, "give_up_on": ConnectionError}, ConnectionError(), 1),
        ({"retry_on": ()}, ValueError(), 1),
    ],
    ids=repr,
)
async def test_retry_on_and_give_up_on_choose_by_class_and_the_latter_wins(
    runner: TaskRunner, options: dict[str, Any], error: Exception, runs: int
) -> None:
    @runner.task(max_retry=2, backoff=AT_ONCE, **options)
    async def work() -> None:
        raise error

    async with runner.start():
        failed = await failure(await work.dispatch())
    assert failed.attempts == runs
    if runs == 1:
        assert failed.reason == f"{type(error).__name__} is not retried"


@pytest.mark.parametrize(
    "options",
    [
        {"max_retry": -1},
        {"max_retry": 1.5},
        {"max_retry": True},
        {"max_retry": None},
        {"max_retry": 2**70},
        {"backoff": 5},
        {"retry_on": ValueError("x")},
        {"give_up_on": "ValueError"},
        {"retry_on": (OSError, 3)},
    ],
    ids=repr,
)
def test_a_wrong_option_is_refused_at_the_registration(runner: TaskRunner, options: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError, match=next(iter(options))):
        runner.declare("work", **options)


# -- by dispatch ----------------------------------------------------------------------------------------------------


@end_in_dead_letters
async def test_a_dispatch_can_have_its_own_number_of_retries_and_backoff(runner: TaskRunner) -> None:
    seen = list[tuple[int, int]]()

    @runner.task(max_retry=9, backoff=Backoff.constant(1000))
    async def work(ctx: JobContext) -> None:
        seen.append((ctx.attempt, ctx.max_retry))
        raise ValueError

    async with runner.start():
        await failure(await work.with_options(max_retry=1, backoff=AT_ONCE).dispatch())
    assert seen == [(1, 1), (2, 1)]


def test_a_function_as_backoff_can_not_travel_with_a_job(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="set it on the task, or give a Backoff"):
        runner.declare("work").with_options(backoff=lambda attempt: 1)

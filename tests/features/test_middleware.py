"""Middleware goes around every run: in order, with the context, and with the last word about the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from taskrunner import (
    Backoff,
    CallNext,
    GiveUp,
    JobContext,
    JobFailed,
    Retry,
    Snooze,
    TaskOptionError,
    TaskRunner,
    current_job,
)

end_in_dead_letters = pytest.mark.leaves("dead")


async def test_the_first_registered_is_the_outermost(runner: TaskRunner) -> None:
    told = list[str]()

    def named(name: str) -> Any:
        async def middleware(ctx: JobContext, call_next: CallNext) -> Any:
            told.append(f"{name} before")
            result = await call_next()
            told.append(f"{name} after")
            return f"{result}, {name}"

        return middleware

    for name in ("a", "b", "c"):
        runner.middleware(named(name))

    @runner.task
    async def work() -> str:
        told.append("task")
        return "task"

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "task, c, b, a"
    assert told == ["a before", "b before", "c before", "task", "c after", "b after", "a after"]


async def test_it_sees_the_context_of_the_run_and_so_does_whatever_it_calls(runner: TaskRunner) -> None:
    @runner.middleware
    async def middleware(ctx: JobContext, call_next: CallNext) -> Any:
        return [ctx.job_id, ctx.task, ctx.attempt, current_job() is ctx, await call_next()]

    @runner.task
    async def work(ctx: JobContext, n: int) -> bool:
        return current_job() is ctx

    async with runner.start():
        job = await work.dispatch(1)
        assert await job.result(timeout=10) == [job.id, "work", 1, True, True]


async def test_it_goes_around_plain_functions_in_threads(runner: TaskRunner) -> None:
    @runner.middleware
    async def middleware(ctx: JobContext, call_next: CallNext) -> Any:
        return [await call_next(), "around"]

    @runner.task
    def work(ctx: JobContext, n: int) -> str:
        return f"{ctx.task} {n}"

    async with runner.start():
        assert await (await work.dispatch(5)).result(timeout=10) == ["work 5", "around"]


async def test_it_may_answer_without_the_task(runner: TaskRunner) -> None:
    @runner.middleware
    async def cached(ctx: JobContext, call_next: CallNext) -> Any:
        return "cached"

    @runner.task
    async def work() -> str:
        raise AssertionError("it must not run")

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "cached"


async def test_it_may_catch_what_the_task_raises(runner: TaskRunner) -> None:
    @runner.middleware
    async def forgiving(ctx: JobContext, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except KeyError as error:
            return f"caught {error}"

    @runner.task(max_retry=0)
    async def work() -> None:
        raise KeyError("lost")

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "caught 'lost'"


@end_in_dead_letters
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("error", "attempts", "reason"),
    [
        (ValueError("no"), 2, "no retries left"),
        (GiveUp("no"), 1, "gave up"),
        (Retry(0, "no"), 2, "no retries left"),
        (SystemExit("no"), 2, "no retries left"),
        (asyncio.CancelledError("no"), 2, "no retries left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_what_it_raises_is_judged_like_an_error_of_the_task(
    runner: TaskRunner, where: str, error: BaseException, attempts: int, reason: str
) -> None:
    @runner.middleware
    async def failing(ctx: JobContext, call_next: CallNext) -> Any:
        if where == "after":
            await call_next()
        raise error

    @runner.task(max_retry=1, backoff=Backoff.constant(0))
    async def work() -> str:
        return "fine"

    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await work.dispatch()).result(timeout=10)
    assert (failed.value.error_type, failed.value.message) == (type(error).__name__, "no")
    assert (failed.value.attempts, failed.value.reason) == (attempts, reason)


async def test_a_snooze_of_a_middleware_spends_no_attempt(runner: TaskRunner) -> None:
    runs = list[int]()

    @runner.middleware
    async def middleware(ctx: JobContext, call_next: CallNext) -> Any:
        runs.append(ctx.attempt)
        if len(runs) < 3:
            raise Snooze(0)
        return await call_next()

    @runner.task(max_retry=0)
    async def work() -> str:
        return "done"

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "done"
    assert runs == [1, 1, 1]


@end_in_dead_letters
async def test_the_timeout_of_the_task_holds_for_it_too(runner: TaskRunner) -> None:
    @runner.middleware
    async def slow(ctx: JobContext, call_next: CallNext) -> Any:
        await asyncio.sleep(60)

    @runner.task(max_retry=0, timeout=0.05)
    async def work() -> None: ...

    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await work.dispatch()).result(timeout=10)
    assert failed.value.error_type == "JobTimeout"


@end_in_dead_letters
async def test_arguments_that_can_not_be_read_never_reach_it(make_runner: Callable[..., TaskRunner]) -> None:
    runner, runs = make_runner(), list[str]()

    @runner.middleware
    async def middleware(ctx: JobContext, call_next: CallNext) -> Any:
        runs.append(ctx.task)
        return await call_next()

    @runner.task
    async def work(when: date) -> None: ...

    async with runner.start():
        elsewhere = make_runner().declare("work")
        with pytest.raises(JobFailed, match="doesn't fit its annotation"):
            await (await elsewhere.dispatch("yesterday")).result(timeout=10)
    assert runs == []


async def test_an_object_with_an_async_call_is_a_middleware(runner: TaskRunner) -> None:
    class Middleware:
        async def __call__(self, ctx: JobContext, call_next: CallNext) -> Any:
            return ["object", await call_next()]

    one = Middleware()
    assert runner.middleware(one) is one

    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == ["object", 1]


@pytest.mark.parametrize(
    "wrong", [lambda ctx, call_next: None, "m", None, print], ids=["plain", "text", "none", "builtin"]
)
def test_what_is_no_coroutine_function_is_refused(runner: TaskRunner, wrong: Any) -> None:
    with pytest.raises(TaskOptionError, match="middleware must be `async def m"):
        runner.middleware(wrong)
    assert runner.hooks.middleware == []

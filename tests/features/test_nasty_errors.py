"""Whatever a task raises is its failure: no slot, no worker and no other job is lost by it."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import Backoff, Job, JobFailed, TaskRunner

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves("dead")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")

    __repr__ = __str__


class Stateful(Exception):
    """Can't be made again from its arguments, so neither pickled nor copied."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.socket = object()


def deep() -> None:
    deep()


def with_a_circle() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def grouped() -> None:
    raise ExceptionGroup("both", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


NASTY: dict[str, tuple[Callable[[], None], str, str]] = {
    "SystemExit": (lambda: sys.exit(3), "SystemExit", "3"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt", ""),
    "CancelledError": (raising(asyncio.CancelledError("mine")), "CancelledError", "mine"),
    "TimeoutError": (raising(TimeoutError("its own")), "TimeoutError", "its own"),
    "StopIteration": (raising(StopIteration(1)), "RuntimeError", "StopIteration"),
    "StopAsyncIteration": (raising(StopAsyncIteration()), "StopAsyncIteration", ""),
    "unspeakable": (raising(Unspeakable()), "Unspeakable", "__str__ raised"),
    "stateful": (raising(Stateful(code=1)), "Stateful", ""),
    "recursion": (deep, "RecursionError", "maximum recursion depth"),
    "group": (grouped, "ExceptionGroup", "both (2 sub-exceptions)"),
    "circle": (with_a_circle, "ValueError", "first"),
    "surrogate": (raising(ValueError("\ud800")), "ValueError", "\\ud800"),
    "huge": (raising(ValueError("x" * 10_000_000)), "ValueError", "xxx"),
    "zero byte": (raising(ValueError("a\x00b")), "ValueError", "a\x00b"),
    "GeneratorExit": (raising(GeneratorExit("its own")), "GeneratorExit", "its own"),
    "group of base exceptions": (raising(BaseExceptionGroup("both", [SystemExit(1)])), "BaseExceptionGroup", "both"),
    "base": (raising(BaseException("bare")), "BaseException", "bare"),
}


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


@pytest.mark.parametrize("kind", NASTY)
async def test_in_a_coroutine(make_runner: MakeRunner, kind: str) -> None:
    function, error_type, message = NASTY[kind]
    runner = make_runner(num_workers=1)

    @runner.task(max_retry=1, backoff=Backoff.constant(0))
    async def work() -> None:
        function()

    await fails_twice_and_the_slot_lives_on(runner, error_type, message)


@pytest.mark.parametrize("kind", NASTY)
async def test_in_a_plain_function(make_runner: MakeRunner, kind: str) -> None:
    function, error_type, message = NASTY[kind]
    runner = make_runner(num_workers=1)

    @runner.task(max_retry=1, backoff=Backoff.constant(0))
    def work() -> None:
        function()

    await fails_twice_and_the_slot_lives_on(runner, error_type, message)


async def fails_twice_and_the_slot_lives_on(runner: TaskRunner, error_type: str, message: str) -> None:
    @runner.task
    async def healthy() -> str:
        return "fine"

    async with runner.start():
        job = await runner.dispatch("work")
        failed = await failure(job)
        assert await (await healthy.dispatch()).result(timeout=10) == "fine"
    assert failed.error_type == error_type
    assert message in failed.message
    assert failed.attempts == 2
    assert len(failed.message) <= 4_000
    assert len(failed.traceback) <= 16_000
    letter = await runner.dead_letters.get(job.id)
    assert letter is not None
    assert (letter.error_type, letter.message, letter.attempts) == (error_type, failed.message, 2)


async def test_a_failed_run_leaves_nothing_of_its_frames_behind(runner: TaskRunner) -> None:
    held = list[weakref.ref[Stateful]]()

    @runner.task(max_retry=0)
    async def work() -> None:
        precious = Stateful(code=1)
        held.append(weakref.ref(precious))
        try:
            with_a_circle()
        except ValueError as error:
            raise precious from error

    async with runner.start():
        assert (await failure(await work.dispatch())).error_type == "Stateful"
        gc.collect()  # errors that name each other as their cause are a circle
        assert held[0]() is None


async def test_a_job_that_cancels_its_own_task_and_returns_costs_no_slot(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=1)

    @runner.task
    async def odd(n: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return n

    async with runner.start():
        assert [await (await odd.dispatch(n)).result(timeout=10) for n in range(3)] == [0, 1, 2]


async def test_a_job_that_cancels_its_own_task_while_hooks_are_told_has_its_outcome(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=1)

    @runner.on_success
    async def told(event: object) -> None:
        await asyncio.sleep(0)

    @runner.task
    async def odd(n: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return n

    async with runner.start():
        assert [await (await odd.dispatch(n)).result(timeout=10) for n in range(3)] == [0, 1, 2]


async def test_a_job_that_leaves_a_failing_background_task_behind_is_not_disturbed_by_it(runner: TaskRunner) -> None:
    left = list[asyncio.Task[None]]()

    async def later() -> None:
        raise SystemError

    @runner.task
    async def work() -> str:
        left.append(asyncio.create_task(later()))
        return "done"

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "done"
    assert isinstance((await asyncio.gather(*left, return_exceptions=True))[0], SystemError)

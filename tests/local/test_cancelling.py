"""Cancelling and time limits: what becomes of a run that is told to end, in whatever state and however it takes it."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.local import LocalTask, TaskCancelled, TaskTimeout, WorkerPool, current_task
from tests.local.work import Held, HeldThread, Stubborn, Written, started, started_again, succeed
from tests.waiting import eventually


async def test_cancelling_what_was_not_started_or_has_ended_does_nothing() -> None:
    task = LocalTask(succeed, 7)
    assert task.cancel() is False
    assert task.is_created
    assert await started_again(task) == 7
    assert task.cancel() is False
    assert task.is_done


async def test_a_task_that_is_cancelled_in_its_delay_never_calls_its_function() -> None:
    held = Held()
    task = started(held, delay=60)
    await asyncio.sleep(0)
    assert task.is_pending
    assert task.cancel() is True
    with pytest.raises(TaskCancelled, match="was cancelled"):
        await task
    assert held.calls == 0


async def test_a_task_that_is_cancelled_before_its_first_step_never_calls_its_function() -> None:
    held = Held()
    task = started(held)
    assert task.cancel() is True
    await task.wait()
    assert task.is_cancelled
    assert held.calls == 0


async def test_cancelling_a_run_cancels_its_function_once_however_often_it_is_done() -> None:
    stubborn = Stubborn()
    task = started(stubborn, id="mine")
    await stubborn.begun.wait()
    for _ in range(5):
        assert task.cancel() is True
        await asyncio.sleep(0)
    assert stubborn.cancelled == 1
    assert task.cancelling
    assert task.is_started, "until its function has ended"
    stubborn.go.set()
    with pytest.raises(TaskCancelled, match="local task 'mine' was cancelled"):
        await task


async def test_a_cancellation_has_what_the_function_raised_as_its_cause() -> None:
    held = Held()
    task = started(held)
    await held.begun.wait()
    task.cancel()
    await task.wait()
    assert isinstance(task.error, TaskCancelled)
    assert isinstance(task.error.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_whatever_a_cancelled_function_makes_of_it_the_task_is_cancelled(ending: str) -> None:
    begun = asyncio.Event()

    async def run() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if ending == "raises":
                raise ValueError("while it cleaned up") from None
        return "late"

    task = started(run, max_retries=5)
    await begun.wait()
    task.cancel()
    with pytest.raises(TaskCancelled) as caught:
        await task
    assert isinstance(caught.value.__cause__, ValueError) is (ending == "raises")
    assert task.attempts == 1


async def test_a_function_may_clean_up_in_peace_when_it_is_cancelled() -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()

    task = started(run)
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await task.wait()
    assert cleaned.is_set()


@pytest.mark.parametrize("kind", [asyncio.CancelledError, TaskCancelled])
async def test_a_function_that_raises_a_cancellation_itself_is_cancelled(kind: type[BaseException]) -> None:
    async def run() -> None:
        raise kind("by itself")

    task = started(run, max_retries=3)
    with pytest.raises(TaskCancelled):
        await task
    assert task.attempts == 1


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_function_may_cancel_its_own_task(kind: str) -> None:
    async def coroutine() -> None:
        assert current_task().cancel()
        await asyncio.sleep(60)

    async def to_the_end() -> str:
        assert current_task().cancel()
        return "done"

    def thread() -> str:
        assert current_task().cancel()
        return "done"

    for function in (coroutine, to_the_end) if kind == "coroutine" else (thread,):
        task = started(function, max_retries=3)
        with pytest.raises(TaskCancelled):
            await task


# -- time limits ---------------------------------------------------------------------------------------------


async def test_a_function_that_takes_too_long_is_cancelled_and_the_task_has_failed() -> None:
    held = Held()
    task = started(held, id="slow", max_duration=0.01)
    with pytest.raises(TaskTimeout, match=r"local task 'slow' took longer than 0.01 s, its max_duration"):
        await task
    assert task.is_failed
    assert isinstance(task.error, TaskTimeout)
    assert held.cancelled == 1


async def test_a_function_that_ignores_its_timeout_keeps_its_task_going_and_its_worker_until_it_ends() -> None:
    stubborn = Stubborn("late")
    async with WorkerPool(1) as pool:
        task = await pool.submit(stubborn, max_duration=0.01)
        await eventually(lambda: stubborn.cancelled)
        assert task.is_started
        assert task.cancelling
        assert (pool.active_workers, pool.stats().started) == (1, 1)
        stubborn.go.set()
        with pytest.raises(TaskTimeout):
            await task
        assert (pool.active_workers, pool.stats().failed) == (0, 1)
    assert stubborn.cancelled == 1


async def test_a_function_that_fails_while_it_is_timed_out_has_timed_out() -> None:
    async def run() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while it cleaned up")

    task = started(run, max_duration=0.01)
    with pytest.raises(TaskTimeout) as caught:
        await task
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_thread_that_takes_too_long_keeps_its_worker_until_it_returns_and_can_look() -> None:
    async with WorkerPool(1) as pool:
        held = HeldThread("late")
        task = await pool.submit(held, max_duration=0.01)
        await held.begun.wait()
        await eventually(lambda: task.cancelling)
        assert task.is_started
        assert pool.active_workers == 1
        held.go.set()
        with pytest.raises(TaskTimeout):
            await task

        def look() -> bool:
            mine = current_task()
            while not mine.cancelling:
                pass
            return True

        with pytest.raises(TaskTimeout):
            await (await pool.submit(look, max_duration=0.01))


async def test_cancelling_a_task_that_was_timed_out_and_still_runs_makes_it_cancelled() -> None:
    stubborn = Stubborn()
    task = started(stubborn, max_duration=0.01, max_retries=5)
    await eventually(lambda: stubborn.cancelled)
    assert task.cancel()
    stubborn.go.set()
    with pytest.raises(TaskCancelled):
        await task
    assert (stubborn.cancelled, task.attempts) == (1, 1)


async def test_the_limit_is_of_the_function_and_not_of_the_delay() -> None:
    task = started(succeed, 7, delay=0.05, max_duration=0.01)
    assert await task == 7


async def test_many_limits_of_different_lengths_end_each_in_its_time() -> None:
    written = Written()
    lengths = [0.09, 0.03, 0.06, 0.03, 0.09]
    tasks = [
        started(Held(), id=f"{n} {length}", hooks=written.hooks, max_duration=length)
        for n, length in enumerate(lengths)
    ]
    for task in tasks:
        await task.wait()
        assert isinstance(task.error, TaskTimeout)
    ended = [line[1] for line in written.lines if line[0] == "failed"]
    assert [float(id.split()[1]) for id in ended] == sorted(lengths)


async def test_the_timeout_of_one_attempt_does_not_reach_into_the_next() -> None:
    calls: list[int] = []

    async def run() -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "else asyncio.timeout would not know its own cancellations"
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "second"

    assert await started(run, max_duration=0.5, max_retries=1, backoff=lambda n: 0) == "second"


async def test_without_a_limit_a_task_takes_as_long_as_it_takes() -> None:
    held = Held(7)
    task = started(held, max_duration=None)
    await held.begun.wait()
    held.go.set()
    assert await task == 7

"""Waiting for a local task, its result, its error, and what happens to an error that nobody looks at."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback

import pytest

from taskrunner import TaskRunnerError, UsageError
from taskrunner.local import LocalTask, StateHooks, TaskCancelled, TaskTimeout, WorkerPool
from tests.local.work import Held, fail, started, succeed


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Without what tasks of other tests, which are collected late, have to say."""
    gc.collect()
    caplog.clear()
    return caplog


async def complaints(log: pytest.LogCaptureFixture) -> list[str]:
    await asyncio.sleep(0)  # the step in which a test was woken still knows what it was woken with
    gc.collect()
    await asyncio.sleep(0)  # it is logged by the event loop, and not in the midst of a collection
    return [record.message for record in log.records if record.levelno >= logging.ERROR]


async def test_awaiting_gives_the_result_again_and_again() -> None:
    task = started(succeed, [1])
    assert await task == [1]
    assert await task is await task
    assert task.result() == [1]


async def test_awaiting_raises_the_functions_own_error() -> None:
    error = ValueError("no")
    task = started(fail, error)
    with pytest.raises(ValueError, match="no") as caught:
        await task
    assert caught.value is error
    with pytest.raises(ValueError, match="no"):
        task.result()


async def test_the_traceback_leads_to_the_function_and_does_not_grow_with_those_who_ask() -> None:
    task = started(fail)
    lengths = set()
    for _ in range(5):
        with pytest.raises(ValueError, match="no") as caught:
            await task
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "fail"
        lengths.add(len(frames))
    assert len(lengths - {max(lengths)}) <= 1, "the first has waited, which is another way"


async def test_any_number_may_wait() -> None:
    held = Held("result")
    task = started(held)
    waiting = [asyncio.ensure_future(_await(task)) for _ in range(50)]
    await held.begun.wait()
    held.go.set()
    assert await asyncio.gather(*waiting) == ["result"] * 50


async def _await(task: LocalTask[object]) -> object:
    return await task


async def test_who_is_cancelled_while_waiting_only_stops_waiting() -> None:
    held = Held("result")
    task = started(held)
    first, second = asyncio.ensure_future(_await(task)), asyncio.ensure_future(_await(task))
    await held.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert task.is_started
    held.go.set()
    assert await second == "result"


async def test_wait_returns_when_the_run_has_ended_in_whatever_way() -> None:
    for function, way in ((succeed, "done"), (fail, "failed")):
        task = started(function)
        await task.wait()
        assert getattr(task, f"is_{way}")
        await task.wait()


async def test_wait_returns_at_once_for_what_was_not_started() -> None:
    task = LocalTask(succeed)
    await task.wait()
    assert task.is_created


async def test_what_was_not_started_has_no_result_and_says_so_at_once() -> None:
    task = LocalTask(succeed, id="mine")
    with pytest.raises(UsageError, match=r"'mine' has no result: it is created; start\(\) it first, or submit it"):
        await task
    held = Held()
    task = started(held, id="mine")
    with pytest.raises(UsageError, match="'mine' has no result: it is pending; await it"):
        task.result()
    task.cancel()
    await task.wait()


async def test_a_wait_that_is_over_is_told_and_the_task_goes_on() -> None:
    held = Held("result")
    task = started(held, id="mine")
    with pytest.raises(TaskTimeout, match=r"'mine' has not ended within 0.01 s; it goes on"):
        await task.wait(timeout=0.01)
    assert task.is_started
    held.go.set()
    assert await task == "result"


async def test_a_task_that_waits_for_itself_is_told_so() -> None:
    async def run() -> None:
        await tasks[0]

    tasks = [started(run, id="me")]
    with pytest.raises(UsageError, match="'me' would wait for itself"):
        await tasks[0]


async def test_code_of_another_event_loop_can_not_wait_for_it() -> None:
    held = Held()
    task = started(held, id="mine")

    async def wait() -> None:
        with pytest.raises(UsageError, match="'mine' runs in another event loop"):
            await task.wait()

    await asyncio.to_thread(asyncio.run, wait())
    held.go.set()
    await task


async def test_its_errors_are_of_the_one_tree() -> None:
    held = Held()
    task = started(held, max_duration=0.01)
    with pytest.raises(TaskRunnerError) as caught:
        await task
    assert isinstance(caught.value, TimeoutError)
    task.start()
    task.cancel()
    with pytest.raises(TaskRunnerError) as told:
        await task
    assert isinstance(told.value, TaskCancelled)


# -- errors that nobody looks at -----------------------------------------------------------------------------


async def test_an_error_that_nobody_asks_for_is_logged_when_the_task_is_gone(log: pytest.LogCaptureFixture) -> None:
    task = started(fail, id="lost")
    await task.wait()
    assert await complaints(log) == [], "somebody may still ask"
    del task
    assert await complaints(log) == ["local task 'lost' failed, and nobody has asked for its error"]
    assert log.records[0].exc_info is not None
    assert isinstance(log.records[0].exc_info[1], ValueError)


async def test_an_error_that_was_awaited_asked_for_or_told_to_a_hook_is_not_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    async def awaited() -> None:
        with pytest.raises(ValueError, match="no"):
            await started(fail)

    async def asked() -> None:
        task = started(fail)
        await task.wait()
        assert task.error is not None

    async def told() -> None:
        await started(fail, hooks=StateHooks(when_failed=lambda *told: None)).wait()

    async def told_by_the_pool() -> None:
        async with WorkerPool(1, hooks=StateHooks(when_failed=lambda *told: None)) as pool:
            await pool.submit(fail)

    for way in (awaited, asked, told, told_by_the_pool):
        await way()
    assert await complaints(log) == []


async def test_other_hooks_do_not_hide_an_error(log: pytest.LogCaptureFixture) -> None:
    await started(fail, id="lost", hooks=StateHooks(when_started=lambda *told: None)).wait()
    assert len(await complaints(log)) == 1


async def test_who_was_cancelled_while_waiting_leaves_no_message_about_a_future_behind(
    log: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    task = started(held)
    waiter = asyncio.ensure_future(_await(task))
    await held.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert await complaints(log) == []

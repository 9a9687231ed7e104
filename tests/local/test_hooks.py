"""Hooks: what they are told and when, and that nothing which they do gets in the way."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import datetime
from typing import Any

import pytest

from taskrunner import TaskOptionError
from taskrunner.local import LocalTask, StateHooks, TaskCancelled, TaskState, WorkerPool, current_task
from tests.local.work import Held, Written, fail, started, started_again, succeed

RAISED = "a hook of local task 'a' raised an error; the task goes on as without it"


async def test_created_is_told_when_the_task_is_made() -> None:
    written = Written()
    LocalTask(succeed, id="a", hooks=written.hooks)
    assert written.lines == [("created", "a")]


async def test_a_task_that_is_done_is_told_step_by_step() -> None:
    written = Written()
    await started(succeed, id="a", hooks=written.hooks)
    assert written.lines == [("created", "a"), ("pending", "a", 0), ("started", "a"), ("done", "a")]


async def test_failed_is_told_the_error() -> None:
    written, error = Written(), ValueError("no")
    task = started(fail, error, id="a", hooks=written.hooks)
    await task.wait()
    assert written.lines[-1] == ("failed", "a", error)


async def test_pending_is_told_the_number_of_each_attempt_and_failed_only_the_end() -> None:
    written, error = Written(), ValueError("no")
    await started(fail, error, id="a", hooks=written.hooks, max_retries=2, backoff=lambda n: 0).wait()
    assert written.lines == [
        ("created", "a"),
        *[line for n in range(3) for line in (("pending", "a", n), ("started", "a"))],
        ("failed", "a", error),
    ]


async def test_canceled_is_told_for_one_that_ran_and_for_one_that_did_not_begin() -> None:
    written, held = Written(), Held()
    task = started(held, hooks=written.hooks)
    await held.begun.wait()
    task.cancel()
    await task.wait()
    assert written.names == ["created", "pending", "started", "canceled"]
    written.lines.clear()
    task.start()
    task.cancel()
    await task.wait()
    assert written.names == ["pending", "canceled"]


async def test_reported_is_told_what_the_function_reports_between_started_and_done() -> None:
    written = Written()

    async def run() -> None:
        current_task().report("half")
        current_task().report()

    await started(run, id="a", hooks=written.hooks)
    assert written.lines[2:] == [("started", "a"), ("reported", "a", "half"), ("reported", "a", None), ("done", "a")]


async def test_a_report_from_a_thread_reaches_the_hook_in_the_thread_of_the_event_loop_before_the_end() -> None:
    threads: list[int] = []
    names: list[str] = []
    hooks = StateHooks(
        when_reported=lambda id, when, value: (threads.append(threading.get_ident()), names.append(value)),
        when_done=lambda id, when: names.append("done"),
    )

    def run() -> None:
        current_task().report("from a thread")

    await started(run, hooks=hooks)
    assert names == ["from a thread", "done"]
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("ending", ["done", "failed", "canceled"])
async def test_what_a_hook_raises_is_logged_and_changes_nothing(
    error: type[BaseException], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(*told: Any) -> None:
        raise error("a bad hook")

    names = ("created", "pending", "started", ending)
    hooks = StateHooks(**{f"when_{name}": bad for name in names})
    held = Held("result")
    function = {"done": held, "failed": fail, "canceled": held}[ending]
    async with WorkerPool(1, hooks=hooks) as pool:
        task = await pool.submit(function, id="a", hooks=hooks)
        if ending == "canceled":
            await held.begun.wait()
            task.cancel()
        held.go.set()
        await task.wait()
        assert pool.active_workers == 0
    assert task.state is TaskState[ending.upper()]
    messages = [record.message for record in caplog.records if record.name == "taskrunner.local"]
    assert messages.count(RAISED) == 8


async def test_a_hook_may_cancel_its_task_before_the_function_is_called() -> None:
    for name in ("when_pending", "when_started"):
        held = Held()
        task: LocalTask[Any]

        def cancel(*told: Any) -> None:
            assert task.cancel()  # noqa: B023

        task = LocalTask(held, hooks=StateHooks(**{name: cancel}), delay=0)
        task.start()
        with pytest.raises(TaskCancelled):
            await task
        assert held.calls == 0, name


async def test_a_hook_may_cancel_a_task_that_is_to_be_tried_again() -> None:
    calls: list[int] = []

    async def run() -> None:
        calls.append(1)
        raise ValueError("no")

    def pending(id: str, when: datetime, attempt: int) -> None:
        if attempt == 1:
            task.cancel()

    task = LocalTask(run, hooks=StateHooks(when_pending=pending), max_retries=5, backoff=lambda n: 0)
    await started_again(task).wait()
    assert task.is_cancelled
    assert len(calls) == 1


@pytest.mark.parametrize("hook", [5, "print"])
def test_what_is_no_function_is_refused(hook: Any) -> None:
    with pytest.raises(TaskOptionError, match="when_done must be a function, not"):
        StateHooks(when_done=hook)


async def test_a_hook_may_be_a_coroutine_function_and_is_begun_in_the_moment_of_the_change() -> None:
    told = asyncio.Queue[tuple[str, TaskState]]()

    async def hook(id: str, when: datetime) -> None:
        await asyncio.sleep(0)
        told.put_nowait((id, task.state))

    class Hook:
        async def __call__(self, id: str, when: datetime) -> None:
            await hook(id, when)

    task = started(succeed, id="a", hooks=StateHooks(when_started=Hook(), when_done=hook))
    assert [await told.get(), await told.get()] == [("a", TaskState.DONE)] * 2


async def test_what_a_coroutine_hook_raises_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    raised = asyncio.Event()

    async def hook(*told: Any) -> None:
        await asyncio.sleep(0)
        raised.set()
        raise SystemExit

    assert await started(succeed, 7, id="a", hooks=StateHooks(when_done=hook)) == 7
    await raised.wait()
    await asyncio.sleep(0)
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "a hook of local task 'a' raised an error"
    ]


def test_a_coroutine_hook_that_is_told_where_no_event_loop_runs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def hook(*told: Any) -> None:
        raise AssertionError("it can't run")

    task = LocalTask(succeed, id="a", hooks=StateHooks(when_created=hook))
    assert task.is_created
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "a hook of local task 'a' raised an error"
    ]


async def test_a_hook_of_the_pool_that_starts_a_task_again_does_not_hide_its_end_from_the_tasks_own_hooks() -> None:
    runs: list[int] = []

    async def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("no")

    written = Written()
    task = LocalTask(run, id="a", hooks=written.hooks)
    async with WorkerPool(1, hooks=StateHooks(when_failed=lambda *told: task.start())) as pool:
        await pool.submit(task)
    await task
    assert sorted(written.names) == sorted(["created", *["pending", "started"] * 2, "failed", "done"])


async def test_hooks_see_the_state_that_they_are_told_of() -> None:
    seen: list[TaskState] = []
    names = ("pending", "started", "done")
    hooks = StateHooks(**{f"when_{name}": lambda *told: seen.append(task.state) for name in names})
    task = LocalTask(succeed, hooks=hooks)
    await started_again(task)
    assert seen == [TaskState.PENDING, TaskState.STARTED, TaskState.DONE]


async def test_without_hooks_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await started(succeed)
    assert not caplog.records

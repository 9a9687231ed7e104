"""The states of a local task, what is known of it in each, and how it gets from one to the next."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.local import LocalTask, StateHooks, TaskCancelled, TaskInProgress, TaskState
from tests.local.work import Held, Written, fail, started, started_again, succeed

CREATED, PENDING, STARTED, DONE, FAILED, CANCELED = TaskState


def told(task: LocalTask[object]) -> set[str]:
    """The names of all questions that the task answers with yes."""
    names = ("created", "pending", "started", "done", "failed", "cancelled", "in_progress", "ended")
    return {name for name in names if getattr(task, f"is_{name}")}


def test_the_states_are_numbered_in_their_order() -> None:
    assert [(state.name, state.value) for state in TaskState] == [
        *(("CREATED", 0), ("PENDING", 1), ("STARTED", 2)),
        *(("DONE", 3), ("FAILED", 4), ("CANCELED", 5)),
    ]


def test_a_state_shows_itself_by_its_name() -> None:
    assert [f"{state}" for state in TaskState] == [str(state) for state in TaskState]
    assert [*map(str, TaskState)] == ["created", "pending", "started", "done", "failed", "canceled"]
    assert f"{DONE:>6}|{DONE!r}" == "  done|<TaskState.DONE: 3>"


async def test_a_new_task_is_created_and_nothing_has_run() -> None:
    held = Held()
    task = LocalTask(held)
    assert (task.state, task.error, task.attempts) == (CREATED, None, 0)
    assert told(task) == {"created"}
    assert held.calls == 0


async def test_a_task_is_pending_when_it_was_started_and_started_when_its_function_runs() -> None:
    held = Held("result")
    task = LocalTask(held)
    task.start()
    assert task.state is PENDING
    assert told(task) == {"pending", "in_progress"}
    assert held.calls == 0
    await held.begun.wait()
    assert task.state is STARTED
    assert told(task) == {"started", "in_progress"}
    assert task.attempts == 1
    held.go.set()
    assert await task == "result"
    assert task.state is DONE
    assert told(task) == {"done", "ended"}
    assert task.error is None


async def test_awaiting_the_start_gives_the_task_when_its_function_runs() -> None:
    held = Held("result")
    task = LocalTask(held, delay=0.01)
    assert await task.start() is task
    assert (task.state, held.calls) == (STARTED, 1)
    held.go.set()
    assert await task == "result"
    assert await LocalTask(fail).start(), "its error is told by awaiting the task"
    cancelled = LocalTask(held, delay=60)
    starting = cancelled.start()
    cancelled.cancel()
    assert await starting is cancelled
    assert cancelled.is_cancelled


async def test_who_is_cancelled_while_it_waits_for_the_start_cancels_the_task_and_its_function_never_runs() -> None:
    held = Held()
    task = LocalTask(held, delay=60)

    async def start() -> None:
        await task.start()

    starting = asyncio.create_task(start())
    await asyncio.sleep(0)
    assert task.is_pending
    starting.cancel()
    await asyncio.wait([starting])
    await task.wait()
    assert task.is_cancelled
    assert held.calls == 0
    task.start()
    await asyncio.sleep(0)
    task.cancel()
    await task.wait()


async def test_a_task_whose_function_raises_is_failed_with_that_error() -> None:
    error = ValueError("no")
    task = started(fail, error)
    await task.wait()
    assert task.state is FAILED
    assert told(task) == {"failed", "ended"}
    assert task.error is error


async def test_a_cancelled_task_is_cancelled() -> None:
    held = Held()
    task = started(held)
    await held.begun.wait()
    task.cancel()
    assert task.state is STARTED, "until its function has ended"
    await task.wait()
    assert task.state is CANCELED
    assert told(task) == {"cancelled", "ended"}
    assert isinstance(task.error, TaskCancelled)


async def test_a_task_that_ends_at_once_is_seen_as_started_before_it_is_done() -> None:
    written = Written()
    for n in range(200):
        await started(succeed, n, id=str(n), hooks=written.hooks)
    assert written.names == ["created", "pending", "started", "done"] * 200


async def test_a_task_in_progress_is_not_started_a_second_time() -> None:
    held = Held(7)
    task = started(held, id="mine")
    with pytest.raises(TaskInProgress, match=r"'mine' is pending; it can be started again when it has ended"):
        task.start()
    await held.begun.wait()
    with pytest.raises(TaskInProgress, match="'mine' is started"):
        task.start()
    held.go.set()
    assert await task == 7
    assert held.calls == 1


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled"])
async def test_an_ended_task_is_started_again_and_nothing_of_the_last_run_is_left(ending: str) -> None:
    held = Held()
    endings = {"done": succeed, "failed": fail, "cancelled": held}
    runs = [endings[ending], succeed]

    async def run() -> object:
        return await runs.pop(0)()

    task = started(run)
    await asyncio.sleep(0)
    if ending == "cancelled":
        await held.begun.wait()
        task.cancel()
    await task.wait()
    assert told(task) == {ending, "ended"}
    assert (task.error is None) is (ending == "done")
    task.start()
    assert (task.state, task.error, task.attempts, task.cancelling) == (PENDING, None, 0, False)
    await task
    assert (task.state, task.error, task.attempts) == (DONE, None, 1)


async def test_a_task_may_be_started_again_by_its_own_hook() -> None:
    runs: list[str] = []

    async def run() -> int:
        runs.append("")
        return len(runs)

    task: LocalTask[int]

    def again(id: str, when: object) -> None:
        if len(runs) < 3:
            task.start()

    task = started(run, hooks=StateHooks(when_done=again))
    assert await task == 1, "the run that was waited for"
    while task.is_in_progress:
        await task.wait()
    assert await task == 3


async def test_ids_are_those_given_or_numbers_of_their_own() -> None:
    assert LocalTask(succeed, id="mine").id == "mine"
    first, second = LocalTask(succeed), LocalTask(succeed)
    assert first.id == first.id
    assert first.id != second.id
    assert first.id.startswith("task-")


async def test_the_representation_of_a_task_tells_its_id_and_state() -> None:
    task = LocalTask(succeed, id="mine")
    assert repr(task) == "<LocalTask mine CREATED>"
    await started_again(task)
    assert repr(task) == "<LocalTask mine DONE>"

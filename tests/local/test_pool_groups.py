"""Groups: the first error ends all of them, and is raised when all have ended."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from taskrunner.local import (
    LocalTask,
    PoolStopped,
    RetriesExceeded,
    StateHooks,
    TaskInProgress,
    TaskState,
    WorkerPool,
)
from tests.local.test_pool import turn
from tests.local.work import Held, HeldThread, Stubborn, fail, started, succeed


async def test_a_group_gives_its_tasks_in_order_when_all_have_ended() -> None:
    async with WorkerPool(3) as pool:
        tasks = await pool.submit_group(LocalTask(succeed, n) for n in range(20))
        assert [task.result() for task in tasks] == list(range(20))
        tasks = await pool.submit_group([lambda: succeed(1), lambda: succeed(2)])
        assert [task.result() for task in tasks] == [1, 2]
        assert await pool.submit_group([]) == []
        assert pool.stats().done == 22


async def test_the_members_run_at_once_as_far_as_there_are_workers() -> None:
    barrier = asyncio.Barrier(5)
    async with WorkerPool(5) as pool:
        await pool.submit_group([barrier.wait] * 5)
    held = Held()
    async with WorkerPool(2) as pool:
        group = asyncio.create_task(pool.submit_group([held] * 6))
        await turn()
        assert (held.now, pool.stats().created) == (2, 1)
        held.go.set()
        await group
    assert (held.most, held.calls) == (2, 6)


async def test_the_first_error_cancels_the_rest_and_is_raised_when_all_have_ended() -> None:
    held, error = Held(), ValueError("first")
    cleaning = asyncio.Event()

    async def clean() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            await asyncio.sleep(0.01)

    tasks: list[LocalTask[Any]] = [LocalTask(held), LocalTask(clean), LocalTask(fail, error), LocalTask(held)]
    async with WorkerPool(10) as pool:
        with pytest.raises(ValueError, match="first") as caught:
            await pool.submit_group(tasks)
        assert caught.value is error
        assert [task.state.name for task in tasks] == ["CANCELED", "CANCELED", "FAILED", "CANCELED"]
        assert cleaning.is_set()
        assert pool.active_workers == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException])
async def test_an_error_that_is_no_exception_is_raised_to_who_submitted_the_group_and_to_nobody_else(
    error: type[BaseException],
) -> None:
    held = Held()
    async with WorkerPool(3) as pool:
        with pytest.raises(error):
            await pool.submit_group([LocalTask(fail, error("no")), LocalTask(held)])
        assert await (await pool.submit(succeed, 7)) == 7


async def test_members_that_wait_for_a_worker_when_one_fails_never_begin() -> None:
    held = Held()
    tasks: list[LocalTask[Any]] = [LocalTask(fail), *[LocalTask(held) for _ in range(5)]]
    async with WorkerPool(1) as pool:
        with pytest.raises(ValueError, match="no"):
            await pool.submit_group(tasks)
        assert (pool.stats().created, pool.stats().total, pool.available_workers) == (0, 1, 1)
    assert all(task.is_created for task in tasks[1:])
    assert held.calls == 0


async def test_a_member_that_is_tried_again_fails_the_group_only_in_the_end() -> None:
    calls: list[int] = []

    async def run() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("no")
        return "third"

    async with WorkerPool(2) as pool:
        (task,) = await pool.submit_group([LocalTask(run, max_retries=2, backoff=lambda n: 0)])
        assert task.result() == "third"
        with pytest.raises(RetriesExceeded):
            await pool.submit_group([LocalTask(fail, max_retries=1, backoff=lambda n: 0)])


async def test_a_member_that_is_cancelled_by_itself_is_no_error() -> None:
    held = Held()
    lonely = LocalTask(held)
    async with WorkerPool(3) as pool:
        group = asyncio.create_task(pool.submit_group([lonely, LocalTask(succeed, 1)]))
        await held.begun.wait()
        lonely.cancel()
        tasks = await group
        assert [task.state for task in tasks] == [TaskState.CANCELED, TaskState.DONE]


async def test_the_error_of_a_group_is_that_of_the_first_and_those_of_others_are_theirs() -> None:
    async def late() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("second") from None

    tasks: list[LocalTask[Any]] = [LocalTask(late), LocalTask(fail, ValueError("first"))]
    async with WorkerPool(3) as pool:
        with pytest.raises(ValueError, match="first"):
            await pool.submit_group(tasks)
    assert tasks[0].is_cancelled


async def test_a_caller_that_is_cancelled_cancels_its_group_and_waits_for_its_end() -> None:
    held, stubborn, other = Held(), Stubborn(), Held()
    async with WorkerPool(3) as pool:
        await pool.submit(other)
        group = asyncio.create_task(pool.submit_group([held, stubborn, held, held]))
        await stubborn.begun.wait()
        await turn()
        group.cancel()
        await turn()
        assert (held.cancelled, stubborn.cancelled) == (1, 1)
        assert not group.done(), "one of its tasks still runs"
        stubborn.go.set()
        with pytest.raises(asyncio.CancelledError):
            await group
        assert held.calls == 1
        assert (pool.active_workers, other.now) == (1, 1), "what is not of the group goes on"
        other.go.set()


async def test_a_group_in_a_timeout_ends_with_it() -> None:
    held = Held()
    async with WorkerPool(3) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pool.submit_group([held, held])
        assert (held.cancelled, pool.active_workers) == (2, 0)


async def test_a_group_in_a_scope_of_anyio_which_cancels_over_and_over_ends_with_it() -> None:
    cleaned: list[int] = []

    async def clean() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    async with WorkerPool(3) as pool:
        with anyio.move_on_after(0.2):
            await pool.submit_group([clean, clean])
        assert len(cleaned) == 2
        assert pool.active_workers == 0
    with anyio.move_on_after(0.2):
        async with WorkerPool(3) as pool:
            await pool.submit(clean)
    assert len(cleaned) == 3


async def test_a_pool_that_is_stopped_ends_a_group_of_which_some_have_not_begun() -> None:
    held = Held()
    pool = WorkerPool(1)
    group = asyncio.create_task(pool.submit_group([held, held]))
    await held.begun.wait()
    stopping = asyncio.create_task(pool.stop())
    with pytest.raises(PoolStopped, match=r"was stopped while <LocalTask \S+ CREATED> waited for a worker"):
        await group
    await stopping
    assert (held.calls, held.cancelled) == (1, 1)


async def test_a_task_that_runs_elsewhere_is_refused_and_goes_on() -> None:
    held, member = Held(7), Held()
    elsewhere = started(held)
    async with WorkerPool(3) as pool:
        with pytest.raises(TaskInProgress):
            await pool.submit_group([LocalTask(member), elsewhere])
        assert pool.active_workers == 0
    assert member.calls == member.cancelled
    held.go.set()
    assert await elsewhere == 7


async def test_a_thread_of_a_group_that_failed_is_waited_for() -> None:
    async with WorkerPool(2) as pool:
        thread = HeldThread()
        group = asyncio.create_task(pool.submit_group([thread, fail_when(thread.begun)]))
        await thread.begun.wait()
        await turn()
        assert not group.done()
        assert pool.active_workers == 1
        thread.go.set()
        with pytest.raises(ValueError, match="no"):
            await group


def fail_when(event: asyncio.Event) -> Any:
    async def run() -> None:
        await event.wait()
        raise ValueError("no")

    return run


async def test_a_hook_that_starts_a_failed_member_again_does_not_hide_its_error() -> None:
    runs: list[int] = []

    async def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("first run")

    task = LocalTask(run, hooks=StateHooks(when_failed=lambda *told: task.start()))
    async with WorkerPool(1) as pool:
        with pytest.raises(ValueError, match="first run"):
            await pool.submit_group([task])
    await task
    assert len(runs) == 2


async def test_a_group_of_one_task_twice_is_refused_as_long_as_it_runs() -> None:
    held = Held()
    task = LocalTask(held)
    for workers in (1, 2):
        async with WorkerPool(workers) as pool:
            with pytest.raises(TaskInProgress):
                await pool.submit_group([task, task])
    assert held.calls == held.cancelled

"""Submitting to a pool: when it waits, in which order, what it gives back, and what it forgets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrunner import TaskOptionError
from taskrunner.local import LocalTask, PoolStopped, TaskInProgress, WorkerPool
from tests.local.work import Held, HeldThread, fail, started_again, succeed


def submitting(pool: WorkerPool, function: Any, **options: Any) -> asyncio.Task[LocalTask[Any]]:
    return asyncio.create_task(pool.submit(function, **options))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_submitted_task_runs_and_gives_its_result() -> None:
    async with WorkerPool(2) as pool:
        task = await pool.submit(succeed, 7, id="mine")
        assert task.id == "mine"
        assert await task == 7


async def test_a_task_that_was_made_before_is_submitted_and_is_the_one_that_comes_back() -> None:
    async with WorkerPool(2) as pool:
        task = LocalTask(succeed, 7)
        assert await pool.submit(task) is task
        assert await task == 7


async def test_submit_waits_while_all_workers_are_busy() -> None:
    held = Held()
    async with WorkerPool(2) as pool:
        for _ in range(2):
            await pool.submit(held)
        third = submitting(pool, held)
        await turn()
        assert not third.done()
        assert (pool.active_workers, pool.available_workers, held.calls) == (2, 0, 2)
        held.go.set()
        await (await third)
        assert held.calls == 3


async def test_never_more_run_at_once_than_there_are_workers() -> None:
    now = most = 0

    async def work(n: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(3 + n % 4):
            await asyncio.sleep(0)
        now -= 1

    async with WorkerPool(7) as pool:
        for n in range(300):
            await pool.submit(work, n)
    assert (most, now) == (7, 0)


async def test_submits_are_served_in_their_order() -> None:
    order: list[int] = []

    async def work(n: int) -> None:
        order.append(n)

    async with WorkerPool(1) as pool:
        await asyncio.gather(*(pool.submit(work, n) for n in range(50)))
    assert order == list(range(50))


async def test_the_worker_is_taken_during_the_delay_as_well() -> None:
    held = Held()
    async with WorkerPool(1) as pool:
        task = await pool.submit(held, delay=60)
        assert task.is_pending
        assert pool.active_workers == 1
        second = submitting(pool, succeed)
        await turn()
        assert not second.done()
        task.cancel()
        await (await second)
    assert held.calls == 0


async def test_who_is_cancelled_while_it_waits_for_a_worker_takes_none_and_its_function_never_runs() -> None:
    held, never = Held(), Held()
    async with WorkerPool(1) as pool:
        await pool.submit(held)
        waiter = submitting(pool, never)
        await turn()
        assert pool.stats().created == 1
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (pool.stats().created, pool.stats().total, pool.active_workers) == (0, 1, 1)
        held.go.set()
        await pool.wait()
        assert (pool.available_workers, never.calls) == (1, 0)


async def test_who_is_cancelled_in_the_instant_in_which_a_worker_is_free_leaves_it_to_the_next() -> None:
    held, never = Held(), Held()
    async with WorkerPool(1) as pool:
        await pool.submit(held)
        waiter, heir = submitting(pool, never), submitting(pool, succeed)
        await turn()
        held.go.set()
        # Behind the end of the task, by which the worker is the waiter's, and before the waiter learns of that.
        asyncio.get_running_loop().call_soon(waiter.cancel)
        await (await heir)
        assert waiter.cancelled()
    assert never.calls == 0


async def test_a_task_that_fails_is_no_error_of_the_pool() -> None:
    async with WorkerPool(1) as pool:
        task = await pool.submit(fail)
        await pool.wait()
        assert isinstance(task.error, ValueError)
        assert await (await pool.submit(succeed, 7)) == 7


async def test_a_task_in_progress_is_refused_and_the_worker_is_given_back() -> None:
    held = Held()
    async with WorkerPool(2) as pool:
        task = await pool.submit(held)
        with pytest.raises(TaskInProgress):
            await pool.submit(task)
        assert (pool.active_workers, pool.stats().total) == (1, 1)
        last = submitting(pool, held)
        await last
        with pytest.raises(TaskInProgress):
            await pool.submit(task), "at once, though no worker is free"
        held.go.set()
        await task
        assert await pool.submit(task) is task, "it may run again when it has ended"
        await task
        await pool.wait()
        assert (held.calls, pool.stats().done) == (3, 3)


async def test_a_task_that_runs_outside_of_the_pool_is_none_of_its_business() -> None:
    async with WorkerPool(1) as pool:
        task = await pool.submit(succeed)
        await task
        await started_again(task)
        assert (pool.stats().done, pool.active_workers) == (1, 0)


async def test_a_batch_is_submitted_in_its_order() -> None:
    async with WorkerPool(3) as pool:
        tasks = await pool.submit_batch([LocalTask(succeed, n) for n in range(10)])
        assert [await task for task in tasks] == list(range(10))
        values = await pool.submit_batch(lambda n=n: succeed(n) for n in range(3))
        assert [await value for value in values] == [0, 1, 2]
        assert await pool.submit_batch([]) == []


async def test_a_batch_that_is_interrupted_names_what_it_has_submitted() -> None:
    held = Held(7)
    pool = WorkerPool(2)
    tasks = [LocalTask(held) for _ in range(5)]
    batch = asyncio.create_task(pool.submit_batch(tasks))
    await held.begun.wait()
    await turn()
    stopping = asyncio.create_task(pool.stop())
    with pytest.raises(PoolStopped) as caught:
        await batch
    assert caught.value.submitted == tuple(tasks[:2])
    held.go.set()
    await stopping
    assert [task.state.name for task in tasks] == ["DONE"] * 2 + ["CREATED"] * 3


async def test_a_batch_with_a_task_in_progress_names_those_before_it() -> None:
    held = Held()
    async with WorkerPool(3) as pool:
        running = await pool.submit(held)
        first = LocalTask(succeed, 7)
        with pytest.raises(TaskInProgress) as caught:
            await pool.submit_batch([first, running, LocalTask(succeed)])
        assert caught.value.submitted == (first,)
        assert await first == 7
        held.go.set()


async def test_a_batch_of_which_something_is_no_task_is_refused_before_any_begins() -> None:
    held = Held()
    async with WorkerPool(3) as pool:
        batch: list[Any] = [held, held, (held, 5)]
        for submit in (pool.submit_batch, pool.submit_group):
            with pytest.raises(TaskOptionError, match=r"not a function: \(<.*; give the function and its arguments"):
                await submit(batch)
        assert pool.stats().total == 0


async def test_a_task_that_can_not_be_started_costs_no_worker() -> None:
    def broken(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        raise RuntimeError("no more tasks")

    loop = asyncio.get_running_loop()
    async with WorkerPool(1) as pool:
        loop.set_task_factory(broken)
        try:
            with pytest.raises(RuntimeError, match="no more tasks"):
                await pool.submit(succeed)
        finally:
            loop.set_task_factory(None)
        stats = pool.stats()
        assert (stats.total, stats.created, stats.canceled, stats.active_workers) == (1, 0, 1, 0)
        assert await (await pool.submit(succeed, 7)) == 7


async def test_a_pool_keeps_tasks_in_progress_and_no_others() -> None:
    held = Held()
    async with WorkerPool(2) as pool:
        task = await pool.submit(held)
        await (await pool.submit(succeed))
        assert pool.tasks() == [task]
        pool.tasks().clear()
        assert pool.tasks() == [task], "what it gives is a copy"
        held.go.set()
    assert pool.tasks() == []


async def test_a_pool_that_is_to_keep_some_keeps_the_latest_of_those_that_have_ended() -> None:
    held = Held()
    async with WorkerPool(2, keep=2) as pool:
        tasks = [await pool.submit(function) for function in (succeed, fail, succeed)]
        for task in tasks:
            await task.wait()
        running = await pool.submit(held)
        assert pool.tasks() == [*tasks[1:], running]
        held.go.set()
    assert pool.tasks() == [tasks[2], running]
    assert tasks[1].error


async def test_a_pool_that_is_to_keep_all_keeps_all_each_once() -> None:
    async with WorkerPool(2, keep=True) as pool:
        tasks = [await pool.submit(succeed) for _ in range(10)]
        await pool.wait()
        assert pool.tasks() == tasks
        await (await pool.submit(tasks[0]))
        assert pool.tasks() == [*tasks[1:], tasks[0]]


async def test_threads_and_coroutines_share_the_workers() -> None:
    async with WorkerPool(2) as pool:
        thread, held = HeldThread(1), Held(2)
        tasks = [await pool.submit(thread), await pool.submit(held)]
        third = submitting(pool, succeed)
        await thread.begun.wait()
        await turn()
        assert not third.done()
        thread.go.set()
        await (await third)
        held.go.set()
        assert [await task for task in tasks] == [1, 2]


async def test_a_pool_of_another_event_loop_serves_this_one_when_nothing_is_left_of_that() -> None:
    pool = WorkerPool(1)

    def other_loop() -> int:
        async def main() -> int:
            return await (await pool.submit(succeed, 1))

        return asyncio.run(main())

    assert await asyncio.to_thread(other_loop) == 1
    assert await (await pool.submit(succeed, 2)) == 2
    await pool.stop()


async def test_its_representation_tells_how_it_stands() -> None:
    pool = WorkerPool(3)
    held = Held()
    await pool.submit(held)
    assert repr(pool) == "<WorkerPool 1 of 3 workers active>"
    held.go.set()
    await pool.stop()
    assert repr(pool) == "<WorkerPool 0 of 3 workers active, stopped>"

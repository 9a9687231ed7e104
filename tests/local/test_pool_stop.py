"""Waiting for a pool, stopping it once and more often, and the block that does both."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner import UsageError
from taskrunner.local import LocalTask, PoolStopped, TaskCancelled, TaskTimeout, WorkerPool
from tests.local.test_pool import submitting, turn
from tests.local.work import Held, HeldThread, Stubborn, fail, started_again, succeed


async def test_wait_returns_when_everything_submitted_has_ended_and_the_pool_goes_on() -> None:
    held, last = Held(), Held()
    pool = WorkerPool(2)
    await pool.wait()
    tasks = [await pool.submit(held) for _ in range(2)]
    third = submitting(pool, last)
    waiter = asyncio.create_task(pool.wait())
    await turn()
    held.go.set()
    await last.begun.wait()
    await turn()
    assert not waiter.done(), "who waits for a worker counts too"
    last.go.set()
    await waiter
    assert all(task.is_done for task in [*tasks, await third])
    assert await (await pool.submit(succeed, 7)) == 7
    await pool.stop()


async def test_a_wait_that_is_over_says_how_many_are_left_and_they_go_on() -> None:
    held = Held(7)
    async with WorkerPool(2) as pool:
        task = await pool.submit(held)
        with pytest.raises(TaskTimeout, match=r"after 0.01 s the pool has tasks that go on: 1"):
            await pool.wait(timeout=0.01)
        assert task.is_started
        held.go.set()
        assert await task == 7


async def test_any_number_may_wait_and_who_is_cancelled_only_stops_waiting() -> None:
    held = Held()
    async with WorkerPool(2) as pool:
        await pool.submit(held)
        first, second = asyncio.create_task(pool.wait()), asyncio.create_task(pool.wait())
        await turn()
        first.cancel()
        await asyncio.wait([first])
        assert held.now == 1
        held.go.set()
        await second


async def test_stop_takes_no_more_tasks_and_waits_for_those_in_progress() -> None:
    held = Held(7)
    pool = WorkerPool(2)
    task = await pool.submit(held)
    stopping = asyncio.create_task(pool.stop())
    await turn()
    assert pool.is_stopped
    assert pool.stats().stopped
    assert not stopping.done()
    with pytest.raises(PoolStopped, match=r"the pool is stopped and has not taken <LocalTask late CREATED>"):
        await pool.submit(succeed, id="late")
    held.go.set()
    await stopping
    assert await task == 7
    assert pool.stats().total == 1


async def test_every_way_to_submit_is_closed_after_a_stop() -> None:
    pool = WorkerPool(2)
    await pool.stop()
    task = LocalTask(succeed)
    with pytest.raises(PoolStopped):
        await pool.submit(task)
    with pytest.raises(PoolStopped) as caught:
        await pool.submit_batch([task])
    assert caught.value.submitted == ()
    with pytest.raises(PoolStopped):
        await pool.submit_group([task])
    assert task.is_created
    assert await started_again(task) is None


async def test_stop_with_cancel_cancels_what_is_in_progress_and_waits_for_it() -> None:
    held, stubborn = Held(), Stubborn()
    pool = WorkerPool(3)
    tasks = [await pool.submit(held), await pool.submit(stubborn), await pool.submit(held, delay=60)]
    await stubborn.begun.wait()
    stopping = asyncio.create_task(pool.stop(cancel=True))
    await turn()
    assert (held.cancelled, stubborn.cancelled) == (1, 1)
    assert not stopping.done()
    stubborn.go.set()
    await stopping
    assert all(task.is_cancelled for task in tasks)
    with pytest.raises(TaskCancelled):
        await tasks[0]
    assert pool.stats().canceled == 3


async def test_a_stop_that_takes_too_long_says_so_and_the_pool_is_stopped() -> None:
    stubborn = Stubborn()
    pool = WorkerPool(1)
    await pool.submit(stubborn)
    await stubborn.begun.wait()
    with pytest.raises(TaskTimeout, match=r"after 0.01 s the pool has tasks that go on: 1"):
        await pool.stop(timeout=0.01, cancel=True)
    assert pool.is_stopped
    stubborn.go.set()
    await pool.stop()


async def test_a_pool_may_be_stopped_twice_and_with_cancel_after_all() -> None:
    held = Held()
    pool = WorkerPool(1)
    task = await pool.submit(held)
    await held.begun.wait()
    gently = asyncio.create_task(pool.stop())
    await turn()
    await pool.stop(cancel=True)
    await gently
    assert task.is_cancelled
    await pool.stop()
    await pool.stop(timeout=0)


async def test_who_waits_for_a_worker_is_refused_as_soon_as_the_pool_is_stopped_and_never_begins() -> None:
    held, never = Held(), Held()
    pool = WorkerPool(1)
    task = await pool.submit(held)
    waiting = [submitting(pool, never) for _ in range(3)]
    await turn()
    stopping = asyncio.create_task(pool.stop())
    for one in waiting:
        with pytest.raises(PoolStopped, match="was stopped while"):
            await one
    assert task.is_started
    assert pool.stats().created == 0
    held.go.set()
    await stopping
    assert never.calls == 0


async def test_a_worker_that_is_given_in_the_instant_of_the_stop_is_given_back() -> None:
    held, never = Held(), Held()
    pool = WorkerPool(1)
    task = await pool.submit(held)
    waiter = submitting(pool, never)
    await turn()
    held.go.set()  # the task ends in the next step of the loop, and its worker is the waiter's; then comes the stop
    stopping = asyncio.create_task(pool.stop())
    with pytest.raises(PoolStopped, match="was stopped while"):
        await waiter
    await stopping
    assert (task.is_done, never.calls, pool.available_workers) == (True, 0, 1)


async def test_a_stop_whose_caller_is_cancelled_leaves_the_pool_stopped_and_its_tasks_running() -> None:
    held = Held(7)
    pool = WorkerPool(1)
    task = await pool.submit(held)
    stopping = asyncio.create_task(pool.stop())
    await turn()
    stopping.cancel()
    await asyncio.wait([stopping])
    assert pool.is_stopped
    held.go.set()
    assert await task == 7


async def test_a_task_that_waits_for_its_own_pool_is_told_that_it_would_wait_for_itself() -> None:
    async with WorkerPool(2) as pool:
        task = await pool.submit(pool.wait, id="me")
        with pytest.raises(UsageError, match="'me' would wait for itself"):
            await task
        assert not pool.is_stopped


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_task_may_stop_its_own_pool_and_does_not_wait_then(cancel: bool) -> None:
    held = Held()
    pool = WorkerPool(2)

    async def stop() -> str:
        await held.begun.wait()
        await pool.stop(cancel=cancel)
        return "stopped"

    task, other = await pool.submit(stop), await pool.submit(held)
    await task.wait()
    assert pool.is_stopped
    assert (task.is_cancelled, other.cancelling) == (cancel, cancel)
    held.go.set()
    await pool.stop()
    assert other.is_cancelled is cancel


async def test_a_task_may_stop_the_pool_of_others() -> None:
    other = WorkerPool(1)
    async with WorkerPool(1) as pool:
        await (await pool.submit(other.stop))
    assert other.is_stopped


# -- the block -----------------------------------------------------------------------------------------------


async def test_a_block_ends_when_all_tasks_have_and_leaves_the_pool_stopped() -> None:
    held = Held(7)

    async def let_go() -> None:
        await held.begun.wait()
        held.go.set()

    async with WorkerPool(2) as pool:
        tasks = [await pool.submit(held), await pool.submit(let_go), await pool.submit(fail)]
    assert [task.state.name for task in tasks] == ["DONE", "DONE", "FAILED"]
    assert pool.is_stopped
    assert tasks[2].error is not None


async def test_tasks_may_submit_others_while_their_block_waits_for_its_end() -> None:
    seen: list[int] = []

    async def crawl(page: int) -> None:
        await asyncio.sleep(0)
        seen.append(page)
        for link in (2 * page, 2 * page + 1):
            if link < 64:
                await pool.submit(crawl, link)

    async with WorkerPool(64) as pool:  # one for each, as those who submit keep theirs
        await pool.submit(crawl, 1)
    assert sorted(seen) == list(range(1, 64))
    assert pool.is_stopped


async def test_who_waits_for_a_worker_when_a_block_is_cancelled_is_refused() -> None:
    held, never = Held(), Held()
    waiting: list[asyncio.Task[LocalTask[None]]] = []

    async def block() -> None:
        async with WorkerPool(1) as pool:
            await pool.submit(held)
            waiting.append(submitting(pool, never))

    work = asyncio.create_task(block())
    await held.begun.wait()
    await turn()
    work.cancel()
    with pytest.raises(PoolStopped):
        await waiting[0]
    await asyncio.wait([work])
    assert (held.cancelled, never.calls) == (1, 0)


async def test_an_error_in_the_block_cancels_what_runs_and_goes_on_when_it_has_ended() -> None:
    held, tasks = Held(), list[LocalTask[None]]()

    async def block() -> None:
        async with WorkerPool(2) as pool:
            tasks.append(await pool.submit(held))
            await held.begun.wait()
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        await block()
    assert tasks[0].is_cancelled
    assert held.cancelled == 1


async def test_who_is_cancelled_while_its_block_waits_cancels_the_tasks_and_waits_for_their_end() -> None:
    stubborn = Stubborn()

    async def block() -> None:
        async with WorkerPool(1) as pool:
            await pool.submit(stubborn)

    work = asyncio.create_task(block())
    await stubborn.begun.wait()
    await turn()
    work.cancel()
    await turn()
    assert stubborn.cancelled == 1
    assert not work.done()
    stubborn.go.set()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_block_in_a_timeout_ends_with_it() -> None:
    held = Held()

    async def block() -> None:
        async with asyncio.timeout(0.2), WorkerPool(1) as pool:
            await pool.submit(held)

    with pytest.raises(TimeoutError):
        await block()
    assert held.cancelled == 1


async def test_a_block_waits_for_its_threads() -> None:
    async with WorkerPool(1) as pool:
        thread = HeldThread()
        task = await pool.submit(thread)
        await thread.begun.wait()
        asyncio.get_running_loop().call_later(0.01, thread.go.set)
    assert task.is_done


async def test_a_pool_may_be_stopped_within_its_block() -> None:
    async with WorkerPool(1) as pool:
        task = await pool.submit(succeed, 7)
        await pool.stop()
    assert await task == 7

"""When the event loop ends, or the program is interrupted, while local tasks are in progress."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import pytest

from taskrunner import UsageError
from taskrunner.local import LocalTask, StateHooks, WorkerPool, current_task
from tests.local.work import Held, Stubborn, started, succeed
from tests.programs import Program


def test_tasks_that_an_event_loop_leaves_behind_are_cancelled_with_it_in_whatever_state_they_are() -> None:
    tasks: list[LocalTask[None]] = []
    held = Held()

    async def main() -> None:
        tasks.extend(started(held, delay=delay, max_retries=5) for delay in (60, 0))
        await held.begun.wait()
        main = asyncio.current_task()
        assert main is not None
        # When the loop has been told to stop: the first step of this one never comes.
        main.add_done_callback(lambda main: tasks.append(started(held)))

    asyncio.run(main())
    assert [task.state.name for task in tasks] == ["CANCELED"] * 3
    assert held.calls == 1


def test_a_function_that_fails_when_the_loop_ends_is_not_tried_again() -> None:
    begun: list[int] = []
    tasks: list[LocalTask[None]] = []

    async def run() -> None:
        begun.append(1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError("closed") from None

    async def main() -> None:
        tasks.append(started(run, max_retries=5, backoff=lambda n: 0))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert tasks[0].is_cancelled
    assert len(begun) == 1


def test_a_pool_has_its_workers_back_when_its_loop_has_ended() -> None:
    pool = WorkerPool(2)
    held = Held()

    async def first() -> None:
        await pool.submit(held)
        await held.begun.wait()
        await pool.submit(held)
        waiting = asyncio.create_task(pool.submit(held))
        await asyncio.sleep(0)
        assert not waiting.done()

    async def second() -> int:
        return await (await pool.submit(succeed, 7))

    asyncio.run(first())
    stats = pool.stats()
    assert (stats.created, stats.pending, stats.started, stats.canceled, stats.active_workers) == (0, 0, 0, 2, 0)
    assert asyncio.run(second()) == 7


def test_a_loop_that_is_closed_without_a_word_ends_its_tasks_too() -> None:
    loop = asyncio.new_event_loop()
    held = Stubborn()
    pool = WorkerPool(1)

    async def main() -> LocalTask[None]:
        task = await pool.submit(held)
        await held.begun.wait()
        return task

    task = loop.run_until_complete(main())
    work = asyncio.all_tasks(loop)
    for one in work:
        one.get_coro().close()  # type: ignore[union-attr]
        one._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert task.is_cancelled
    assert pool.available_workers == 1


PROGRAM = """
    import asyncio
    from taskrunner.local import WorkerPool

    async def clean():
        try:
            print("ready", flush=True)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("cleaned up", flush=True)

    async def main():
        async with WorkerPool(2) as pool:
            await pool.submit(clean)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


async def test_an_interrupted_program_cleans_up_its_tasks_and_ends(program: Callable[..., Program]) -> None:
    running = program(PROGRAM)
    assert await running.line() == "ready"
    running.signal(signal.SIGINT)
    assert await running.line() == "cleaned up"
    assert await running.line() == "interrupted"
    assert await running.ended() == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loops can begin tasks at once since Python 3.12")
def test_a_loop_that_begins_tasks_at_once_is_served_too() -> None:
    async def wait() -> str:
        await asyncio.sleep(0)
        return "waited"

    async def cancels_itself() -> None:
        current_task().cancel()
        await asyncio.sleep(60)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        task = started(succeed, 7)
        assert task.is_done, "before start has returned"
        assert await task == 7
        cancelled = started(cancels_itself)
        await cancelled.wait()
        assert cancelled.is_cancelled
        async with WorkerPool(2) as pool:
            tasks = [await pool.submit(wait) for _ in range(10)]
            tasks += [await pool.submit(succeed, "at once") for _ in range(10)]
        assert [await task for task in tasks] == ["waited"] * 10 + ["at once"] * 10
        assert (pool.stats().done, pool.active_workers) == (20, 0)
        async with WorkerPool(2) as pool:
            with pytest.raises(UsageError, match="would wait for itself"):
                await (await pool.submit(pool.wait))
        held, runs = Held(), list[int]()

        async def run() -> None:
            runs.append(1)
            if len(runs) == 2:
                await held()

        def restart() -> None:
            if len(runs) == 1:
                again.start()

        again = LocalTask(run, hooks=StateHooks(when_done=lambda *told: restart()), max_duration=60)
        again.start()
        assert again.is_started, "the second run, which was begun in the first step of the first"
        assert again.cancel()
        await again.wait()
        assert (again.is_cancelled, held.cancelled) == (True, 1)

    asyncio.run(main())

"""What can be run, where it runs, and what it finds there."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from taskrunner import UsageError
from taskrunner.local import LocalTask, WorkerPool, current_task
from tests.local.work import started, started_again

number: ContextVar[int] = ContextVar("number", default=0)


async def here(n: int = 1, *, times: int = 1) -> tuple[int, str]:
    await asyncio.sleep(0)
    return n * times, threading.current_thread().name


def there(n: int = 1, *, times: int = 1) -> tuple[int, str]:
    return n * times, threading.current_thread().name


class Callable:
    async def __call__(self, n: int) -> tuple[int, str]:
        return await here(n)

    async def method(self, n: int) -> tuple[int, str]:
        return await here(n)

    def plain(self, n: int) -> tuple[int, str]:
        return there(n)


@pytest.mark.parametrize(
    ("function", "arguments", "in_loop"),
    [
        pytest.param(here, (3,), True, id="a coroutine function"),
        pytest.param(functools.partial(here, 3), (), True, id="a partial of one"),
        pytest.param(functools.partial(here, times=3), (1,), True, id="a partial with keywords"),
        pytest.param(Callable(), (3,), True, id="an object with an async call"),
        pytest.param(Callable().method, (3,), True, id="an async method"),
        pytest.param(lambda: here(3), (), True, id="a lambda that makes a coroutine"),
        pytest.param(there, (3,), False, id="a plain function"),
        pytest.param(functools.partial(there, times=3), (1,), False, id="a partial of one, with keywords"),
        pytest.param(Callable().plain, (3,), False, id="a method"),
        pytest.param(lambda n: there(n), (3,), False, id="a lambda"),
    ],
)
async def test_coroutines_run_in_the_event_loop_and_everything_else_in_threads(
    function: Any, arguments: tuple[int, ...], in_loop: bool
) -> None:
    value, thread = await started(function, *arguments)
    assert value == 3
    assert (thread == threading.current_thread().name) is in_loop


async def test_builtin_functions_and_classes_are_functions_too() -> None:
    assert await started(sorted, [3, 1, 2]) == [1, 2, 3]
    assert await started(dict, [(1, 2)]) == {1: 2}


async def test_more_threads_run_at_once_than_anyio_gives_to_everybody() -> None:
    barrier = threading.Barrier(60)
    async with WorkerPool(60) as pool:
        tasks = [await pool.submit(barrier.wait, 20) for _ in range(60)]
    assert sorted([await task for task in tasks]) == list(range(60))


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_function_sees_the_context_of_whoever_started_it_and_changes_only_its_own(kind: str) -> None:
    async def change() -> int:
        number.set(number.get() + 1)
        return number.get()

    def change_in_thread() -> int:
        number.set(number.get() + 1)
        return number.get()

    number.set(5)
    function: Any = change if kind == "coroutine" else change_in_thread
    async with WorkerPool(2) as pool:
        tasks = [await pool.submit(function) for _ in range(5)]
    assert [await task for task in tasks] == [6] * 5
    assert number.get() == 5


async def test_a_function_finds_its_task_in_coroutines_threads_and_what_they_begin() -> None:
    async def mine() -> str:
        return current_task().id

    async def begun() -> str:
        return await asyncio.create_task(mine())

    for function in (mine, begun, lambda: current_task().id, lambda: mine()):
        assert await started(function, id="mine") == "mine"


async def test_outside_of_a_local_task_there_is_none() -> None:
    with pytest.raises(UsageError, match=r"current_task\(\) was called outside a local task"):
        current_task()


async def test_a_task_begun_in_another_is_the_current_one_in_there() -> None:
    async def inner() -> str:
        return current_task().id

    async def outer() -> tuple[str, str]:
        return await started(inner, id="inner"), current_task().id

    assert await started(outer, id="outer") == ("inner", "outer")


async def test_a_function_may_use_scopes_of_anyio_and_timeouts_of_asyncio() -> None:
    async def run() -> list[str]:
        ways = []
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        ways.append("anyio")
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            ways.append("asyncio")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            tasks.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return [*ways, "group"]

    assert await started(run) == ["anyio", "asyncio", "group"]


async def test_a_scope_inside_does_not_swallow_the_cancellation_of_the_task() -> None:
    begun = asyncio.Event()

    async def run() -> None:
        with anyio.move_on_after(60):
            async with asyncio.timeout(60):
                begun.set()
                await anyio.sleep_forever()

    task = started(run)
    await begun.wait()
    task.cancel()
    await task.wait()
    assert task.is_cancelled


async def test_only_a_task_in_progress_can_report() -> None:
    task = LocalTask(here, id="mine")
    with pytest.raises(UsageError, match="'mine' is created: only its function can report"):
        task.report("early")
    await started_again(task)
    with pytest.raises(UsageError, match="'mine' is done"):
        task.report("late")


def test_a_task_can_be_made_anywhere_and_started_only_where_an_event_loop_runs() -> None:
    task = LocalTask(here, id="mine")
    with pytest.raises(UsageError, match="'mine' can be started only where an event loop runs"):
        task.start()
    assert task.is_created

    async def main() -> tuple[int, str]:
        return await started_again(task)

    assert asyncio.run(main())[0] == 1

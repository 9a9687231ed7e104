"""Options of tasks, pools and semaphores: their defaults, and what is refused before anything is done."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import TaskOptionError
from taskrunner.local import LocalTask, Semaphore, WorkerPool
from tests.local.work import VirtualLoop, fail, started, succeed


def test_the_defaults_are_those_of_the_contract() -> None:
    parameters = inspect.signature(LocalTask.__init__).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    del defaults["backoff"]
    assert defaults == {"id": None, "hooks": None, "delay": 0, "max_duration": 30, "max_retries": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": 5}, "id must be a string, not 5"),
        ({"hooks": print}, "hooks must be StateHooks"),
        ({"delay": -1}, "delay must be zero or more seconds"),
        ({"delay": None}, "delay must be seconds"),
        ({"delay": float("nan")}, "delay must be zero or more seconds"),
        ({"max_duration": -1}, "max_duration must be zero or more seconds"),
        ({"max_duration": "long"}, "max_duration must be seconds"),
        ({"max_duration": float("inf")}, "max_duration must be zero or more seconds"),
        ({"max_retries": -1}, "max_retries must be a whole number of at least 0, not -1"),
        ({"max_retries": None}, "max_retries must be a whole number"),
        ({"max_retries": 1.5}, "max_retries must be a whole number"),
        ({"delay": 10**400}, "delay must be zero or more seconds"),
        ({"backoff": 3}, "backoff must be a Backoff or a function of the attempt, not 3"),
    ],
)
async def test_an_option_of_a_task_that_can_not_be_is_refused_by_tasks_and_pools(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskOptionError, match=message):
        LocalTask(succeed, **options)
    async with WorkerPool(1) as pool:
        with pytest.raises(TaskOptionError, match=message):
            await pool.submit(succeed, **options)
        assert pool.stats().total == 0


@pytest.mark.parametrize("function", [None, 5, "print"])
def test_a_task_without_a_function_is_refused_when_it_is_made(function: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"not a function: .*; give the function and its arguments"):
        LocalTask(function)


async def test_a_coroutine_is_no_function() -> None:
    coroutine: Any = succeed()
    try:
        with pytest.raises(TaskOptionError, match=r"not a function: <coroutine .*: LocalTask\(fetch, url\)"):
            LocalTask(coroutine)
    finally:
        coroutine.close()


async def test_an_option_that_does_not_exist_is_refused_with_what_to_do() -> None:
    function: Any = succeed
    pool = WorkerPool(1)
    for make in (LocalTask, pool.submit):
        with pytest.raises(TaskOptionError, match=r"no option of local tasks: value, b; keywords .* functools.partial"):
            await make(function, value=5, b=3)


async def test_durations_may_be_timedeltas() -> None:
    second = timedelta(milliseconds=1)
    assert await started(succeed, 7, delay=second, max_duration=timedelta(seconds=5)) == 7


@pytest.mark.parametrize(("given", "held_after"), [({}, 30), ({"max_duration": 0}, 30), ({"max_duration": 5}, 5)])
def test_a_run_may_take_thirty_seconds_unless_it_is_told_otherwise(given: dict[str, Any], held_after: float) -> None:
    loop = VirtualLoop()

    async def forever() -> None:
        await loop.create_future()

    async def start() -> LocalTask[None]:
        return started(forever, **given)

    task = loop.do(start())
    loop.settle()
    loop.advance(held_after - 0.001)
    assert task.is_started
    loop.advance(0.001)
    assert task.is_failed
    loop.close()


@pytest.mark.parametrize("size", [0, -1, -100])
async def test_a_pool_of_no_or_less_workers_has_one(size: int) -> None:
    pool = WorkerPool(size)
    assert (pool.max_workers, pool.available_workers) == (1, 1)


@pytest.mark.parametrize("size", [None, 1.5, "3", True, 2**60])
def test_a_pool_of_no_whole_number_of_workers_is_refused(size: Any) -> None:
    with pytest.raises(TaskOptionError, match="max_workers must be a whole number"):
        WorkerPool(size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": -1}, "keep must be True, False or a whole number of at least 0, not -1"),
        ({"keep": "all"}, "keep must be"),
        ({"keep": None}, "keep must be"),
        ({"hooks": fail}, "hooks must be StateHooks"),
    ],
)
def test_an_option_of_a_pool_that_can_not_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskOptionError, match=message):
        WorkerPool(1, **options)


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, True])
def test_a_semaphore_of_no_slots_or_less_is_refused(limit: Any) -> None:
    with pytest.raises(TaskOptionError, match="Semaphore: limit must be a whole number of at least 1"):
        Semaphore(limit)


@pytest.mark.parametrize("timeout", [-1, "soon", float("inf")])
async def test_a_timeout_that_can_not_be_is_refused_by_everything_that_takes_one(timeout: Any) -> None:
    semaphore, pool = Semaphore(1), WorkerPool(1)
    for call in (semaphore.acquire, pool.wait, pool.stop, LocalTask(succeed).wait):
        with pytest.raises(TaskOptionError, match="timeout must be"):
            await call(timeout)
    assert (semaphore.acquired, pool.is_stopped) == (0, False)


async def test_a_task_that_is_submitted_takes_no_further_arguments() -> None:
    pool: Any = WorkerPool(1)
    with pytest.raises(TaskOptionError, match="a LocalTask has its arguments and options already; submit it alone"):
        await pool.submit(LocalTask(succeed), 5)
    with pytest.raises(TaskOptionError, match="submit it alone"):
        await pool.submit(LocalTask(succeed), delay=5)
    assert pool.stats().total == 0

"""Any number of tasks through a pool: nothing is kept of those that have ended."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from taskrunner.local import StateHooks, WorkerPool
from taskrunner.local.deadlines import MANY, deadlines_of
from tests.local.work import fail, started, succeed

TASKS = 20_000


async def grown(function: Any, **options: Any) -> int:
    """By how many blocks of memory the process has grown by the second half of the tasks."""
    hooks = StateHooks(when_failed=lambda *told: None)  # so that no error goes unseen
    async with WorkerPool(100, hooks=hooks) as pool:
        blocks = list[int]()
        for _ in range(2):
            for _ in range(TASKS):
                await pool.submit(function, **options)
            await pool.wait()
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert pool.stats().total == 2 * TASKS
        assert pool.tasks() == []
    return blocks[1] - blocks[0]


@pytest.mark.parametrize("function", [succeed, fail])
async def test_a_pool_does_not_grow_with_the_tasks_that_went_through_it(function: Any) -> None:
    assert await grown(function) < TASKS / 20


async def test_nor_with_tasks_that_have_names_limits_and_retries() -> None:
    names = iter(range(10**9))

    async def once() -> None:
        assert next(names) >= 0

    assert await grown(once, id="mine", max_duration=5, max_retries=2) < TASKS / 20


async def test_many_lengths_of_time_limits_leave_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    for n in range(2000):
        await started(succeed, max_duration=600 + n / 1000)
    assert len(deadlines_of(loop)) <= MANY
    assert sum(not timer.cancelled() for timer in loop._scheduled) <= MANY + 2  # type: ignore[attr-defined]


async def test_event_loops_in_other_threads_have_limits_of_their_own() -> None:
    async def timers() -> int:
        for _ in range(200):
            await started(succeed)
            await asyncio.sleep(0)
        return len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]

    found = await asyncio.gather(*(asyncio.to_thread(asyncio.run, timers()) for _ in range(4)))
    assert max(found) <= 2


async def test_what_has_ended_well_needs_no_collector_of_garbage() -> None:
    async with WorkerPool(10) as pool:
        await (await pool.submit(succeed))
        gc.collect()
        gc.disable()
        try:
            for _ in range(200):
                await pool.submit(succeed)
            await pool.wait()
            assert gc.collect() < 20
        finally:
            gc.enable()

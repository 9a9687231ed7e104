"""The figures of a pool: exact at every instant, whoever looks and from where."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from taskrunner.local import LocalTask, PoolStats, StateHooks, WorkerPool, current_task
from tests.local.test_pool import submitting, turn
from tests.local.work import Held, Written, fail, started_again, succeed


def agree(pool: WorkerPool) -> PoolStats:
    stats = pool.stats()
    states = (stats.created, stats.pending, stats.started, stats.done, stats.failed, stats.canceled)
    assert stats.total == sum(states)
    assert min(states) >= 0
    assert stats.pending + stats.started == stats.active_workers <= stats.max_workers
    assert stats.active_workers == pool.active_workers
    assert pool.active_workers + pool.available_workers == pool.max_workers == stats.max_workers
    return stats


async def test_the_figures_of_a_new_pool() -> None:
    assert agree(WorkerPool(3)) == PoolStats(0, 0, 0, 0, 0, 0, 0, max_workers=3, active_workers=0, stopped=False)
    assert [field.name for field in dataclasses.fields(PoolStats)] == [
        *("total", "created", "pending", "started", "done", "failed", "canceled"),
        *("max_workers", "active_workers", "stopped"),
    ]


async def test_each_state_is_counted_while_it_lasts_and_the_ends_for_good() -> None:
    held = Held()
    pool = WorkerPool(2)
    await pool.submit(held, delay=60)
    assert agree(pool).pending == 1
    started = await pool.submit(held)
    assert (agree(pool).pending, agree(pool).started) == (2, 0)
    await held.begun.wait()
    assert (agree(pool).pending, agree(pool).started) == (1, 1)
    waiting = submitting(pool, fail)
    await turn()
    assert (agree(pool).created, agree(pool).total) == (1, 3)
    held.go.set()
    await started
    failed = await waiting
    await failed.wait()
    assert failed.error is not None
    await pool.stop(cancel=True)
    assert agree(pool) == PoolStats(3, 0, 0, 0, 1, 1, 1, max_workers=2, active_workers=0, stopped=True)


async def test_who_is_told_by_a_hook_sees_figures_that_agree_with_what_it_is_told() -> None:
    seen: list[tuple[str, PoolStats]] = []

    def look(name: str) -> Any:
        return lambda *told: seen.append((name, agree(pool)))

    names = ("pending", "started", "done", "failed", "canceled")
    hooks = StateHooks(**{f"when_{name}": look(name) for name in names})
    held = Held()
    pool = WorkerPool(1, hooks=hooks)
    for function in (succeed, fail, held):
        task = await pool.submit(LocalTask[Any](function, hooks=hooks))
        if function is held:
            await held.begun.wait()
            task.cancel()
        await task.wait()
    for name, stats in seen:
        assert getattr(stats, name) == 1, f"told of {name}: {stats}"
        assert stats.active_workers == (1 if name in ("pending", "started") else 0)
    assert len(seen) == 2 * 3 * 3
    await pool.stop()


async def test_figures_agree_in_every_step_of_the_event_loop() -> None:
    pool = WorkerPool(3, keep=5)
    looked = 0

    async def look() -> None:
        nonlocal looked
        while not pool.is_stopped:
            agree(pool)
            looked += 1
            await asyncio.sleep(0)

    async def work(n: int) -> None:
        for _ in range(n % 3):
            await asyncio.sleep(0)
        if n % 5 == 0:
            raise ValueError(str(n))

    looking = asyncio.create_task(look())
    submits = [submitting(pool, LocalTask(work, n, max_retries=n % 2, backoff=lambda n: 0)) for n in range(60)]
    await turn()
    for one in submits[10::7]:
        one.cancel()
    tasks = [one for one in await asyncio.gather(*submits, return_exceptions=True) if isinstance(one, LocalTask)]
    tasks[-1].cancel()
    await pool.wait()
    await pool.stop()
    await looking
    assert looked > 20
    stats = agree(pool)
    assert (stats.total, stats.created, stats.active_workers) == (len(tasks), 0, 0)
    assert stats.failed == sum(task.error is not None and task.is_failed for task in tasks)


async def test_the_hooks_of_a_pool_are_told_of_each_task_before_its_own() -> None:
    pools, own = Written(), Written()
    lines: list[str] = []
    pools.lines, own.lines = Sided("pool", lines), Sided("own", lines)  # type: ignore[assignment]
    async with WorkerPool(1, hooks=pools.hooks) as pool:
        await (await pool.submit(succeed, id="a", hooks=own.hooks))
    both = [f"{side} {name}" for name in ("pending", "started", "done") for side in ("pool", "own")]
    assert lines == ["own created", "pool created", *both]


class Sided(list[Any]):
    def __init__(self, side: str, lines: list[str]) -> None:
        self._side, self._lines = side, lines

    def append(self, line: Any) -> None:
        self._lines.append(f"{self._side} {line[0]}")


async def test_the_hooks_of_a_pool_hear_reports_and_of_tasks_that_were_made_elsewhere() -> None:
    written = Written()

    async def work() -> None:
        current_task().report(7)

    task = LocalTask(work, id="a")
    async with WorkerPool(1, hooks=written.hooks) as pool:
        await (await pool.submit(task))
    assert written.lines == [
        ("created", "a"),
        ("pending", "a", 0),
        ("started", "a"),
        ("reported", "a", 7),
        ("done", "a"),
    ]
    written.lines.clear()
    await started_again(task)
    assert written.lines == [], "it runs for itself now"

"""What does a local task cost, beside a bare task of asyncio's?

The same functions through ``WorkerPool(100)``, and through an ``asyncio.TaskGroup`` with an ``asyncio.Semaphore(100)``
that is taken before each task is made and given back when it has ended. And a million tasks through a pool of 100: how
far does the process grow?
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from taskrunner.local import WorkerPool

from . import machine, report
from .report import Comparison
from .workload import resident

WIDTH = 100
ABOVE = 12.0
"""Target: microseconds that a submit of nothing may take longer than the bare one."""
GROWTH = 1.0
"""Target: megabytes that the process may grow by while the last nine tenths of the million go through."""


async def nothing() -> None:
    pass


async def short_wait() -> None:
    await asyncio.sleep(0.001)


def nothing_in_a_thread() -> None:
    pass


async def bare(function: Callable[[], Awaitable[Any]], count: int) -> float:
    """Seconds for so many calls."""
    semaphore = asyncio.Semaphore(WIDTH)

    async def one() -> None:
        try:
            await function()
        finally:
            semaphore.release()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            await semaphore.acquire()
            tasks.create_task(one())
    return time.perf_counter() - began


async def ours(function: Callable[[], Any], count: int) -> float:
    """Seconds for so many calls."""
    began = time.perf_counter()
    async with WorkerPool(WIDTH) as pool:
        for _ in range(count):
            await pool.submit(function)
    return time.perf_counter() - began


KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Awaitable[Any]], int]] = {
    "nothing": (nothing, nothing, 1),
    "a sleep of 1 ms": (short_wait, short_wait, 4),
    "nothing, in a thread": (nothing_in_a_thread, lambda: asyncio.to_thread(nothing_in_a_thread), 10),
}
"""What is called: by ours, by the bare loop, and by how much fewer of them do."""


def compare(count: int, rounds: int) -> dict[str, Comparison]:
    """Microseconds per call, round by round, the two in turn."""
    found = {name: Comparison([], []) for name in KINDS}
    for _ in range(rounds):
        for name, (our_function, bare_function, fewer) in KINDS.items():
            calls = count // fewer
            found[name].bare.append(asyncio.run(bare(bare_function, calls)) / calls * 1e6)
            found[name].ours.append(asyncio.run(ours(our_function, calls)) / calls * 1e6)
    return found


async def grown(count: int) -> tuple[float, float]:
    """Megabytes of resident memory from the first tenth of the tasks to the most ever seen, and tasks per second."""
    began = time.perf_counter()
    async with WorkerPool(WIDTH) as pool:
        held = peak = 0
        for number in range(count):
            await pool.submit(nothing)
            if number % (count // 100) == 0 and number >= count // 10:
                held = held or resident()
                peak = max(peak, resident())
        await pool.wait()
        peak = max(peak, resident())
        assert pool.stats().done == count
    return (peak - held) / 1e6, count / (time.perf_counter() - began)


def show(costs: dict[str, Comparison], growth: float, rate: float, tasks: int) -> None:
    rows = []
    for name, one in costs.items():
        above = one.differences
        verdict = report.verdict(statistics.median(above), below=ABOVE) if name == "nothing" else ""
        cells = [report.spread(values, ".1f") for values in (one.ours, one.bare, above)]
        rows.append([name, *cells, f"{one.ratio:.2f}", verdict])
    columns = ["µs per call of", f"WorkerPool({WIDTH})", f"TaskGroup, Semaphore({WIDTH})", "above", "ratio", "target"]
    report.show("What a local task costs", columns, rows)
    verdict = report.verdict(growth, below=GROWTH)
    print(f"\n{tasks:,} tasks through a pool of {WIDTH}, {rate:,.0f}/s: the process grew by {growth:.2f} MB, {verdict}")


def main(arguments: list[str]) -> int:
    parser = report.arguments("local", __doc__)
    parser.add_argument("--calls", type=int, help="per measurement; default 100,000, with --quick 5,000")
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 3")
    parser.add_argument("--tasks", type=int, help="for the growth; default 1,000,000, with --quick 50,000")
    chosen = parser.parse_args(arguments)
    calls, rounds = chosen.calls or (5_000 if chosen.quick else 100_000), chosen.rounds or (3 if chosen.quick else 9)
    tasks = chosen.tasks or (50_000 if chosen.quick else 1_000_000)
    about = machine.describe()
    report.show_machine(about)
    growth, rate = asyncio.run(grown(tasks))
    gc.collect()
    costs = compare(calls, rounds)
    show(costs, growth, rate, tasks)
    figures = {name: one.as_dict() for name, one in costs.items()}
    report.write(chosen.json, {"benchmark": "local", "machine": about, "calls": figures, "grown MB": growth})
    return 0

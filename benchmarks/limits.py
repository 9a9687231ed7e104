"""Are limits and rates kept, and are they made use of to the full?

Many jobs of 50 ms under a limit of three, on two worker processes, and 200 who race for the three slots of a limiter
in four: how many run at once at most, and which share of the three is occupied while there is demand? Under a rate of
100 a second, on four processes: how many start in 20 s?
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from . import machine, report
from .children import Child
from .machine import Server
from .ours import LIMIT, RATE, Ours

BUSY, ALLOWED = 0.95, 0.95
"""Targets: the share of the seats that is occupied; of the starts that a rate allows."""
HOLD = 0.05
"""Seconds that each seat is held for."""
Spans = list[tuple[float, float]]


@contextlib.contextmanager
def children(server: Server, count: int) -> Iterator[list[Child]]:
    with contextlib.ExitStack() as open_ones:
        yield [open_ones.enter_context(Child(server.url, server.namespace)) for _ in range(count)]


def all_of(some: list[Child], what: str, **arguments: Any) -> list[Any]:
    """What each of them answers; they are asked at once."""
    for child in some:
        child.send("ours", what, **arguments)
    return [child.answer() for child in some]


def occupied(spans: Spans, until: float) -> tuple[float, int]:
    """From the first begin on to an instant: the share of the seats that was occupied, and the most at once."""
    since = min(began for began, _ in spans)
    busy = sum(min(ended, until) - began for began, ended in spans if began < until)
    changes = sorted([(ended, -1) for _, ended in spans] + [(began, 1) for began, _ in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return busy / (LIMIT * (until - since)), most


async def limited_jobs(server: Server, jobs: int) -> tuple[float, int]:
    """While there is demand: until the last job began."""
    ours = Ours(server.url, server.namespace)
    await ours.runner.dispatch_many([ours.limited.job(HOLD) for _ in range(jobs)])
    with children(server, 2) as workers:
        all_of(workers, "start")
        deadline = time.monotonic() + 4 * jobs * HOLD / LIMIT + 30
        while sum(map(len, found := all_of(workers, "spans"))) < jobs:
            if time.monotonic() > deadline:
                raise SystemExit(f"{sum(map(len, found))} of {jobs} jobs have run; the run is given up")
            await asyncio.sleep(0.5)
        all_of(workers, "stop")
    await ours.aclose()
    server.wipe()
    spans = [(began, ended) for one in found for began, ended in one]
    return occupied(spans, max(began for began, _ in spans))


def racing(server: Server, acquirers: int, seconds: float) -> tuple[float, int, int]:
    """While there is demand: until the first gave up. And how many held a slot."""
    with children(server, 4) as processes:
        found = all_of(processes, "race", width=acquirers // 4, seconds=seconds, hold=HOLD)
    server.wipe()
    spans = [(began, ended) for one in found for began, ended in one]
    share, most = occupied(spans, min(began for began, _ in spans) + 0.9 * seconds)
    return share, most, len(spans)


async def rated_jobs(server: Server, seconds: float) -> int:
    """How many jobs start within so many seconds from the first, of more than there can be."""
    ours, jobs = Ours(server.url, server.namespace), round(1.5 * RATE * (seconds + 2))
    with children(server, 4) as workers:
        all_of(workers, "start")
        await ours.runner.dispatch_many([ours.rated.job(0) for _ in range(jobs)])
        await asyncio.sleep(seconds + 1)
        starts = sorted(began for one in all_of(workers, "spans") for began, _ in one)
        await ours.runner.purge("default")
        all_of(workers, "stop")
    await ours.aclose()
    server.wipe()
    if len(starts) == jobs:
        raise SystemExit(f"all {jobs} jobs have started: there was no demand to the end")
    return sum(start < starts[0] + seconds for start in starts)


def show(
    limited: tuple[float, int], raced: tuple[float, int, int], acquirers: int, starts: int, seconds: float
) -> None:
    rows = []
    for name, share, most in (("jobs, 2 processes", *limited), (f"{acquirers} acquirers, 4 processes", *raced[:2])):
        kept = "never more" if most <= LIMIT else f"EXCEEDED: {most}"
        rows.append([name, str(most), kept, f"{share:.1%}", report.verdict(share, at_least=BUSY)])
    columns = ["", "most at once", f"of {LIMIT}", "occupied", "target"]
    report.show(f"A limit of {LIMIT}, each seat held for {HOLD * 1e3:.0f} ms while others wait for it", columns, rows)
    allowed = round(RATE * seconds) + RATE
    kept = "never more" if starts <= allowed else "EXCEEDED"
    verdict = report.verdict(starts / (RATE * seconds), at_least=ALLOWED)
    row = ["jobs", f"{starts:,}", f"{allowed:,}", kept, f"{starts / (RATE * seconds):.1%}", verdict]
    columns = ["", "starts", "allowed with burst", "", "of the rate", "target"]
    report.show(f"A rate of {RATE} a second, on four processes, {seconds:.0f} s from the first start", columns, [row])


def main(arguments: list[str]) -> int:
    parser = report.arguments("limits", __doc__)
    parser.add_argument("--jobs", type=int, help="limited jobs; default 600, with --quick 100")
    parser.add_argument("--acquirers", type=int, default=200, help="who race for slots; default 200")
    parser.add_argument("--seconds", type=float, help="of the race and of the rate; default 20, with --quick 3")
    chosen = parser.parse_args(arguments)
    jobs, seconds = chosen.jobs or (100 if chosen.quick else 600), chosen.seconds or (3.0 if chosen.quick else 20.0)
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)
        limited = asyncio.run(limited_jobs(server, jobs))
        raced = racing(server, chosen.acquirers, seconds)
        starts = asyncio.run(rated_jobs(server, seconds))
    show(limited, raced, chosen.acquirers, starts, seconds)
    figures = {"limited jobs": limited, "race": raced, "rated starts": starts, "seconds": seconds}
    report.write(chosen.json, {"benchmark": "limits", "machine": about, **figures})
    return 0

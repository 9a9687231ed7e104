"""How soon after a fault the workers are at work again, by the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tests.faults.workshop import Journal, Line
from tests.scenarios.stage import RESERVATION, Stage
from tests.waiting import eventually

BACK = RESERVATION + 10
"""Seconds after the end of a fault within which the workers must be at work again, at their old rate."""


@dataclass(frozen=True)
class Recovery:
    """``back``: how many workers started jobs again; ``seconds``: until all had; ``rate``: until half as many runs per
    second ended as before."""

    back: int
    seconds: float
    rate: float


def ends_per_second(journal: Journal, since: float, until: float) -> float:
    return sum(since < line.at <= until for line in journal.lines("end")) / (until - since)


async def recovery(stage: Stage, since: float, before: float) -> Recovery:
    """Waits until every worker of the stage has started a job after ``since``, when the fault ended, and until half as
    many runs per second end as ``before``."""
    pids = {worker.pid for worker in stage.workers}

    def both() -> tuple[float | None, float | None]:
        starts, ends = stage.journal.lines("start"), stage.journal.lines("end")
        return _all_back(starts, since, pids), _at_rate(ends, since, before / 2)

    async def over() -> bool:
        await asyncio.sleep(0.1)
        return None not in both()

    try:
        await eventually(over, BACK)
    except AssertionError:
        stage.problems.append(f"not everybody was at work again within {BACK:.0f} s")
    now = time.monotonic() - since
    seconds, rate = both()
    back = len(pids & {line.pid for line in stage.journal.lines("start") if line.at > since})
    return Recovery(back, now if seconds is None else seconds, now if rate is None else rate)


def _all_back(starts: Sequence[Line], since: float, pids: Collection[int]) -> float | None:
    """Seconds until the last of these workers had started a job."""
    first: dict[int, float] = {}
    for line in starts:
        if line.at > since:
            first.setdefault(line.pid, line.at - since)
    return max(first[pid] for pid in pids) if pids <= first.keys() else None


def _at_rate(ends: Sequence[Line], since: float, rate: float) -> float | None:
    """Seconds until the first second began in which so many runs ended."""
    times = sorted(line.at for line in ends if line.at > since)
    few = max(1, round(rate))
    for first, last in zip(times, times[few - 1 :], strict=False):
        if last - first <= 1:
            return first - since
    return None

"""One run: a seed's plan, carried out and checked."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import faults, final, oracle, recovery, seats, states, story
from tests.chaos.history import History, Violation
from tests.chaos.plan import Plan
from tests.chaos.stage import Stage

REST = 120.0
"""Seconds until all must be at rest after the last dispatch: poison takes some reservations for each of its lives."""
CALL = 60.0


@dataclass
class Report:
    """What a run came to."""

    plan: Plan
    jobs: Counter[str]
    runs: int
    faults: Counter[str]
    states: Counter[str]
    outcomes: Counter[str]
    recovery: float
    """The worst of all seconds until work went on after a fault that all felt, and until each worker was at work."""
    seconds: float
    most: dict[str, int] = field(default_factory=dict)
    """The largest concurrency under each lock key or limit; what is allowed stands behind its name."""
    violations: list[Violation] = field(default_factory=list)
    story: str = ""

    def line(self) -> str:
        """All of it on one line."""
        verdict = "stood" if not self.violations else f"{len(self.violations)} VIOLATIONS"
        return (
            f"seed {self.plan.seed}: {verdict}; {sum(self.jobs.values())} jobs ({_listed(self.jobs)}), "
            f"{self.runs} runs; "
            f"dispatches: {_listed(self.outcomes)}; faults: {_listed(self.faults)}; states: {_listed(self.states)}; "
            f"most at once: {', '.join(f'{name} {most}' for name, most in self.most.items())}; "
            f"back at work after {self.recovery:.1f} s at worst; took {self.seconds:.0f} s"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.plan.seed,
            "plan": self.plan.as_dict(),
            "jobs": dict(self.jobs),
            "runs": self.runs,
            "dispatches": dict(self.outcomes),
            "faults": dict(self.faults),
            "states": dict(self.states),
            "most_at_once": self.most,
            "worst_recovery": round(self.recovery, 2),
            "seconds": round(self.seconds, 1),
            "violations": [f"{one.invariant}: {one.text} {one.job}".strip() for one in self.violations],
        }


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


async def carry_out(plan: Plan, folder: Path) -> Report:
    """Runs a plan in an empty folder, which has the journals and logs afterwards."""
    began = time.monotonic()
    async with Stage(plan, folder) as stage:
        await stage.at_work(CALL)
        until = time.monotonic() + plan.seconds
        await asyncio.gather(
            faults.run_lane(stage, "worker", plan.worker_faults(), until),
            faults.run_lane(stage, "common", plan.common_faults(), until),
        )
        await faults.run_lane(stage, "finale", plan.finale(), math.inf)
        await stage.roll_call(CALL)
        await stage.stop_all("producer")
        backlog = await stage.at_rest(REST)
        await stage.stop_all("worker")
        await stage.look()
        history = History(stage.lines())
        stands = await final.read(stage, history, backlog)
        seen = states.seen(stage, history, stands)
    violations = oracle.check(history, stands)
    times = [one.all for one in recovery.recoveries(history)] + list(recovery.roll_call(history).values())
    return Report(
        plan=plan,
        jobs=Counter(record.task for record in stands.records.values()),
        runs=len(history.all_runs()),
        faults=Counter(span.kind for span in history.faults),
        states=seen,
        outcomes=Counter(one.outcome or "unknown" for one in history.dispatches),
        recovery=max(times, default=0.0),
        seconds=time.monotonic() - began,
        most=seats.most_at_once(history),
        violations=violations,
        story=story.tell(violations[0], history, stands, folder) if violations else "",
    )

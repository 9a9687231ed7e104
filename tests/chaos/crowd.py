"""A crowd before a few doors: thousands of jobs of some lock keys, and workers that are killed and stopped meanwhile.

    python -m tests.chaos.crowd --jobs 20000 --keys 64 --workers 8

Afterwards the oracle of the chaos runs is asked: no two of a key at once, in order, each job once, nothing left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path

from tests.chaos import final, oracle, plan, seats, story
from tests.chaos.history import History, Violation
from tests.chaos.producer import PRIORITIES, Intent
from tests.chaos.stage import Stage

TOGETHER = 200
"""Jobs per dispatch."""
KINDS = {"locked": 85, "elsewhere": 10, "both": 2, "relocked": 3}
SHORT, LONG = 0.004, 0.2
"""Seconds that most of them and a few of them take: what is tried is the hand-over, and some must be caught at work."""
REST = 300.0


@dataclass
class Report:
    """What a crowd came to."""

    jobs: int
    keys: int
    runs: int
    done: Counter[str]
    seen: dict[str, int]
    most: dict[str, int]
    seconds: float
    violations: list[Violation] = field(default_factory=list)
    story: str = ""

    def line(self) -> str:
        verdict = "stood" if not self.violations else f"{len(self.violations)} VIOLATIONS"
        found = {"jobs": self.jobs, "keys": self.keys, "runs": self.runs, **self.done, **self.seen}
        most = ", ".join(f"{name} {count}" for name, count in self.most.items())
        listed = ", ".join(f"{count} {name}" for name, count in found.items())
        return f"{verdict}: {listed}; most at once: {most}; took {self.seconds:.0f} s"


def intents(jobs: int, keys: int, chance: random.Random) -> Iterator[Intent]:
    kinds, shares = list(KINDS), list(KINDS.values())
    for number in range(jobs):
        kind = chance.choices(kinds, shares)[0]
        third = 1 if kind == "relocked" else round(chance.uniform(0.0, LONG if chance.random() < 0.05 else SHORT), 4)
        intent = Intent(kind, f"crowd-{number}", [f"{kind}-{chance.randrange(keys)}", third])
        if chance.random() < 0.1:
            intent.options["priority"] = chance.choice(PRIORITIES)
        yield intent


async def spoil(stage: Stage, chance: random.Random, done: Counter[str]) -> None:
    """Again and again kills a worker, ends one, or stops one for half a reservation to three. The stage replaces the
    dead."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1.0) * stage.plan.reservation)
        well = [one for one in stage.alive("worker") if not one.expected]
        victim = chance.choice(well) if well else None
        if victim is None:
            continue
        what = chance.choices(("kills", "ends", "stops"), (2, 1, 2))[0]
        done[what] += 1
        if what == "kills":
            stage.journal.write("note", text=f"SIGKILL to {victim.name}, pid {victim.pid}")
            victim.popen.kill()
        elif what == "ends":
            stage.journal.write("note", text=f"SIGTERM to {victim.name}, pid {victim.pid}")
            await stage.stop(victim)
        else:
            stage.journal.write("note", text=f"SIGSTOP to {victim.name}, pid {victim.pid}")
            victim.popen.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(chance.uniform(0.5, 3.0) * stage.plan.reservation)
            finally:
                victim.popen.send_signal(signal.SIGCONT)


async def carry_out(jobs: int, keys: int, workers: int, seed: int, folder: Path) -> Report:
    """Runs a crowd in an empty folder, which has the journals and logs afterwards."""
    began, chance, done = time.monotonic(), random.Random(seed), Counter[str]()
    # Whoever is killed that often loses more deliveries than a job of its own may.
    chosen = replace(plan.make(seed, 0.0, workers), producers=0, partitions=1, reservation=1.0, max_deliveries=100)
    async with Stage(chosen, folder) as stage:
        spoiling = [asyncio.create_task(spoil(stage, chance, done)) for _ in range(max(1, workers // 3))]
        all_of_them = intents(jobs, keys, random.Random(seed))
        while some := list(islice(all_of_them, TOGETHER)):
            await stage.producer.send_many(some)
        await stage.at_few(jobs // 100, REST)
        for one in spoiling:
            one.cancel()
        await asyncio.gather(*spoiling, return_exceptions=True)
        backlog = await stage.at_rest(REST)
        await stage.stop_all("worker")
        history = History(stage.lines())
        stands = await final.read(stage, history, backlog)
    violations = oracle.check(history, stands)
    gaps = [after.began - before.ended for holds in seats.locks(history).values() for before, after in pairwise(holds)]
    seen = seats.seen(history) | {"ms between two of a key (median)": round(sorted(gaps)[len(gaps) // 2] * 1000)}
    return Report(
        jobs=len(stands.records),
        keys=len(seats.locks(history)),
        runs=len(history.all_runs()),
        done=done,
        seen=seen,
        most=seats.most_at_once(history),
        seconds=time.monotonic() - began,
        violations=violations,
        story=story.tell(violations[0], history, stands, folder) if violations else "",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="crowd", description="Thousands of jobs of some lock keys, and dying workers."
    )
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=64, help="lock keys")
    parser.add_argument("--workers", type=int, default=8, help="worker processes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"crowd-{given.seed}-"))
    report = asyncio.run(carry_out(given.jobs, given.keys, given.workers, given.seed, folder))
    print(report.line())
    for violation in report.violations[:20]:
        print(f"  {violation.invariant} {violation.job}: {violation.text}")
    if report.violations:
        print(f"the first of them (journals and logs are in {folder}):\n{report.story}")
    else:
        shutil.rmtree(folder)
    return 1 if report.violations or report.jobs != given.jobs else 0


if __name__ == "__main__":
    sys.exit(main())

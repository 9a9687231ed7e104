"""``python -m tests.chaos --seed N --minutes M [--seeds K] [--workers 4] [--json FILE]``"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos import plan, states
from tests.chaos.run import Report, carry_out


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Random work under random faults, checked from outside.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of load, for all seeds together")
    parser.add_argument("--workers", type=int, default=4, help="worker processes")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--keep", type=Path, help="a folder for journals and logs; otherwise those of reds are kept")
    given = parser.parse_args()
    seconds = given.minutes * 60 / given.seeds
    seeds = range(given.seed, given.seed + given.seeds)
    reports = [_one(plan.make(seed, seconds, given.workers), given.keep) for seed in seeds]
    total = _total(reports)
    absent = states.missing(total["states"])
    if given.json:
        figures = {name: dict(value) for name, value in total.items()}
        given.json.write_text(json.dumps({"total": figures, "seeds": [one.as_dict() for one in reports]}, indent=1))
    red = [one.plan.seed for one in reports if one.violations]
    print(f"total of {len(reports)} seeds: {sum(total['jobs'].values())} jobs, {sum(total['faults'].values())} faults")
    for name, counts in total.items():
        print(f"  {name}: " + ", ".join(f"{what} {count}" for what, count in counts.most_common()))
    names = dict.fromkeys(name for one in reports for name in one.most)
    most = {name: max(one.most.get(name, 0) for one in reports) for name in names}
    print("  most at once: " + ", ".join(f"{name} {count}" for name, count in most.items()))
    print(f"  worst recovery: {max(one.recovery for one in reports):.1f} s")
    if absent:
        print(f"RED: never seen: {', '.join(absent)}; a longer run, or another seed, should see them")
    if red:
        print(f"RED: violations with the seeds {red}")
    return 1 if red or absent else 0


def _one(chosen: plan.Plan, keep: Path | None) -> Report:
    print(f"seed {chosen.seed}: {chosen.seconds:.0f} s on {chosen.workers} workers ...", flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{chosen.seed}-", dir=keep))
    report = asyncio.run(carry_out(chosen, folder))
    print(report.line(), flush=True)
    for violation in report.violations[:20]:
        print(f"  {violation.invariant} {violation.job}: {violation.text}")
    if report.violations:
        print(f"the first of them (journals and logs are in {folder}):\n{report.story}", flush=True)
    elif not keep:
        _remove(folder)
    return report


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _total(reports: list[Report]) -> dict[str, Counter[str]]:
    return {
        "jobs": sum((one.jobs for one in reports), Counter()),
        "dispatches": sum((one.outcomes for one in reports), Counter()),
        "faults": sum((one.faults for one in reports), Counter()),
        "states": sum((one.states for one in reports), Counter()),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Breaks one guard after the other in a copy of the project, and sees whether its tests notice."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import (
    guards,
    guards_flow_audit,
    guards_flows,
    guards_local,
    guards_results,
    guards_seats,
    guards_slots,
    guards_worker,
)
from tests.mutants.mutant import Mutant

MUTANTS = (
    *(guards.MUTANTS + guards_worker.MUTANTS + guards_seats.MUTANTS + guards_slots.MUTANTS),
    *guards_results.MUTANTS,
    *guards_flows.MUTANTS,
    *guards_flow_audit.MUTANTS,
    *guards_local.MUTANTS,
)
ROOT = Path(__file__).parents[2]
COPIED = ("taskrunner", "tests", "pyproject.toml")
DEADLINE = 300.0
"""Seconds for the tests of one mutant."""
HANGS = 60
"""Seconds after which a test counts as hanging, which is a catch as well."""
PASSED, NOTHING_TESTED = 0, (2, 4, 5)
"""Exit codes of pytest. Any other is a catch: tests failed, or the mutant took the whole test process with it."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: caught, survived, or not tested and why."""

    mutant: Mutant
    caught: bool
    told: str
    seconds: float


def copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def run(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Runs tests in a copy. Returns pytest's exit code and the last thing that it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--timeout={HANGS}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"not over after {DEADLINE:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (failed or lines or [done.stderr[-300:]])[-1]


def try_out(mutant: Mutant) -> Verdict:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy(folder)
        file = folder / mutant.file
        text = file.read_text()
        if text.count(mutant.text) != 1:
            told = f"its text stands {text.count(mutant.text)} times in {mutant.file}: the guard has changed"
            return Verdict(mutant, False, told, time.monotonic() - began)
        file.write_text(text.replace(mutant.text, mutant.becomes))
        code, told = run(folder, mutant.tests)
    return Verdict(mutant, code not in (PASSED, *NOTHING_TESTED), told, time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these mutants")
    parser.add_argument("--list", action="store_true", help="name them")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    parser.add_argument("--sound", action="store_true", help="first see that the tests pass without a mutant")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if mutant.name in arguments.names or not arguments.names]
    if arguments.list:
        for mutant in chosen:
            print(f"{mutant.name:28} {mutant.story}")
        return 0
    if arguments.sound and not sound(chosen):
        return 1
    with ThreadPoolExecutor(arguments.jobs) as pool:
        verdicts = list(pool.map(tell, chosen))
    survived = [verdict for verdict in verdicts if not verdict.caught]
    print(f"{len(verdicts) - len(survived)} of {len(verdicts)} mutants were caught")
    return 1 if survived else 0


def sound(chosen: list[Mutant]) -> bool:
    """Whether the tests pass as things are: else it would be no wonder that they fail with a mutant."""
    tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        copy(Path(name))
        code, told = run(Path(name), tests)
    print(f"without a mutant: {told}", flush=True)
    return code == PASSED


def tell(mutant: Mutant) -> Verdict:
    verdict = try_out(mutant)
    word = "caught  " if verdict.caught else "SURVIVED"
    print(f"{word} {mutant.name:28} {verdict.seconds:5.1f} s  {verdict.told[:150]}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())

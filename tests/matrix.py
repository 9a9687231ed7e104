"""The tests that concern the server, on every kind of server: ``python3 dev.py matrix [--store] [LEG...] [-- ARGS]``.

A leg is one of ``tests.servers.KINDS``; all of them when none is named. ``--store`` runs the tests of the store alone.
What stands after ``--`` goes to pytest, as in ``python3 dev.py matrix redis-6.2 -- -x -k reclaim``.

A leg whose server can't be had is skipped, with the reason; under ``CI=true`` it has failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import KINDS, Unavailable, in_ci, obtain

ROOT = Path(__file__).parents[1]
STORE = ["tests/store"]
ALL = [*STORE, "tests/worker", "tests/faults"]
COUNTS = ("tests", "skipped", "failures", "errors")


@dataclass
class Leg:
    """One kind of server, and how the tests went on it."""

    kind: str
    result: str = ""
    version: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def row(self) -> list[str]:
        counts = [str(self.counts.get(name, "")) for name in COUNTS]
        return [self.kind, self.version, *counts, f"{self.seconds:.0f} s" if self.counts else "", self.result]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 dev.py matrix", description="The tests that concern the server, on every kind of server."
    )
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"{', '.join(KINDS)}; all without any")
    parser.add_argument("--store", action="store_true", help="only the tests of the store")
    ours, theirs = split(arguments)
    options = parser.parse_args(ours)
    unknown = sorted(set(options.legs) - set(KINDS))
    if unknown:
        parser.error(f"no such leg: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    legs = [Leg(kind) for kind in options.legs or KINDS]
    for leg in legs:
        run(leg, [*(STORE if options.store else ALL), *(theirs or ["-q", "-n", "4", "--dist", "worksteal"])])
    print("\n" + table(legs), flush=True)
    return 1 if any(leg.result.startswith("FAILED") for leg in legs) else 0


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and those for pytest."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def run(leg: Leg, arguments: list[str]) -> None:
    """Runs pytest with these arguments on a leg, and notes in it how that went."""
    try:
        leg.version = obtain(leg.kind).version
    except Unavailable as error:
        leg.result = f"{'FAILED' if in_ci() else 'skipped'}: {error}"
        return
    print(f"\n== {leg.kind} ({leg.version})", flush=True)
    environment = {**os.environ, "TASKRUNNER_TEST_SERVER": leg.kind}
    environment.pop("TASKRUNNER_TEST_URL", None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="taskrunner-matrix-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        leg.seconds = time.monotonic() - began
        leg.counts = counted(report)
    passed = code == 0 and leg.counts.get("tests", 0) > leg.counts.get("skipped", 0)
    leg.result = "passed" if passed else f"FAILED: pytest ended with {code}"


def counted(report: Path) -> dict[str, int]:
    """How many tests there were and what came of them; nothing when pytest did not get so far."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return {}
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in COUNTS}


def table(legs: list[Leg]) -> str:
    rows = [["server", "version", *COUNTS, "time", "result"], *(leg.row() for leg in legs)]
    # The last column may hold a long reason, and nothing stands behind it.
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = (
        "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None

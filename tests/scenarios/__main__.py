"""Plays the scenarios and prints the table: ``python -m tests.scenarios [S1 S5 ...] [--rounds N] [--seed N]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from tests.scenarios import stops
from tests.scenarios.stage import RESERVATION, SLOTS
from tests.scenarios.table import SCENARIOS, Row, play_rounds
from tests.servers import Server


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scenarios",
        description="Plays nine faults that every job runner meets, and prints what was seen. "
        "Exits with 1 when one did not stand.",
    )
    parser.add_argument("names", nargs="*", metavar="S1", help=f"which of {' '.join(SCENARIOS)}; all without")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is played")
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed; each further round has the next")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    report.show_machine(asyncio.run(_machine()))
    print(
        f"defaults, apart from reservation_timeout={RESERVATION:g}, num_workers={SLOTS} ({stops.SLOTS} in S7); "
        f"S5 with appendfsync always; rounds: {given.rounds}, from seed {given.seed}; low-high over the rounds\n"
    )
    print("| | fault | seen | verdict |\n|---|---|---|---|", flush=True)
    rows = asyncio.run(_play_all(given.names or list(SCENARIOS), given.rounds, given.seed))
    return 0 if all(row.stood for row in rows) else 1


async def _machine() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with Server(Path(folder)) as server:
            with machine.Server(server.url) as described:
                return machine.describe(described)


async def _play_all(names: list[str], rounds: int, seed: int) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        rows.append(await play_rounds(name, rounds, seed, lambda text: print(text, file=sys.stderr, flush=True)))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

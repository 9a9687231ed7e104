"""What does a lock key cost when nobody waits for it, and what do 10,000 jobs cost that all wait for one?

A drain of jobs that all have different lock keys, beside one of jobs without. Then 10,000 jobs wait for one key that
a running job holds: what do an idle worker and its server do meanwhile, beside as many jobs that wait for tomorrow, and
how long do 20,000 other jobs take? And when the holder ends: how soon is the line through, one after the other?
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from . import machine, report
from .children import Child
from .machine import Server
from .ours import Ours
from .workload import payloads

KEPT = "results kept"
COST, SLOWER = 1.25, 1.10
"""Targets: the drain time of locked jobs by that of plain ones; that of others while many wait, by that without."""
REST = 10.0
"""Seconds over which idleness is measured."""
ALL_DIFFERENT, ONE = "{data[user_id]}", "one"
NONE, TOMORROW, LOCK = "nobody", "for tomorrow", "for the lock"


@dataclass
class Drains:
    """Drains in turns, round by round: seconds, and µs of CPU time per job of the worker and of the server."""

    locked: list[tuple[float, float, float]] = field(default_factory=list)
    plain: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def times(self) -> report.Comparison:
        return report.Comparison([one[0] for one in self.locked], [one[0] for one in self.plain])

    def cpu(self, side: str) -> str:
        """The least of all rounds: it swings less than times do."""
        rounds = self.locked if side == "locked" else self.plain
        return f"{min(one[1] for one in rounds):.1f} + {min(one[2] for one in rounds):.1f}"


def drain(server: Server, worker: Child, jobs: int, kept: bool, locked: bool) -> tuple[float, float, float]:
    """Seconds from the first handler to the last outcome on record, and µs of CPU time per job: worker, server."""
    key = {"lock_key": ALL_DIFFERENT} if locked else {}
    with Child(server.url, server.namespace) as producer:
        producer.ask("ours", "many", count=jobs, kept=kept, **key)
    before = server.cpu()
    worker.ask("ours", "start")
    recorded = server.wait_for(server.streams["ours"], 0)
    cpu = server.cpu() - before
    done = worker.ask("ours", "stop")
    server.wipe()
    if done["count"] != jobs:
        raise SystemExit(f"{done['count']} jobs were handled and not {jobs}: these figures would mean nothing")
    return recorded - done["first"], done["cpu"] / jobs * 1e6, cpu / jobs * 1e6


def drains(server: Server, jobs: int, rounds: int) -> dict[str, Drains]:
    """Locked jobs beside plain ones, in turns."""
    found: dict[str, Drains] = {}
    with Child(server.url, server.namespace) as worker:
        drain(server, worker, jobs // 10, kept=True, locked=True)  # nothing is measured while it warms up
        for name, kept in ((KEPT, True), ("results not kept", False)):
            found[name] = Drains()
            for _ in range(rounds):
                found[name].locked.append(drain(server, worker, jobs, kept, locked=True))
                found[name].plain.append(drain(server, worker, jobs, kept, locked=False))
    return found


async def waiting(server: Server, line: int, jobs: int, rounds: int) -> dict[str, Any]:
    """What a line before one key costs the others, and how fast it is through."""
    ours, found = Ours(server.url, server.namespace), dict[str, Any]()
    with Child(server.url, server.namespace) as worker:
        worker.ask("ours", "start")
        await ours.runner.opened()
        holder = await ours.naps["any"].with_options(lock_key=ONE).dispatch(86_400.0)
        for name in (NONE, TOMORROW, LOCK):
            if name == TOMORROW:
                task = ours.kept.with_options(delay=86_400.0)
                await ours.runner.dispatch_many([task.job(item) for item in payloads(line)])
            elif name == LOCK:
                await ours.runner.purge("default")
                await ours.many(line, lock_key=ONE)
            await asyncio.sleep(2.0)
            idle = await idleness(server, worker)
            found[name] = idle | {"others": [await others(server, ours, jobs) for _ in range(rounds)]}
        began = time.monotonic()
        await holder.cancel()
        server.wait_for_no_key("parked:default")
        server.wait_for(f"{server.streams['ours']}/first", 0)
        found["line"] = time.monotonic() - began
        done = worker.ask("ours", "stop")
    await ours.aclose()
    server.wipe()
    if done["count"] != line + 3 * rounds * jobs:
        raise SystemExit(f"{done['count']} jobs were handled and not {line + 3 * rounds * jobs}")
    return found


async def idleness(server: Server, worker: Child) -> dict[str, float]:
    """What a worker and its server do in a second, and of which commands the server had most."""
    cpu, own = server.cpu(), worker.ask("ours", "cpu")
    before = calls(server)
    await asyncio.sleep(REST)
    after = calls(server)
    return {
        "worker": (worker.ask("ours", "cpu") - own) / REST,
        "server": (server.cpu() - cpu) / REST,
        "commands": sum(after[name] - before.get(name, 0) for name in after) / REST,
        "scripts": (after.get("cmdstat_evalsha", 0) - before.get("cmdstat_evalsha", 0)) / REST,
    }


def calls(server: Server) -> dict[str, int]:
    """How often each command was called so far; in scripts too. Not those with which we ask."""
    found = {name: int(one["calls"]) for name, one in server.redis.info("commandstats").items()}
    return {name: count for name, count in found.items() if name != "cmdstat_info"}


async def others(server: Server, ours: Ours, jobs: int) -> float:
    """Seconds from the first dispatch of other jobs to the last one's outcome on record; the holder's entry stays."""
    began = time.monotonic()
    await ours.many(jobs)
    return server.wait_for(server.streams["ours"], 1) - began


def show(costs: dict[str, Drains], lines: dict[str, Any], line: int) -> None:
    rows = [
        [name, report.spread(one.times.ours, ".2f"), report.spread(one.times.bare, ".2f"),
         report.spread(one.times.ratios, ".2f"), one.cpu("locked"), one.cpu("plain"),
         report.verdict(one.times.ratio, below=COST if name == KEPT else None)]
        for name, one in costs.items()
    ]  # fmt: skip
    columns = ["drain by one process, s", "locked, all keys different", "plain", "ratio", "CPU µs: locked", "plain",
               "target"]  # fmt: skip
    report.show("What a lock key costs", columns, rows)
    rows = []
    for name, one in ((name, one) for name, one in lines.items() if name != "line"):
        cpu = [f"{one[side] * 1e3:.2f}" for side in ("worker", "server")]
        counts = [f"{one['commands']:.1f}", f"{one['scripts']:.1f}"]
        rows.append([name, *cpu, *counts, report.spread(one["others"], ".2f")])
    ratio = statistics.median(lines[LOCK]["others"]) / statistics.median(lines[NONE]["others"])
    verdict = report.verdict(ratio, below=SLOWER)
    columns = ["who waits", "its CPU, ms/s", "the server's, ms/s", "commands/s", "scripts/s", "other jobs, s"]
    caption = f"An idle worker while {line:,} jobs wait; others take {ratio:.2f} times as long beside a lock, {verdict}"
    report.show(caption, columns, rows)
    print(f"\nthe line was through in {lines['line']:.2f} s, {line / lines['line']:,.0f} hand-overs/s of one key")


def main(arguments: list[str]) -> int:
    parser = report.arguments("locks", __doc__)
    parser.add_argument("--jobs", type=int, help="jobs per drain; default 20,000, with --quick 2,000")
    parser.add_argument("--line", type=int, help="jobs that wait for one lock; default 10,000, with --quick 1,000")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 1")
    chosen = parser.parse_args(arguments)
    jobs, line = chosen.jobs or (2_000 if chosen.quick else 20_000), chosen.line or (1_000 if chosen.quick else 10_000)
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)
        costs = drains(server, jobs, rounds)
        lines = asyncio.run(waiting(server, line, jobs, rounds))
    show(costs, lines, line)
    drained = {name: asdict(one) | one.times.as_dict() for name, one in costs.items()}
    report.write(chosen.json, {"benchmark": "locks", "machine": about, "drains": drained, "line": lines})
    return 0

"""How much memory does a waiting job take on the server, and a backlog in a worker's process?

The server's: the growth of ``used_memory`` per job, less the bytes of its payload; beside it the same entries in a
plain stream. The worker's: how far its resident memory rises above what it was on an empty queue, while it works on the
front of a backlog. Neither depends on the machine's speed, so nothing here is repeated.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from . import machine, report
from .bare import Bare
from .children import Child
from .machine import Server
from .ours import Ours
from .workload import PAYLOAD, payloads

TRACKED, UNTRACKED, GROWTH = 250, 120, 20
"""Targets: bytes per waiting job above its payload, with and without tracking; megabytes of a worker."""
CHUNK = 10_000
SETTLE = 2.0
"""Seconds that a process gets to come to rest, or to work on the backlog."""


async def fill(ours: Ours, task: Any, items: list[Any]) -> None:
    for start in range(0, len(items), CHUNK):
        await ours.runner.dispatch_many([task.job(item) for item in items[start : start + CHUNK]])


async def server_bytes(server: Server, jobs: int) -> dict[str, float]:
    """Bytes per waiting job above its payload: tracked, not tracked, and as a bare entry."""
    ours, bare = Ours(server.url, server.namespace), Bare(server.url, server.namespace)
    payload = len(json.dumps(PAYLOAD, separators=(",", ":")))
    items = payloads(jobs)

    def used() -> int:
        return int(server.redis.info("memory")["used_memory"])

    found = {}
    for name, task in (("tracked (default)", ours.kept), ("not tracked (ignore_result)", ours.noop)):
        await fill(ours, task, items[:1])  # loads the script, makes the keys
        before = used()
        await fill(ours, task, items)
        found[name] = (used() - before) / jobs - payload
        if task is ours.noop:
            await bare.imitate()
        server.wipe()
    await bare.pipelined(1)
    before = used()
    await bare.pipelined(jobs)
    found["the same entries in a plain stream"] = (used() - before) / jobs - payload
    server.wipe()
    await ours.aclose()
    await bare.aclose()
    return found


async def worker_growth(server: Server, jobs: int) -> dict[str, dict[str, float]]:
    """Bytes of a worker on an empty queue, and at its peak with a backlog behind it: of naps, and of no-op jobs."""
    ours = Ours(server.url, server.namespace)
    found = {}
    for name, task, items in (
        ("naps of 50 ms", ours.naps["any"], [0.05] * jobs),
        ("no-op jobs, results kept, to the end", ours.kept, payloads(jobs)),
    ):
        with Child(server.url, server.namespace) as worker:
            worker.ask("ours", "start")
            await asyncio.sleep(SETTLE)
            idle = worker.ask("ours", "watch")
            await fill(ours, task, items)
            if task is ours.kept:
                server.wait_for(server.streams["ours"], 0)
            else:
                await asyncio.sleep(SETTLE)
            left = server.redis.xlen(server.streams["ours"])
            peak = worker.ask("ours", "peak")
            worker.ask("ours", "stop")
        server.wipe()
        found[name] = {"idle": idle, "peak": peak, "left": left}
    await ours.aclose()
    return found


def main(arguments: list[str]) -> int:
    parser = report.arguments("memory", __doc__)
    parser.add_argument("--jobs", type=int, help="default 100000, with --quick 20000")
    chosen = parser.parse_args(arguments)
    jobs = chosen.jobs or (20_000 if chosen.quick else 100_000)
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)
        on_server = asyncio.run(server_bytes(server, jobs))
        in_worker = asyncio.run(worker_growth(server, jobs))
    rows = []
    for (name, extra), target in zip(on_server.items(), (TRACKED, UNTRACKED, None), strict=True):
        rows.append([name, f"{extra:.0f}", report.verdict(extra, below=target)])
    report.show(f"Server bytes per waiting job above its payload, {jobs:,} jobs", ["", "bytes", "target"], rows)
    rows = []
    for name, one in in_worker.items():
        growth = (one["peak"] - one["idle"]) / 1e6
        figures = [f"{one['idle'] / 1e6:.1f}", f"{one['peak'] / 1e6:.1f}", f"{growth:.1f}"]
        rows.append([name, *figures, report.verdict(growth, below=GROWTH)])
    report.show(
        f"Memory of a worker's process in MB, {jobs:,} jobs waiting", ["", "idle", "peak", "growth", "target"], rows
    )
    document = {"benchmark": "memory", "machine": about, "jobs": jobs, "server": on_server, "worker": in_worker}
    report.write(chosen.json, document)
    return 0

"""How late do jobs start that wait for a time, what does it cost when 100,000 are due at once, and to have a million?

On an idle worker, jobs with a delay and plain ones take turns: how much later than its due time does the one enter
its handler than the other after its dispatch? When very many jobs are due in one millisecond: how long does the
longest script hold up the server, and what do others wait who dispatch meanwhile? With a million jobs that wait for
tomorrow: what does a worker do that has nothing else to do, beside one in an empty namespace?
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from . import machine, report
from .children import Child
from .machine import Server
from .ours import Ours
from .workload import payloads

LATER, LONGEST = 20.0, 5.0
"""Targets: ms that a delayed job may start later than a plain one (p99); ms that one script may take."""
DELAY = 0.05
CHUNK = 10_000
AHEAD = 0.5
"""Seconds of quiet between the last dispatch of a storm and its due time."""
REST = 10.0
"""Seconds over which idleness is measured."""


async def punctuality(server: Server, count: int) -> dict[str, list[float]]:
    """Seconds from the dispatch to the handler of plain jobs, and from the due time to the handler of delayed ones."""
    ours, found = Ours(server.url, server.namespace), dict[str, list[float]]()
    with Child(server.url, server.namespace) as worker:
        for kind in ("plain", "delayed"):
            worker.ask("ours", "start")
            for _ in range(20 + count):
                await asyncio.sleep(random.uniform(0.005, 0.020))
                await (ours.send_instant() if kind == "plain" else ours.send_delayed(DELAY))
            await asyncio.sleep(2 * DELAY + 0.2)
            found[kind] = worker.ask("ours", "stop")["lags"][20:]
            if len(found[kind]) != count:
                raise SystemExit(f"{len(found[kind])} {kind} jobs have run and not {count}")
    await ours.aclose()
    return found


async def storm(server: Server, jobs: int) -> dict[str, Any]:
    """Very many jobs that are due in one millisecond, and somebody who dispatches all the while."""
    ours, client = Ours(server.url, server.namespace), server.redis
    began = time.monotonic()
    await fill(ours, jobs, delay=86_400.0)  # how long does it take?
    took = time.monotonic() - began
    server.wipe()
    due = datetime.now(UTC) + timedelta(seconds=1.5 * took + AHEAD)
    await fill(ours, jobs, at=due)
    spare = (due - datetime.now(UTC)).total_seconds()
    if spare < AHEAD / 2:
        raise SystemExit(f"the machine was too slow: the jobs were due {-spare:.1f} s before the last was dispatched")
    with Child(server.url, server.namespace) as worker:
        worker.ask("ours", "start")
        before = client.config_get("slowlog-*")
        client.config_set("slowlog-log-slower-than", 500)
        client.config_set("slowlog-max-len", 10_000)
        client.slowlog_reset()
        quiet = await dispatches(ours, lambda: datetime.now(UTC) > due)
        began = time.monotonic()
        busy = await dispatches(ours, lambda: not client.zcard(due_set(server)))
        promoted = time.monotonic() - began
        scripts = [entry["duration"] for entry in client.slowlog_get(10_000) if entry["command"].startswith(b"EVAL")]
        for name, value in before.items():
            client.config_set(name, value)
        server.wait_for(server.streams["ours"], 0)
        drained = time.monotonic() - began
        done = worker.ask("ours", "stop")
    await ours.aclose()
    if done["count"] != jobs:
        raise SystemExit(f"{done['count']} jobs have run and not {jobs}")
    return {
        "quiet": quiet, "busy": busy, "promoted": promoted, "drained": drained, "jobs": jobs,
        "longest": max(scripts, default=0) / 1e6, "lags": done["lags"],
    }  # fmt: skip


def due_set(server: Server) -> str:
    return server.streams["ours"].replace(":stream:", ":due:")


async def fill(ours: Ours, jobs: int, **options: Any) -> None:
    task = ours.noop.with_options(**options)
    for start in range(0, jobs, CHUNK):
        await ours.runner.dispatch_many([task.job(item) for item in payloads(min(CHUNK, jobs - start))])


async def dispatches(ours: Ours, is_over: Any) -> list[float]:
    """Seconds that single dispatches take, one after the other, until it is over."""
    times = list[float]()
    while not is_over():
        began = time.perf_counter()
        await ours.send_instant()
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)
    return times


async def idleness(server: Server, jobs: int) -> dict[str, dict[str, float]]:
    """What an idle worker and its server do in a second, without waiting jobs and with very many."""
    ours, found = Ours(server.url, server.namespace), dict[str, dict[str, float]]()
    for name, waiting in (("none", 0), (f"{jobs:,}", jobs)):
        await fill(ours, waiting, delay=86_400.0)
        with Child(server.url, server.namespace) as worker:
            worker.ask("ours", "start")
            await asyncio.sleep(2.0)
            cpu, own = server.cpu(), worker.ask("ours", "cpu")
            commands = server.redis.info("stats")["total_commands_processed"]
            await asyncio.sleep(REST)
            found[name] = {
                "worker": (worker.ask("ours", "cpu") - own) / REST,
                "server": (server.cpu() - cpu) / REST,
                "commands": (server.redis.info("stats")["total_commands_processed"] - commands) / REST,
            }
            worker.ask("ours", "stop")
    server.wipe()
    await ours.aclose()
    return found


def show(lags: dict[str, list[float]], storms: dict[str, Any], idle: dict[str, dict[str, float]]) -> None:
    rows = []
    for share in (0.5, 0.99):
        plain, delayed = (report.percentile(lags[kind], share) * 1e3 for kind in ("plain", "delayed"))
        target = report.verdict(delayed - plain, below=LATER if share == 0.99 else None, unit=" ms")
        rows.append([f"p{share * 100:.0f}", f"{plain:.2f}", f"{delayed:.2f}", f"{delayed - plain:+.2f}", target])
    columns = ["", "plain, ms after dispatch", "delayed, ms after due time", "difference", "target"]
    report.show(f"On an idle worker; the earliest started {min(lags['delayed']) * 1e3:+.2f} ms after its due time",
                columns, rows)  # fmt: skip
    rows = [
        [name, *(f"{report.percentile(storms[name], share) * 1e3:.2f}" for share in (0.5, 0.99, 0.9999))]
        for name in ("quiet", "busy")
    ]
    longest = storms["longest"] * 1e3
    caption = (
        f"{storms['jobs']:,} jobs due in one millisecond: promoted in {storms['promoted']:.2f} s, drained in "
        f"{storms['drained']:.2f} s; longest script {longest:.2f} ms, {report.verdict(longest, below=LONGEST)}"
    )
    report.show(caption, ["a dispatch meanwhile, ms", "p50", "p99", "longest"], rows)
    rows = [
        [name, f"{one['worker'] * 1e3:.2f}", f"{one['server'] * 1e3:.2f}", f"{one['commands']:.1f}"]
        for name, one in idle.items()
    ]
    report.show("An idle worker while so many jobs wait for tomorrow",
                ["waiting", "its CPU, ms/s", "the server's, ms/s", "commands/s"], rows)  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = report.arguments("due", __doc__)
    parser.add_argument("--count", type=int, help="jobs of each kind on an idle worker; default 500, with --quick 50")
    parser.add_argument("--storm", type=int, help="jobs due at once; default 100,000, with --quick 5,000")
    parser.add_argument("--waiting", type=int, help="jobs that wait for tomorrow; default 1,000,000, quick 20,000")
    chosen = parser.parse_args(arguments)
    count, at_once = chosen.count or (50 if chosen.quick else 500), chosen.storm or (5_000 if chosen.quick else 100_000)
    waiting = chosen.waiting or (20_000 if chosen.quick else 1_000_000)
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)
        lags = asyncio.run(punctuality(server, count))
        storms = asyncio.run(storm(server, at_once))
        idle = asyncio.run(idleness(server, waiting))
    show(lags, storms, idle)
    document = {"benchmark": "due", "machine": about, "idle worker": lags, "storm": storms, "waiting": idle}
    report.write(chosen.json, document)
    return 0

"""How long after the dispatch call does an idle worker enter the handler, in units of a bare round trip?

Three things take turns, 5 to 20 ms apart: a dispatch to an idle worker in another process, a PING, and a bare XADD to a
blocked XREADGROUP in a third process. The unit is the median PING. All processes share the monotonic clock.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from typing import Any

from . import machine, report
from .bare import Bare
from .children import Child, event_loop
from .machine import Server
from .ours import Ours

KINDS = ("dispatch to handler", "bare XADD to XREADGROUP", "bare PING")
TARGETS = {(KINDS[0], 0.5): 4.0, (KINDS[0], 0.99): 12.0}
"""Bare round trips."""
SHARES = (0.5, 0.95, 0.99)
WARM_UP = 20


async def take_turns(ours: Ours, bare: Bare, count: int) -> list[float]:
    """``count`` of each. Returns the seconds of the PINGs; the workers know the others'."""
    pings = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(0.005, 0.020))
        await ours.send_instant()
        await asyncio.sleep(random.uniform(0.005, 0.020))
        pings.append(await bare.ping())
        await asyncio.sleep(random.uniform(0.005, 0.020))
        await bare.send_instant()
    await asyncio.sleep(0.1)  # the last ones arrive
    return pings


async def produce(server: Server, workers: dict[str, Child], rounds: int, count: int) -> list[dict[str, list[float]]]:
    """Per round and kind, all its times in seconds."""
    ours, bare = Ours(server.url, server.namespace), Bare(server.url, server.namespace)
    found = []
    for turn in range(rounds):
        workers["ours"].ask("ours", "start")
        workers["bare"].ask("bare", "start", timed=True)
        pings = await take_turns(ours, bare, WARM_UP + count)
        lags = {side: worker.ask(side, "stop")["lags"] for side, worker in workers.items()}
        times = dict(zip(KINDS, (lags["ours"], lags["bare"], pings), strict=True))
        for kind, values in times.items():
            if len(values) != WARM_UP + count:
                raise SystemExit(
                    f"{len(values)} times of {kind!r} and not {WARM_UP + count}: jobs were lost or repeated"
                )
        found.append({kind: values[WARM_UP:] for kind, values in times.items()})
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    await ours.aclose()
    await bare.aclose()
    return found


def round_trips(found: list[dict[str, list[float]]], kind: str, share: float) -> list[float]:
    """A percentile in bare round trips, per round."""
    return [report.percentile(times[kind], share) / statistics.median(times["bare PING"]) for times in found]


def show(found: list[dict[str, list[float]]], name: str) -> None:
    rows = []
    for kind in KINDS:
        everything = [value for times in found for value in times[kind]]
        for share in SHARES:
            relative = round_trips(found, kind, share)
            target = report.verdict(statistics.median(relative), below=TARGETS.get((kind, share)))
            milliseconds = f"{report.percentile(everything, share) * 1e3:.2f}"
            rows.append([kind, f"p{share * 100:.0f}", milliseconds, report.spread(relative, ".1f"), target])
    report.show(f"Idle latency, {name}", ["", "", "ms", "bare round trips", "target"], rows)


def main(arguments: list[str]) -> int:
    parser = report.arguments("latency", __doc__)
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--count", type=int, help="of each kind per round; default 200, with --quick 50")
    parser.add_argument("--uvloop", action="store_true", help="on both sides")
    chosen = parser.parse_args(arguments)
    rounds, count = chosen.rounds or (2 if chosen.quick else 5), chosen.count or (50 if chosen.quick else 200)
    name = "uvloop" if chosen.uvloop else "standard loop"
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)

        def child() -> Child:
            return Child(server.url, server.namespace, uvloop=chosen.uvloop)

        with child() as one, child() as other, asyncio.Runner(loop_factory=event_loop(chosen.uvloop)) as runner:
            found = runner.run(produce(server, {"ours": one, "bare": other}, rounds, count))
    show(found, name)
    document: dict[str, Any] = {"benchmark": "latency", "machine": about, "loop": name, "rounds": found}
    document["round_trips"] = {
        kind: {f"p{share * 100:.0f}": round_trips(found, kind, share) for share in SHARES} for kind in KINDS
    }
    report.write(chosen.json, document)
    return 0

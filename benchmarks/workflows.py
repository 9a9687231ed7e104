"""What does a group cost per member, and how long is it from one step of a chain to the next?

A group of 100,000 members, given as a generator, beside as many jobs by ``dispatch_many``: the server's CPU time for
each until all outcomes are on record, the time that takes, and what the dispatching process needs of memory meanwhile.
Then a chain of 1,000 steps on an idle worker: from the end of one step to the start of the next, in units of a bare
round trip, the median PING. And when the result_ttl is over: what is left of the workflows on the server.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

from taskrunner import TaskRunner, chain, group

from . import machine, report
from .bare import Bare
from .children import Child
from .machine import Server
from .workload import PAYLOAD, payloads, resident

MICROS, TRIPS = 15.0, 3.0
"""Targets: µs of server time that a group adds per member; bare round trips from one step of a chain to the next."""
TTL = 2.0
"""Seconds that results, and workflows, are known after their end."""
PINGS = 200


def producer(server: Server) -> TaskRunner:
    return TaskRunner(server.url, namespace=server.namespace, result_ttl=TTL)


async def fan_out(server: Server, worker: Child, members: int, grouped: bool) -> dict[str, float]:
    """Seconds, µs of the server's CPU time per job, and bytes by which the dispatching process has grown."""
    runner = producer(server)
    kept = runner.declare("kept")
    await runner.opened()
    worker.ask("ours", "start")
    before, began, held = server.cpu(), time.monotonic(), resident()
    if grouped:
        items: Iterator[dict[str, Any]] = (PAYLOAD | {"user_id": number} for number in range(members))
        job = await runner.dispatch(group.map(kept, items))
        grown = resident() - held
        await job.wait(timeout=120)
    else:
        await runner.dispatch_many([kept.job(item) for item in payloads(members)])
        grown = resident() - held
    end = await asyncio.to_thread(server.wait_for, server.streams["ours"], 0)
    micros = (server.cpu() - before) / members * 1e6
    done = worker.ask("ours", "stop")
    await runner.aclose()
    if done["count"] != members:
        raise SystemExit(f"{done['count']} jobs were handled and not {members}: these figures would mean nothing")
    return {"seconds": end - began, "micros": micros, "grown": grown}


async def hand_over(server: Server, worker: Child, steps: int) -> dict[str, list[float]]:
    """Seconds from step to step, and of PINGs 5 to 20 ms apart."""
    bare, pings, runner = Bare(server.url, server.namespace), list[float](), producer(server)
    for _ in range(PINGS):
        await asyncio.sleep(random.uniform(0.005, 0.020))
        pings.append(await bare.ping())
    await bare.aclose()
    worker.ask("ours", "start")
    step = runner.declare("step")
    job = await runner.dispatch(chain(*(step.job() for _ in range(steps))))
    await job.wait(timeout=120)
    lags = worker.ask("ours", "stop")["lags"]
    await runner.aclose()
    if len(lags) != steps - 1:
        raise SystemExit(f"{len(lags) + 1} steps were taken and not {steps}: these figures would mean nothing")
    return {"lags": lags, "pings": pings}


def left_over(server: Server) -> int:
    """How many keys of workflows the server has when their time is over."""
    deadline = time.monotonic() + TTL + 20
    while keys := sum(1 for _ in server.redis.scan_iter(match=f"*{{{server.namespace}.*:workflow*", count=10_000)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return keys


def main(arguments: list[str]) -> int:
    parser = report.arguments("workflows", __doc__)
    parser.add_argument("--members", type=int, help="of the group; default 100,000, with --quick 5,000")
    parser.add_argument("--steps", type=int, help="of the chain; default 1,000, with --quick 100")
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    chosen = parser.parse_args(arguments)
    members = chosen.members or (5_000 if chosen.quick else 100_000)
    steps = chosen.steps or (100 if chosen.quick else 1_000)
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    with Server(chosen.url) as server:
        about = machine.describe(server)
        report.show_machine(about)
        with Child(server.url, server.namespace) as worker:
            asyncio.run(fan_out(server, worker, members // 10, grouped=True))  # nothing is measured while it warms up
            plain, grouped = list[dict[str, float]](), list[dict[str, float]]()
            for _ in range(rounds):
                plain.append(asyncio.run(fan_out(server, worker, members, grouped=False)))
                grouped.append(asyncio.run(fan_out(server, worker, members, grouped=True)))
            steps_taken = [asyncio.run(hand_over(server, worker, steps)) for _ in range(rounds)]
            keys = left_over(server)
    show(plain, grouped, steps_taken, members, steps)
    print(f"\n{keys} keys of workflows were left on the server")
    document = {"benchmark": "workflows", "machine": about, "plain": plain, "grouped": grouped, "steps": steps_taken}
    report.write(chosen.json, document | {"left": keys})
    return 0


def show(
    plain: list[dict[str, float]],
    grouped: list[dict[str, float]],
    taken: list[dict[str, list[float]]],
    members: int,
    steps: int,
) -> None:
    added = [one["micros"] - other["micros"] for one, other in zip(grouped, plain, strict=True)]
    rows = [
        [name, report.spread([one["seconds"] for one in found], ".2f"),
         report.spread([one["micros"] for one in found], ".1f"),
         f"{max(one['grown'] for one in found) / 1e6:.1f}", verdict]
        for name, found, verdict in (
            ("jobs, by dispatch_many", plain, ""),
            ("a group", grouped, report.verdict(statistics.median(added), below=MICROS)),
        )
    ]  # fmt: skip
    columns = [f"{members:,} members", "s until all is recorded", "server, µs per job", "the sender grew, MB", "target"]
    report.show(f"A group adds {report.spread(added, '.1f')} µs per member on the server", columns, rows)
    rows = []
    for share in (0.5, 0.95):
        lags = [report.percentile(one["lags"], share) for one in taken]
        trips = [lag / statistics.median(one["pings"]) for lag, one in zip(lags, taken, strict=True)]
        verdict = report.verdict(statistics.median(trips), below=TRIPS if share == 0.5 else None)
        rows.append([f"p{share * 100:.0f}", report.spread([lag * 1e3 for lag in lags], ".2f"),
                     report.spread(trips, ".1f"), verdict])  # fmt: skip
    columns = ["", "ms", "bare round trips", "target"]
    report.show(f"From one of {steps:,} steps of a chain to the next", columns, rows)

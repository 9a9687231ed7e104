"""How far off is the drain time that is foretold when a fifth of a backlog is done?

A backlog is dispatched, then the workers start. When 80 % of it is left, the queue's ``stats()`` are taken; what was
waiting at that instant is timed until its last job ends. Beside it stands the formula of TaskRunner, from which ours
descends: the integer mean, in ms and over all tasks, of each task's mean run time, times the length of the stream,
divided by (workers × replicas).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from taskrunner.forecast import QueueStats

from . import machine, report
from .children import Child
from .machine import Server
from .ours import Ours
from .workload import SLOTS

WITHIN = 0.20
"""Target: the forecast may be off by this share of what it really takes."""
DONE = 0.20
CHUNK = 10_000

Job = tuple[str, float]
"""A task and how long it sleeps, in seconds."""
Mix = Callable[[random.Random, float], Job]
"""The next job, by chance and by how much of the backlog stands before it, from 0 to 1."""


@dataclass
class Forecast:
    """What was foretold, and what then happened. Seconds."""

    mix: str
    jobs: int
    left: int
    foretold: float
    formula: float
    actual: float

    @property
    def error(self) -> float:
        return self.foretold / self.actual - 1


def one_task(_: random.Random, __: float) -> Job:
    return "any", 0.050


def two_tasks(chance: random.Random, _: float) -> Job:
    return ("long", 1.0) if chance.random() < 0.1 else ("short", 0.001)


def changing(chance: random.Random, progress: float) -> Job:
    """A tenth is long at first, and seven tenths at last."""
    return ("long", 0.200) if chance.random() < 0.1 + 0.6 * progress else ("short", 0.005)


def heavy_tail(chance: random.Random, _: float) -> Job:
    """A Pareto distribution of index 1.2 from 5 ms to 2 s: a mean of 21 ms, three times that as standard deviation."""
    low, high, index = 0.005, 2.0, 1.2
    scale = 1 - (low / high) ** index
    return "any", low * (1 - chance.random() * scale) ** (-1 / index)


def no_ops(_: random.Random, __: float) -> Job:
    """The event loop is the limit here, and not the slots; how much is dispatched is a guess at its speed."""
    return "any", 0.0


MIXES: dict[str, Mix] = {
    "one task, 50 ms": one_task,
    "two tasks, 1 ms and 1 s, 9:1": two_tasks,
    "changing, 5 and 200 ms, 9:1 to 3:7": changing,
    "heavy tail, 5 ms to 2 s": heavy_tail,
    "no-op jobs": no_ops,
}
BY_DEFAULT = tuple(MIXES)[:-1]
"""Not the no-op jobs: that forecast is one of the processor's speed, which on a shared machine nobody can tell."""
NO_OP_RATE = 60_000


def backlog(mix: Mix, seconds: float, processes: int, seed: int) -> list[Job]:
    """As many jobs as fill the slots of the workers for about so many seconds."""
    capacity = seconds * processes * SLOTS
    chance = random.Random(seed)
    sample = [mix(chance, n / 10_000)[1] for n in range(10_000)]
    mean = sum(sample) / len(sample)
    count = int(capacity / mean) if mean else int(NO_OP_RATE * seconds)
    return [mix(chance, number / count) for number in range(count)]


def by_formula(stats: QueueStats, tasks: set[str], length: int) -> float:
    """TaskRunner's own drain time, in seconds."""
    means = [stats.per_task[task].avg_run_time * 1000 if task in stats.per_task else 0.0 for task in tasks]
    return int(sum(means) / len(means)) * length / (stats.workers * stats.replicas) / 1000


async def foresee(server: Server, workers: list[Child], name: str, jobs: list[Job]) -> Forecast:
    ours = Ours(server.url, server.namespace)
    for start in range(0, len(jobs), CHUNK):
        specs = [ours.naps[task].job(seconds) for task, seconds in jobs[start : start + CHUNK]]
        await ours.runner.dispatch_many(specs)
    for worker in workers:
        worker.ask("ours", "start")
    stream = server.streams["ours"]
    server.wait_for(stream, int(len(jobs) * (1 - DONE)))
    instant, length = time.monotonic(), server.redis.xlen(stream)
    stats = await ours.runner.stats(ours.runner.settings.queue)
    await asyncio.to_thread(server.wait_for, stream, 0)
    handled = sum(worker.ask("ours", "stop")["count"] for worker in workers)
    if handled != len(jobs):
        raise SystemExit(f"{handled} jobs were handled and not {len(jobs)}: these figures would mean nothing")
    actual = max(worker.ask("ours", "last_end", after=instant) for worker in workers) - instant
    await ours.aclose()
    server.wipe()
    formula = by_formula(stats, {task for task, _ in jobs}, length)
    return Forecast(name, len(jobs), stats.waiting, stats.drain_time, formula, actual)


def show(found: list[Forecast], processes: int) -> None:
    columns = ["mix", "jobs", "waiting", "foretold s", "actual s", "error", "target", "TaskRunner's s", "error"]
    rows = []
    for one in found:
        formula = one.formula / one.actual - 1
        figures = [f"{one.foretold:.2f}", f"{one.actual:.2f}", f"{one.error:+.0%}"]
        target = report.verdict(abs(one.error) * 100, below=WITHIN * 100, unit=" %")
        rows.append(
            [one.mix, f"{one.jobs:,}", f"{one.left:,}", *figures, target, f"{one.formula:.2f}", f"{formula:+.0%}"]
        )
    report.show(f"Forecast when a fifth is done, {processes} worker process(es)", columns, rows)


def main(arguments: list[str]) -> int:
    parser = report.arguments("forecast", __doc__)
    parser.add_argument("--rounds", type=int, default=1, help="each with other random jobs (default 1)")
    parser.add_argument("--seconds", type=float, help="length of a backlog; default 16, with --quick 8")
    parser.add_argument("--processes", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument(
        "--mix", choices=MIXES, action="append", help="only this one; repeatable (default: all but no-op jobs)"
    )
    chosen = parser.parse_args(arguments)
    seconds = chosen.seconds or (8.0 if chosen.quick else 16.0)
    found = []
    with ExitStack() as stack:
        server = stack.enter_context(Server(chosen.url))
        about = machine.describe(server)
        report.show_machine(about)
        for turn in range(chosen.rounds):
            for name in chosen.mix or BY_DEFAULT:
                with ExitStack() as crew:
                    workers = [crew.enter_context(Child(server.url, server.namespace)) for _ in range(chosen.processes)]
                    jobs = backlog(MIXES[name], seconds, chosen.processes, seed=turn)
                    found.append(asyncio.run(foresee(server, workers, name, jobs)))
                print(f"round {turn + 1}, {name}: {found[-1].error:+.1%}", file=sys.stderr)
    show(found, chosen.processes)
    document = {"benchmark": "forecast", "machine": about, "processes": chosen.processes}
    report.write(chosen.json, document | {"forecasts": [asdict(one) | {"error": one.error} for one in found]})
    return 0

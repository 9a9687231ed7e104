"""How many jobs per second are dispatched and drained, beside a bare redis-py loop on the same server?

Rounds of neighbours: ours, bare, ours, bare. The producer and each worker are processes of their own that live through
all rounds. A drain is clocked from the start of the first handler to the end of the last; "recorded" until the last
entry has left the stream.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from . import machine, report
from .children import Child
from .machine import Server
from .report import Comparison

WIDTH = 1000
"""Concurrent dispatches at a time."""


@dataclass
class Variant:
    """One interpreter with one kind of event loop, and its processes."""

    server: Server
    python: str
    uvloop: bool
    versions: dict[str, str] = field(default_factory=dict)

    def open(self, stack: ExitStack) -> None:
        def child() -> Child:
            url, namespace = self.server.url, self.server.namespace
            return stack.enter_context(Child(url, namespace, python=self.python, uvloop=self.uvloop))

        self.producer = child()
        self.workers = {"ours": [child(), child()], "bare": [child(), child()]}
        self.versions = self.producer.ask("about", "versions")
        # The bare entries carry the bytes of one of ours.
        self.producer.ask("ours", "many", count=1)
        self.producer.ask("bare", "imitate")
        self.server.wipe()

    @property
    def name(self) -> str:
        return f"{self.versions['python']}, {'uvloop' if self.uvloop else 'standard loop'}"

    def produce(self, side: str, what: str, **arguments: Any) -> dict[str, float]:
        """Jobs per second, and µs of CPU per job in the producer and in the server, of one way to dispatch."""
        before = self.server.cpu()
        done = self.producer.ask(side, what, **arguments)
        server, count = self.server.cpu() - before, done["count"]
        self.server.wipe()
        return {"rate": count / done["seconds"], "cpu": done["cpu"] / count * 1e6, "server": server / count * 1e6}

    def drain(self, side: str, count: int, processes: int, kept: bool = False) -> dict[str, float]:
        """The same of a drain."""
        what = {"ours": "many", "bare": "pipelined"}[side]
        self.producer.ask(side, what, count=count, **({"kept": True} if kept else {}))
        workers = self.workers[side][:processes]
        before = self.server.cpu()
        for worker in workers:
            worker.send(side, "start")
        for worker in workers:
            worker.answer()
        recorded = self.server.wait_for(self.server.streams[side], 0)
        server = self.server.cpu() - before
        for worker in workers:
            worker.send(side, "stop")
        done = [worker.answer() for worker in workers]
        self.server.wipe()
        handled = sum(one["count"] for one in done)
        if handled != count:
            raise SystemExit(f"{handled} jobs were handled and not {count}: these figures would mean nothing")
        first = min(one["first"] for one in done if one["count"])
        return {
            "rate": count / (max(one["last"] for one in done) - first),
            "recorded": count / (recorded - first),
            "cpu": sum(one["cpu"] for one in done) / count * 1e6,
            "server": server / count * 1e6,
        }


@dataclass
class Measure:
    """Something that ours and bare both do."""

    name: str
    beside: str
    target: float | None
    ours: Callable[[Variant], dict[str, float]]
    bare: Callable[[Variant], dict[str, float]]


def measures(jobs: int, singles: int) -> list[Measure]:
    def drains(processes: int, kept: bool, target: float | None) -> Measure:
        name = f"drain, results {'kept' if kept else 'not kept'}, {processes} process{'es' * (processes > 1)}"
        return Measure(
            name,
            f"bare drain, {processes}",
            target,
            lambda variant: variant.drain("ours", jobs, processes, kept),
            lambda variant: variant.drain("bare", jobs, processes),
        )

    return [
        Measure(
            "dispatch one by one",
            "XADD one by one",
            None,
            lambda variant: variant.produce("ours", "one_by_one", count=singles),
            lambda variant: variant.produce("bare", "one_by_one", count=singles),
        ),
        Measure(
            f"dispatch, {WIDTH} concurrently",
            "bare drain, 1",
            0.4,
            lambda variant: variant.produce("ours", "concurrent", count=jobs, width=WIDTH),
            lambda variant: variant.drain("bare", jobs, 1),
        ),
        Measure(
            "dispatch_many",
            "pipelined XADD",
            1.5,
            lambda variant: variant.produce("ours", "many", count=jobs),
            lambda variant: variant.produce("bare", "pipelined", count=jobs),
        ),
        drains(1, False, 0.6),
        drains(1, True, 0.45),
        drains(2, False, None),
        drains(2, True, None),
    ]


def run(variants: list[Variant], todo: list[Measure], rounds: int) -> dict[tuple[int, str], dict[str, Comparison]]:
    """Everything, interleaved. Per variant and measure: a comparison of each figure that both sides have."""
    found: dict[tuple[int, str], dict[str, Comparison]] = {}
    for turn in range(rounds):
        for number, variant in enumerate(variants):
            began = time.monotonic()
            for measure in todo:
                ours, bare = measure.ours(variant), measure.bare(variant)
                comparisons = found.setdefault((number, measure.name), {})
                for figure in ours.keys() & bare.keys():
                    comparison = comparisons.setdefault(figure, Comparison([], []))
                    comparison.ours.append(ours[figure])
                    comparison.bare.append(bare[figure])
            print(f"round {turn + 1} of {rounds}, {variant.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def show(variant: Variant, todo: list[Measure], found: dict[str, dict[str, Comparison]]) -> None:
    columns = ["", "ours/s", "beside it", "/s", "ratio", "of medians", "recorded", "CPU µs: ours", "bare", "target"]
    rows = []
    for measure in todo:
        rate, cpu, server = (found[measure.name][figure] for figure in ("rate", "cpu", "server"))
        recorded = found[measure.name].get("recorded")
        rows.append(
            [
                measure.name,
                report.spread(rate.ours),
                measure.beside,
                report.spread(rate.bare),
                report.spread(rate.ratios, ".2f"),
                f"{rate.ratio_of_medians:.2f}",
                f"{recorded.ratio:.2f}" if recorded else "",
                f"{min(cpu.ours):.1f} + {min(server.ours):.1f}",
                f"{min(cpu.bare):.1f} + {min(server.bare):.1f}",
                report.verdict(rate.ratio, at_least=measure.target),
            ]
        )
    report.show(variant.name, columns, rows)


def main(arguments: list[str]) -> int:
    parser = report.arguments("throughput", __doc__)
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--jobs", type=int, default=20_000, help="per measurement (default 20000)")
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter to measure; repeatable")
    parser.add_argument(
        "--uvloop", action="store_true", help="with uvloop; and without as well if --no-uvloop is given"
    )
    parser.add_argument("--no-uvloop", action="store_true", help="with the standard event loop (the default)")
    chosen = parser.parse_args(arguments)
    rounds = chosen.rounds or (2 if chosen.quick else 5)
    loops = [False] * (chosen.no_uvloop or not chosen.uvloop) + [True] * chosen.uvloop
    with ExitStack() as stack:
        server = stack.enter_context(Server(chosen.url))
        about = machine.describe(server)
        report.show_machine(about)
        variants = [Variant(server, python, uvloop) for python in chosen.python or [sys.executable] for uvloop in loops]
        for variant in variants:
            variant.open(stack)
        todo = measures(chosen.jobs, max(chosen.jobs // 20, 1))
        found = run(variants, todo, rounds)
    document: list[dict[str, Any]] = []
    for number, variant in enumerate(variants):
        of_it = {measure.name: found[number, measure.name] for measure in todo}
        show(variant, todo, of_it)
        figures = {name: {key: one.as_dict() for key, one in by.items()} for name, by in of_it.items()}
        document.append({"name": variant.name, "versions": variant.versions, "measures": figures})
    report.write(chosen.json, {"benchmark": "throughput", "machine": about, "jobs": chosen.jobs, "variants": document})
    return 0

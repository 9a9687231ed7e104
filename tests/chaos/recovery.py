"""I12: how soon work goes on after a fault. Part of the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.history import ENDLESS, Final, History, Span, Violation

RECOVERY = 10.0
"""Seconds on top of a reservation within which work must go on."""
STOPPERS = ("blocking", "wedge")
"""Kinds that keep a worker's loop to themselves."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds until a run that began after a fault has ended: ``all`` since the fault's end, in which producers had to
    recover too, and ``waited`` of it while a job was certainly waiting."""

    span: Span
    all: float
    waited: float


def recoveries(history: History) -> list[Recovery]:
    """For each common fault, unless another one came before anything ran again."""
    runs = [run for run in history.all_runs() if run.verdict in ("end", "raised")]
    common = [span for span in history.faults if span.common]
    found: list[Recovery] = []
    for span in common:
        following = min((run.ended for run in runs if run.start.at > span.ended), default=None)
        if following is None or any(span.ended < other.began < following for other in common):
            continue
        waiting = [
            made.returned
            for id, made in history.accepted.items()
            if not made.delay and made.returned < following and _started(history, id) > span.ended
        ]
        since = max(span.ended, min(waiting, default=following))
        found.append(Recovery(span, following - span.ended, following - since))
    return found


def _started(history: History, id: str) -> float:
    return min((run.start.at for run in history.runs.get(id, ())), default=ENDLESS)


def work_goes_on_after_a_fault(history: History, final: Final) -> Iterator[Violation]:
    limit = history.plan["reservation"] + RECOVERY
    for one in recoveries(history):
        if one.waited > limit:
            text = f"no run ended for {one.waited:.1f} s after the fault {one.span.kind!r}; {limit:.1f} s are allowed"
            yield Violation("I12", text, "", one.span.ended)


def roll_call(history: History) -> dict[int, float]:
    """For each worker that lived after the last fault: seconds until it ended a run again, since it was up and its loop
    was free."""
    limit = history.plan["reservation"] + RECOVERY
    up = {line.pid: line.at for line in history.by_event["worker up"]}
    found: dict[int, float] = {}
    for call in history.by_event["called"]:
        pid, began = call.more["of"], call.more["began"]
        mine = [run for run in history.all_runs() if run.pid == pid]
        since = max(began, up.get(pid, began))
        for run in sorted((run for run in mine if run.kind in STOPPERS), key=lambda run: run.start.at):
            if run.start.at <= since + limit and since < run.ended < ENDLESS:
                since = run.ended
        after = [run.ended for run in mine if began < run.ended < ENDLESS]
        found[pid] = max(0.0, min(after) - since) if after else ENDLESS
    return found


def every_worker_is_at_work_after_the_last_fault(history: History, final: Final) -> Iterator[Violation]:
    limit = history.plan["reservation"] + RECOVERY
    for pid, seconds in roll_call(history).items():
        if seconds > limit:
            yield Violation("I12", f"worker {pid} ended no run for {seconds:.1f} s after the last fault")

"""I10, part of the oracle: of a workflow each job starts once, when all that it waited for has succeeded, with what
that came to; what follows a group aside starts once, when all of the group has ended; no workflow is left unfinished.

What a job came to is taken from its record, and from that it follows what must have become of those behind it. Times
are the server's: a record has the one of its end, and no run of a follower may have begun before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import flows
from tests.chaos.flows import Plan
from tests.chaos.history import Final, History, Record, Run, Violation

CLOCK = 2.0
"""Milliseconds: one for rounding here, and one there."""
LETTERS = {"succeeded": "s", "failed": "f", "expired": "e", "cancelled": "c"}
NEVER = "n"


@dataclass
class Flow:
    """A workflow as its producers tell of it."""

    id: str
    plan: Plan
    outcomes: list[str] = field(default_factory=list)
    is_cancelled: bool = False


def flows_of(history: History) -> dict[str, Flow]:
    found: dict[str, Flow] = {}
    for line in history.by_event["flow"]:
        found.setdefault(line.more["id"], Flow(line.more["id"], line.more["plan"]))
    for outcome in ("accepted", "deduplicated", "rejected", "uncertain"):
        for line in history.by_event[f"flow {outcome}"]:
            found[line.more["id"]].outcomes.append(outcome)
    for line in history.by_event["flow cancelling"]:
        found[line.more["id"]].is_cancelled = True
    tries: dict[str, int] = defaultdict(int)
    for line in history.by_event["flow"]:
        tries[line.more["id"]] += 1
    for id, flow in found.items():
        flow.outcomes += [""] * (tries[id] - len(flow.outcomes))
    return found


@dataclass(frozen=True, slots=True)
class End:
    """What a part came to: whether it began and succeeded, when all of it had ended (the server's ms), its value."""

    began: bool
    succeeded: bool
    at: float
    value: Any = None


class _Walk:
    """A workflow, part by part in its order. ``violations`` are what does not hold."""

    def __init__(self, flow: Flow, history: History, final: Final) -> None:
        self._flow = flow
        self._history = history
        self._records = final.records
        self._letters = final.flows[flow.id].states
        self.violations: list[Violation] = []

    def part(self, plan: Plan, turn: bool, at: float, previous: Any, is_cut: bool) -> End:
        """``turn``: all that it waits for has succeeded; ``at``: when; ``is_cut``: it may be cancelled at any time."""
        for kind, walk in (("chain", self._chain), ("group", self._group), ("graph", self._graph)):
            if kind in plan:
                return walk(plan, turn, at, previous, is_cut)
        return self._job(plan, turn, at, previous, is_cut)

    def _chain(self, plan: Plan, turn: bool, at: float, previous: Any, is_cut: bool) -> End:
        end, began = End(turn, turn, at, previous), False
        for part in plan["chain"]:
            end = self.part(part, end.succeeded, end.at, end.value, is_cut)
            began = began or end.began
        return End(began, end.succeeded, end.at, end.value)

    def _group(self, plan: Plan, turn: bool, at: float, previous: Any, is_cut: bool) -> End:
        # One that failed cancels the others, whichever that was.
        ends = [self.part(part, turn, at, previous, is_cut or plan["cancels"]) for part in plan["group"]]
        succeeded = turn and all(end.succeeded for end in ends)
        last = max([at, *(end.at for end in ends)])
        if plan["cancels"] and turn and not succeeded and not is_cut and not self._failures(plan):
            self._wrong("one of its groups was cut, and none of its members has failed", self._flow.id)
        values = [end.value if end.succeeded else None for end in ends]
        for name, when in (("then", succeeded), ("otherwise", turn and not succeeded)):
            if plan[name]:
                # A group that never began calls nobody, and one that is cut may be cut before it calls.
                self.part(plan[name], when, last, values, is_cut)
        return End(turn, succeeded, last, values)

    def _graph(self, plan: Plan, turn: bool, at: float, previous: Any, is_cut: bool) -> End:
        ends: list[End] = []
        for part, before in plan["graph"]:
            those = [ends[one] for one in before]
            ready = turn and all(end.succeeded for end in those)
            values = [end.value for end in those]
            value = previous if not those else values[0] if len(values) == 1 else values
            ends.append(self.part(part, ready, max([at, *(end.at for end in those)]), value, is_cut))
        values = [end.value if end.succeeded else None for end in ends]
        return End(turn, turn and all(end.succeeded for end in ends), max([at, *(end.at for end in ends)]), values)

    def _job(self, plan: Plan, turn: bool, at: float, previous: Any, is_cut: bool) -> End:
        id = f"{self._flow.id}.{plan['job']}"
        record, runs, letter = self._records.get(id), self._history.runs.get(id, []), self._letters[plan["job"]]
        if not turn:
            if record or runs or letter != NEVER:
                self._wrong(f"its turn never came, and it is {letter!r} with {len(runs)} runs: {record}", id)
            return End(False, False, at)
        if record is None:
            if letter == "s" or not (self._flow.is_cancelled or is_cut):
                self._wrong(f"its turn came, and it is {letter!r} without an outcome", id)
            return End(False, False, at)
        if letter != LETTERS[record.status]:
            self._wrong(f"it has {record.status}, and its workflow takes it for {letter!r}", id)
        self._look_at(runs, record, at, previous, id)
        return End(True, record.status == "succeeded", float(record.ended), record.result)

    def _look_at(self, runs: list[Run], record: Record, at: float, previous: Any, id: str) -> None:
        for run in runs:
            early = at - run.start.wall * 1000
            if early > CLOCK:
                self._wrong(f"it began {early:.1f} ms before all that it waited for had ended", id, run)
            if run.start.more["previous"] != previous:
                told = f"it was given {run.start.more['previous']!r}"
                self._wrong(f"{told}, and what it waited for came to {previous!r}", id, run)

    def _failures(self, plan: Plan) -> int:
        records = (
            self._records.get(f"{self._flow.id}.{job['job']}") for part in plan["group"] for job in flows.jobs(part)
        )
        return sum(record is not None and record.status == "failed" for record in records)

    def _wrong(self, text: str, job: str, run: Run | None = None) -> None:
        self.violations.append(Violation("I10", text, job, *([run.start.at] if run else [])))


def followers_start_once(history: History, final: Final) -> Iterator[Violation]:
    for id, flow in flows_of(history).items():
        if id not in final.flows:
            if "accepted" in flow.outcomes or "deduplicated" in flow.outcomes:
                yield Violation("I10", f"workflow {id} was accepted, and is not there", id)
            started = [f"{id}.{job['job']}" for job in flows.jobs(flow.plan)]
            for job in started:
                if job in history.runs:
                    yield Violation("I10", "it runs, and its workflow is not there", job, history.runs[job][0].start.at)
            continue
        if set(flow.outcomes) == {"rejected"}:
            yield Violation("I10", f"workflow {id} was rejected, and is there", id)
        if flow.outcomes.count("accepted") > 1:
            yield Violation("I10", f"workflow {id} was accepted {flow.outcomes.count('accepted')} times", id)
        walk = _Walk(flow, history, final)
        end = walk.part(flow.plan, True, 0.0, None, flow.is_cancelled)
        yield from walk.violations
        yield from _its_status(flow, end, final)


def _its_status(flow: Flow, end: End, final: Final) -> Iterator[Violation]:
    stands = final.flows[flow.id]
    if stands.left or set(stands.states) & {"w", "o"}:
        yield Violation("I10", f"workflow {flow.id} is left unfinished: {stands.left} nodes, {stands.states}", flow.id)
    wanted = {"succeeded" if end.succeeded else "failed"}
    if flow.is_cancelled:
        wanted.add("cancelled")  # perhaps before an empty group at its end, which leaves no trace
    if stands.status not in wanted:
        text = (
            f"workflow {flow.id} has {stands.status}, and by what its jobs came to it should have {' or '.join(wanted)}"
        )
        yield Violation("I10", text, flow.id)


def serials(history: History) -> set[str]:
    """Of all jobs of workflows."""
    return {flows.serial(id, job) for id, flow in flows_of(history).items() for job in flows.jobs(flow.plan)}


def ids(history: History) -> set[str]:
    """Of all jobs of workflows, also of those that never were."""
    return {f"{id}.{job['job']}" for id, flow in flows_of(history).items() for job in flows.jobs(flow.plan)}


def cancellable(history: History) -> set[str]:
    """Jobs that may be cancelled though nobody cancels them as such: their workflow is, or the group they are in."""
    found = set[str]()

    def look(flow: Flow, plan: Plan, is_cut: bool) -> None:
        if "job" in plan:
            if is_cut:
                found.add(f"{flow.id}.{plan['job']}")
            return
        for place, part in enumerate(flows.parts(plan)):
            is_member = "group" in plan and plan["cancels"] and place < len(plan["group"])
            look(flow, part, is_cut or is_member)

    for flow in flows_of(history).values():
        look(flow, flow.plan, flow.is_cancelled)
    return found


def seen(history: History, final: Final) -> dict[str, int]:
    """How much of it there was."""
    found = flows_of(history)
    there = [flow for id, flow in found.items() if id in final.flows]
    jobs = [f"{flow.id}.{job['job']}" for flow in there for job in flows.jobs(flow.plan)]
    aside = [one for flow in there for one in _asides(flow.plan)]
    repeated = [job for job in jobs if len(history.runs.get(job, ())) > 1]
    return {
        "workflows": len(there),
        "failed workflows": sum(final.flows[flow.id].status == "failed" for flow in there),
        "cancelled workflows": sum(final.flows[flow.id].status == "cancelled" for flow in there),
        "jobs of workflows": sum(job in final.records for job in jobs),
        "jobs of workflows run again": len(repeated),
        "what stands aside": len(aside),
    }


def _asides(plan: Plan) -> Iterator[Plan]:
    if "group" in plan:
        yield from (plan[name] for name in ("then", "otherwise") if plan[name])
    for part in flows.parts(plan):
        yield from _asides(part)

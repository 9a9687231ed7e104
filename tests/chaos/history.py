"""What the journals and the server say, put together: dispatches, runs and faults, and what stands in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.journal import Line

OUTCOMES = ("accepted", "deduplicated", "rejected", "uncertain")
ENDS = ("end", "raised", "cancelled", "snoozed")
ENDLESS = float("inf")


@dataclass(slots=True)
class Dispatch:
    """One call of dispatch. ``outcome`` is "" when nobody lived to tell; then ``returned`` is endless."""

    kind: str
    serial: str
    key: str
    own_id: str
    delay: float
    lock: str
    lane: str
    began: Line
    outcome: str = ""
    returned: float = ENDLESS
    id: str = ""


@dataclass(slots=True)
class Run:
    """One call of a task. ``verdict`` is "" when its process died in it; then ``ended`` is endless."""

    job: str
    kind: str
    serial: str
    attempt: int
    deliveries: int
    fence: int
    lock: str
    start: Line
    ended: float = ENDLESS
    ended_wall: float = ENDLESS
    verdict: str = ""
    error: str = ""

    @property
    def pid(self) -> int:
        return self.start.pid


@dataclass(frozen=True, slots=True)
class Span:
    """A fault, from its begin to its end."""

    kind: str
    common: bool
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Record:
    """What the server keeps of a job that has ended."""

    status: str
    task: str
    attempts: int
    ended: int = 0
    result: list[int] | None = None
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stand:
    """How a workflow stands on the server: its status, how many nodes have not ended, and a letter per node."""

    status: str
    left: int
    states: str


@dataclass
class Final:
    """What stands on the server after the drain. ``figures``: task -> (succeeded, failed, waiting)."""

    records: Mapping[str, Record]
    figures: Mapping[str, tuple[int, int, int]]
    dead: Mapping[str, str]
    leftovers: list[str] = field(default_factory=list)
    backlog: str = ""
    noise: list[str] = field(default_factory=list)
    flows: Mapping[str, Stand] = field(default_factory=dict)


@dataclass(frozen=True)
class Violation:
    """What does not hold: which invariant, in words, of which job, and at which (monotonic) time if that is known."""

    invariant: str
    text: str
    job: str = ""
    at: float = ENDLESS


class History:
    """The lines of a run, sorted into what they are about."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = sorted(lines, key=lambda line: line.at)
        self.plan: Mapping[str, Any] = next(line.more for line in self.lines if line.event == "plan")
        self.dispatches: list[Dispatch] = []
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.faults: list[Span] = []
        self.by_event: dict[str, list[Line]] = defaultdict(list)
        self._open_dispatches: dict[tuple[int, int], Dispatch] = {}
        self._open_runs: dict[tuple[int, str, int], Run] = {}
        self._open_faults: dict[str, Line] = {}
        for line in self.lines:
            self.by_event[line.event].append(line)
            if line.event == "intended" or line.event in OUTCOMES:
                self._dispatch(line)
            elif line.event == "start" or line.event in ENDS:
                self._run(line)
            elif line.event.startswith("fault"):
                self._fault(line)
        self.accepted = {one.id: one for one in self.dispatches if one.outcome == "accepted"}
        """Jobs by id, with the dispatch that made each."""

    def _dispatch(self, line: Line) -> None:
        more, name = line.more, (line.pid, line.more["call"])
        if line.event == "intended":
            facts = more["kind"], more["serial"], more["key"], more["id"], more["delay"], more["lock"], more["lane"]
            one = Dispatch(*facts, line)
            self._open_dispatches[name] = one
            self.dispatches.append(one)
        else:
            one = self._open_dispatches.pop(name)
            one.outcome, one.returned, one.id = line.event, line.at, line.job

    def _run(self, line: Line) -> None:
        more, name = line.more, (line.pid, line.job, line.more["fence"])
        if line.event == "start":
            facts = (more["attempt"], more["deliveries"], more["fence"], more["lock"])
            run = self._open_runs[name] = Run(line.job, more["kind"], more["serial"], *facts, line)
            self.runs[line.job].append(run)
        else:
            run = self._open_runs.pop(name)
            run.ended, run.ended_wall, run.verdict = line.at, line.wall, line.event
            run.error = more.get("error", "")

    def _fault(self, line: Line) -> None:
        if line.event == "fault":
            self._open_faults[line.more["number"]] = line
        else:
            began = self._open_faults.pop(line.more["number"])
            self.faults.append(Span(line.more["kind"], line.more["common"], began.at, line.at))

    # -- what the invariants ask -----------------------------------------------------------------------------

    def ids(self) -> set[str]:
        """All jobs that anybody has heard of."""
        return set(self.accepted) | set(self.runs) | {one.own_id for one in self.dispatches if one.own_id}

    def all_runs(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]

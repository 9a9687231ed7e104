"""Made-up runs, for the tests of the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.chaos import oracle, plan
from tests.chaos.history import Final, History, Record, Violation
from tests.chaos.journal import Line

PLAN = replace(plan.make(1, 10.0), reservation=1.0).as_dict()
WALL = 1_000_000.0
WORKER, PRODUCER, DRIVER = 10, 20, 30


class Tale:
    """A made-up run: lines in journals, and what stands on the server. Times in seconds since its begin."""

    def __init__(self) -> None:
        self.lines = [Line("plan", 0.0, WALL, DRIVER, "", PLAN)]
        self.records: dict[str, Record] = {}
        self.figures: dict[str, tuple[int, int, int]] = {}
        self.final = Final(self.records, self.figures, {})
        self._calls = 0

    def line(self, event: str, at: float, pid: int = DRIVER, job: str = "", **more: Any) -> None:
        self.lines.append(Line(event, at, WALL + at, pid, job, more))

    def dispatch(self, job: str, at: float = 1.0, outcome: str = "accepted", serial: str = "", **more: Any) -> None:
        """A call of dispatch that returns 10 ms later; the serial is that of the job unless it is given."""
        self._calls += 1
        told = {"kind": "plain", "key": "", "id": "", "delay": 0.0, "lock": "", "lane": "default"} | more
        told |= {"call": self._calls, "serial": serial or f"serial of {job}"}
        self.line("intended", at, PRODUCER, "", **told)
        if outcome:
            self.line(outcome, at + 0.01, PRODUCER, job if outcome in ("accepted", "deduplicated") else "", **told)

    def run(self, job: str, at: float = 2.0, end: float = 2.1, verdict: str = "end", **more: Any) -> None:
        pid = more.pop("pid", WORKER)
        told = {"kind": "plain", "serial": f"serial of {job}", "attempt": 1, "fence": 1, "lock": ""} | more
        self.line("start", at, pid, job, **{"deliveries": 1, **told})
        if verdict:
            told |= {"error": "Doomed"} if verdict == "raised" else {}
            told.pop("deliveries", None)
            self.line(verdict, end, pid, job, **told)

    def record(self, job: str, status: str = "succeeded", task: str = "plain", **more: Any) -> None:
        """A record; with the counts and the calls of hooks that belong to it."""
        result = [WORKER, 1] if status == "succeeded" else None
        self.records[job] = Record(**{"status": status, "task": task, "attempts": 1, "result": result} | more)
        succeeded, failed, _ = self.figures.get(task, (0, 0, 0))
        self.figures[task] = (succeeded + (status == "succeeded"), failed + (status == "failed"), 0)
        if status in ("succeeded", "failed"):
            self.line("on_success" if status == "succeeded" else "on_failure", 2.1, WORKER, job)
        if status == "failed":
            self.final.dead = {**self.final.dead, job: more.get("reason", "")}

    def job(self, job: str = "a", **more: Any) -> None:
        """A job to which all happens as it should."""
        self.dispatch(job, **more)
        self.run(job, kind=more.get("kind", "plain"))
        self.record(job, task=more.get("kind", "plain"))

    def fault(self, began: float, ended: float, number: str = "0", kind: str = "kill server") -> None:
        about: dict[str, Any] = {"kind": kind, "number": number, "common": True}
        self.line("fault", began, **about)
        self.line("fault over", ended, **about)

    def history(self) -> History:
        return History(self.lines)

    def found(self) -> list[Violation]:
        return oracle.check(self.history(), self.final)

    def is_red(self, invariant: str, words: str) -> None:
        """Exactly these violations are seen, one or more."""
        found = self.found()
        assert found, f"nothing is seen of {words!r}"
        assert {one.invariant for one in found} == {invariant}, found
        assert any(words in one.text for one in found), found

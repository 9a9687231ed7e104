"""How a workflow stands, from a letter per node: pure, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner import JobStatus
from taskrunner.store.workflows import View
from taskrunner.workflow_state import chain_info, is_over, job_id, number_at, numbers_of, status_at, status_of


def view(states: str, kind: str = "chain", **facts: Any) -> View:
    """Of a chain the last node is the result, of a group the second."""
    result = len(states) - 1 if kind == "chain" else 1
    head = {"kind": kind, "result": result, "steps": facts.pop("steps", [[0, len(states) - 1]])}
    return View(head, states, 0, facts.get("failed"), facts.get("stopped"), facts.get("names", {}))


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (view("oww"), JobStatus.RUNNING),
        (view("ssw"), JobStatus.RUNNING),
        (view("sss"), JobStatus.SUCCEEDED),
        (view("sfn", failed=1), JobStatus.FAILED),
        (view("scn", stopped=1), JobStatus.CANCELLED),
        (view("sow", stopped=-1), JobStatus.CANCELLED),
        (view("swfo", "group", failed=2), JobStatus.FAILED),
        (view("swfc", "group", failed=2, stopped=3), JobStatus.FAILED),
        (view("sssw", "group", stopped=-1), JobStatus.SUCCEEDED),
        (view("sssf", "group", failed=3), JobStatus.SUCCEEDED),
    ],
)
def test_the_status_is_that_of_the_result_or_of_the_first_that_did_not_succeed(one: View, status: JobStatus) -> None:
    assert status_of(one) is status


@pytest.mark.parametrize(
    ("one", "over"),
    [
        (view("sfn", failed=1), True),
        (view("sow", stopped=-1), True),
        (view("sww"), False),
        (view("swfo", "group", failed=2), False),
        (view("sffs", "group", failed=2), True),
        (view("swoo", "group", stopped=-1), False),
        (view("sscs", "graph"), True),
    ],
)
def test_a_chain_is_over_with_its_status_and_a_group_when_its_last_member_has_ended(one: View, over: bool) -> None:
    assert is_over(one) is over


@pytest.mark.parametrize(
    ("one", "current", "finished"),
    [
        (view("www"), "w.0", []),
        (view("oww"), "w.0", []),
        (view("sow"), "w.1", ["w.0"]),
        (view("sss"), None, ["w.0", "w.1", "w.2"]),
        (view("sfn", failed=1), None, ["w.0", "w.1"]),
        (view("sen", failed=1), None, ["w.0", "w.1"]),
        (view("sown", stopped=-1), None, ["w.0"]),
        (view("scn", stopped=1), None, ["w.0", "w.1"]),
        (view("ssw", names={0: "mine", 2: "yours"}), "yours", ["mine", "w.1"]),
        (view("sswow", steps=[[0, 0], [2, 2], [4, 4]]), "w.2", ["w.0"]),
    ],
)
def test_a_chain_is_at_the_first_step_that_has_not_ended(one: View, current: str | None, finished: list[str]) -> None:
    info = chain_info(one, "w")
    assert (info.current, info.finished) == (current, finished)


@pytest.mark.parametrize(
    ("letter", "status"),
    [
        ("w", JobStatus.BLOCKED),
        ("o", None),
        ("s", JobStatus.SUCCEEDED),
        ("f", JobStatus.FAILED),
        ("e", JobStatus.EXPIRED),
        ("c", JobStatus.CANCELLED),
        ("n", JobStatus.CANCELLED),
    ],
)
def test_a_letter_tells_the_status_of_a_job_unless_it_has_begun(letter: str, status: JobStatus | None) -> None:
    assert status_at(view(letter), 0) is status


def test_what_waits_in_a_cancelled_workflow_is_cancelled() -> None:
    assert status_at(view("w", stopped=-1), 0) is JobStatus.CANCELLED
    assert status_at(view("w", stopped=0), 0) is JobStatus.BLOCKED


def test_a_job_has_the_id_of_its_node_unless_it_has_another() -> None:
    one = view("ss", names={1: "mine"})
    assert (job_id(one, "w", 0), job_id(one, "w", 1)) == ("w.0", "mine")


def test_ranges_are_counted_through() -> None:
    ranges = [(2, 3), (7, 7), (9, 10)]
    numbers = list(numbers_of(ranges))
    assert numbers == [2, 3, 7, 9, 10]
    assert [number_at(ranges, n) for n in range(6)] == [*numbers, None]

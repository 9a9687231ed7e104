"""The oracle of the chaos runs: what it makes of workflows. Made-up journals, each with one thing wrong, or with one
that is right though it looks wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos import flow_rules, flows
from tests.chaos.history import Stand
from tests.chaos.tale import PRODUCER, WALL, WORKER, Tale

Plan = flows.Plan


@pytest.fixture
def tale() -> Tale:
    return Tale()


def job(task: str = flows.LINK) -> Plan:
    return {"job": 0, "task": task, "seconds": 0.0, "options": {}}


def chain(*parts: Plan) -> Plan:
    return {"chain": list(parts)}


def group(*parts: Plan, then: Plan | None = None, otherwise: Plan | None = None, cancels: bool = False) -> Plan:
    return {"group": list(parts), "then": then, "otherwise": otherwise, "cancels": cancels}


def dispatch(tale: Tale, plan: Plan, states: str, status: str = "succeeded", outcome: str = "accepted") -> None:
    tale.line("flow", 1.0, PRODUCER, id="W", plan=flows.number(plan))
    if outcome:
        tale.line(f"flow {outcome}", 1.1, PRODUCER, id="W")
    if states:
        tale.final.flows = {"W": Stand(status, 0, states)}


def ran(tale: Tale, node: int, at: float, previous: Any = None, status: str = "succeeded", fence: int = 1) -> list[int]:
    """A job of the workflow that began at a time, and ended 0.1 s later. Returns what it came to."""
    name, kind = f"W.{node}", flows.LINK if status != "failed" else flows.BROKEN
    told = {"kind": kind, "serial": f"W:{node}", "attempt": 1, "fence": fence, "lock": ""}
    tale.line("start", at, WORKER, name, deliveries=1, previous=previous, **told)
    verdict = {"succeeded": "end", "failed": "raised"}.get(status, "cancelled")
    tale.line(verdict, at + 0.1, WORKER, name, **told, **({"error": "Doomed"} if verdict == "raised" else {}))
    result = [WORKER, fence] if status == "succeeded" else None
    more = {"ended": round((WALL + at + 0.1) * 1000), "result": result, "error": "Doomed" * (status == "failed")}
    tale.record(name, status, kind, **more)
    return [WORKER, fence]


def test_steps_one_after_the_other_are_green(tale: Tale) -> None:
    dispatch(tale, chain(job(), group(job(), job(), then=job(), otherwise=group(job())), job()), "sssssnnnns")
    # 0 the first, 1 and 2 the group, 3 and 4 its members, 5 then, 6 and 7 the group otherwise, 8 its member, 9 the last
    first = ran(tale, 0, 2.0)
    both = [ran(tale, 3, 2.1, first, fence=2), ran(tale, 4, 2.2, first, fence=3)]
    ran(tale, 5, 2.3, both)
    ran(tale, 9, 2.3, both)
    tale.final.flows = {"W": Stand("succeeded", 0, "ssssssnnns")}
    assert tale.found() == []
    assert flow_rules.seen(tale.history(), tale.final)["jobs of workflows"] == 5


def test_a_follower_that_never_started_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "sw")
    ran(tale, 0, 2.0)
    tale.is_red("I10", "its turn came, and it is 'w' without an outcome")


def test_a_follower_that_is_two_jobs_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss")
    value = ran(tale, 0, 2.0)
    ran(tale, 1, 2.1, value)
    told = {"kind": flows.LINK, "serial": "W:1", "attempt": 1, "fence": 2, "lock": ""}
    tale.line("start", 2.3, WORKER, "another", deliveries=1, previous=value, **told)
    tale.line("end", 2.4, WORKER, "another", **told)
    tale.record("another", task=flows.LINK, result=[WORKER, 2])
    tale.is_red("I1", "made 2 jobs")


def test_a_follower_that_starts_too_early_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss")
    ran(tale, 1, 2.05, ran(tale, 0, 2.0))
    tale.is_red("I10", "it began 50.0 ms before")


def test_a_follower_that_is_given_something_else_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss")
    ran(tale, 0, 2.0)
    ran(tale, 1, 2.2, [WORKER, 7])
    tale.is_red("I10", "what it waited for came to [10, 1]")


def test_a_follower_of_what_failed_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(flows.BROKEN), job()), "fs", "failed")
    ran(tale, 0, 2.0, status="failed")
    ran(tale, 1, 2.2)
    tale.is_red("I10", "its turn never came")


@pytest.mark.parametrize("early", [False, True])
def test_a_callback_comes_when_all_have_ended_though_one_has_failed(tale: Tale, early: bool) -> None:
    dispatch(tale, group(job(flows.BROKEN), job(), then=job(), otherwise=job()), "sffsns", "failed")
    ran(tale, 2, 2.0, status="failed")
    value = ran(tale, 3, 3.0)
    ran(tale, 5, 2.5 if early else 3.5, [None, value])
    if early:
        tale.is_red("I10", "before all that it waited for had ended")
    else:
        assert tale.found() == []


def test_both_callbacks_are_seen(tale: Tale) -> None:
    dispatch(tale, group(job(), then=job(), otherwise=job()), "sssss")
    value = ran(tale, 2, 2.0)
    ran(tale, 3, 2.2, [value])
    ran(tale, 4, 2.2, [value], fence=2)
    tale.is_red("I10", "its turn never came")


def test_a_group_may_be_cut_by_one_of_its_members_only(tale: Tale) -> None:
    dispatch(tale, group(job(flows.BROKEN), job(), cancels=True), "sffc", "failed")
    ran(tale, 2, 2.0, status="failed")
    ran(tale, 3, 2.0, status="cancelled", fence=2)
    assert tale.found() == []


def test_a_job_that_is_cancelled_for_no_reason_is_seen(tale: Tale) -> None:
    dispatch(tale, group(job(), cancels=True), "scc", "failed")
    ran(tale, 2, 2.0, status="cancelled")
    tale.is_red("I10", "none of its members has failed")


def test_a_cancelled_workflow_may_end_anywhere(tale: Tale) -> None:
    dispatch(tale, chain(job(), job(), job()), "scn", "cancelled")
    tale.line("flow cancelling", 2.15, PRODUCER, id="W")
    ran(tale, 1, 2.1, ran(tale, 0, 2.0), status="cancelled")
    assert tale.found() == []


def test_a_workflow_that_is_left_unfinished_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss")
    ran(tale, 1, 2.1, ran(tale, 0, 2.0))
    tale.final.flows = {"W": Stand("succeeded", 1, "ss")}
    tale.is_red("I10", "left unfinished")


def test_a_status_that_does_not_fit_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss", "failed")
    ran(tale, 1, 2.1, ran(tale, 0, 2.0))
    tale.is_red("I10", "workflow W has failed")


@pytest.mark.parametrize(("outcome", "is_there"), [("accepted", False), ("rejected", True)])
def test_a_workflow_that_is_not_as_its_dispatcher_was_told_is_seen(tale: Tale, outcome: str, is_there: bool) -> None:
    dispatch(tale, chain(job(), job()), "ss" if is_there else "", outcome=outcome)
    if is_there:
        ran(tale, 1, 2.1, ran(tale, 0, 2.0))
    tale.is_red("I10", "is there" if is_there else "is not there")


@pytest.mark.parametrize("outcome", ["uncertain", ""])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_dispatch_of_which_nobody_knows_may_have_begun_one(tale: Tale, outcome: str, is_there: bool) -> None:
    dispatch(tale, chain(job(), job()), "ss" if is_there else "", outcome=outcome)
    if is_there:
        ran(tale, 1, 2.1, ran(tale, 0, 2.0))
    assert tale.found() == []


def test_a_workflow_that_was_accepted_twice_is_seen(tale: Tale) -> None:
    dispatch(tale, chain(job(), job()), "ss")
    tale.line("flow", 3.0, PRODUCER, id="W", plan={})
    tale.line("flow accepted", 3.1, PRODUCER, id="W")
    ran(tale, 1, 2.1, ran(tale, 0, 2.0))
    tale.is_red("I10", "accepted 2 times")

"""The oracle of the chaos runs: what it makes of locks, limits, rates and slots. Made-up journals, each with one thing
wrong, or with one that is right though it looks wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos import seats, slots
from tests.chaos.tale import PRODUCER, WORKER, Tale
from tests.chaos.tasks import LIMITS, RATED

OTHER = 11
"""Another worker's pid."""


@pytest.fixture
def tale() -> Tale:
    return Tale()


def locked(tale: Tale, job: str, at: float, end: float, fence: int, dispatched: float = 1.0, **more: Any) -> None:
    """A locked job that was accepted, ran and succeeded."""
    about = {"kind": "locked", "lock": "lock-1"}
    tale.dispatch(job, at=dispatched, **about, lane=more.pop("lane", "default/normal"))
    tale.run(job, at=at, end=end, fence=fence, **about, **more)
    tale.record(job, task="locked", result=[more.get("pid", WORKER), fence])


def test_jobs_of_one_key_one_after_the_other_are_green(tale: Tale) -> None:
    locked(tale, "a", 2.0, 2.1, 1)
    locked(tale, "b", 2.1, 2.2, 2, dispatched=1.1)
    tale.run("c", at=2.05, end=2.3, kind="plain")
    tale.dispatch("c")
    tale.record("c")
    assert tale.found() == []
    assert seats.seen(tale.history())["hand-overs"] == 1
    assert seats.most_at_once(tale.history()) == {"a lock key (1)": 1}


def test_two_of_one_key_that_run_at_once_are_seen(tale: Tale) -> None:
    locked(tale, "a", 2.0, 2.1, 1)
    locked(tale, "b", 2.09, 2.2, 2)
    tale.is_red("I4", "it began 10.0 ms before a had ended")


def test_a_long_run_is_held_against_all_that_follow(tale: Tale) -> None:
    tale.dispatch("z", kind="dropped", lock="lock-1")
    tale.run("z", at=2.0, end=9.0, kind="dropped", lock="lock-1", fence=1, verdict="cancelled")
    tale.record("z", "cancelled", task="dropped")
    tale.line("cancelling", 2.05, PRODUCER, "z")
    locked(tale, "a", 9.1, 9.2, 2)
    assert tale.found() == []
    locked(tale, "b", 8.0, 8.1, 3, dispatched=1.5)
    tale.is_red("I4", "before z had ended")


def test_a_fence_that_does_not_grow_is_seen(tale: Tale) -> None:
    locked(tale, "a", 2.0, 2.1, 2)
    locked(tale, "b", 2.2, 2.3, 2, pid=OTHER)
    tale.is_red("I4", "from the fence 2 to 2")


def test_a_killed_holder_counts_until_the_last_word_of_its_process(tale: Tale) -> None:
    about = {"kind": "locked", "lock": "lock-1"}
    tale.dispatch("a", **about)
    tale.run("a", at=2.0, verdict="", pid=OTHER, fence=1, **about)
    tale.line("stood still", 2.5, OTHER, since=2.4, until=2.5)
    tale.run("a", at=3.5, end=3.6, fence=2, deliveries=2, **about)
    tale.record("a", task="locked", result=[WORKER, 2])
    assert tale.found() == []
    tale.line("on_success", 3.7, OTHER, "b")
    tale.is_red("I4", "before a had ended")


@pytest.mark.parametrize(("since", "until", "excused"), [(2.1, 3.5, True), (2.1, 2.2, False), (3.1, 3.5, False)])
def test_who_stands_still_is_excused_from_the_end_of_its_reservation_on(
    tale: Tale, since: float, until: float, excused: bool
) -> None:
    about = {"kind": "locked", "lock": "lock-1"}
    tale.dispatch("a", **about)
    tale.run("a", at=2.0, end=3.6, verdict="cancelled", pid=OTHER, fence=1, **about)
    tale.line("stood still", until, OTHER, since=since, until=until)
    tale.run("a", at=3.0, end=3.1, fence=2, deliveries=2, **about)
    tale.record("a", task="locked", result=[WORKER, 2])
    if excused:
        assert tale.found() == []
        assert seats.seen(tale.history())["excused overlaps"] == 1
    else:
        tale.is_red("I4", "before a had ended")


def test_who_goes_on_for_long_after_it_stood_still_is_not_excused(tale: Tale) -> None:
    about = {"kind": "locked", "lock": "lock-1"}
    tale.dispatch("a", **about)
    tale.run("a", at=2.0, end=3.5 + seats.LATENCY + 0.1, verdict="cancelled", pid=OTHER, fence=1, **about)
    tale.line("stood still", 3.5, OTHER, since=2.1, until=3.5)
    tale.run("a", at=3.0, end=3.1, fence=2, deliveries=2, **about)
    tale.record("a", task="locked", result=[WORKER, 2])
    tale.is_red("I4", "before a had ended")


def test_who_overtakes_in_its_lane_is_seen(tale: Tale) -> None:
    locked(tale, "a", 2.2, 2.3, 2, dispatched=1.0)
    locked(tale, "b", 2.0, 2.1, 1, dispatched=1.02)
    tale.is_red("I4", "it ran before a")


def test_dispatches_that_overlap_and_other_lanes_have_no_order(tale: Tale) -> None:
    locked(tale, "a", 2.4, 2.5, 3, dispatched=1.0)
    locked(tale, "b", 2.2, 2.3, 2, dispatched=1.005)
    locked(tale, "c", 2.0, 2.1, 1, dispatched=1.5, lane="default/high")
    assert tale.found() == []


@pytest.mark.parametrize("more", [0, 1])
def test_more_than_a_limit_allows_are_seen(tale: Tale, more: int) -> None:
    name, count = LIMITS["limited"]
    for number in range(count + more):
        kind = "sharing" if number == 0 else "limited"
        tale.dispatch(f"job {number}", kind=kind)
        tale.run(f"job {number}", at=2 + number / 100, end=2.5, kind=kind)
        tale.record(f"job {number}", task=kind)
    assert seats.most_at_once(tale.history())[f"{name} ({count})"] == count + more
    if more:
        tale.is_red("I5", f"it was the {count + 1}th at once of {count}")
    else:
        assert tale.found() == []


@pytest.mark.parametrize("more", [0, 1])
def test_more_holders_of_slots_than_there_are_are_seen(tale: Tale, more: int) -> None:
    for number in range(slots.LIMIT + more):
        tale.line("slot", 2.0 + number, PRODUCER, id=f"id {number}", fence=number)
        tale.line("slot over", 9.0, PRODUCER, id=f"id {number}", fence=number)
    if more:
        tale.is_red("I5", f"of {slots.LIMIT} under {slots.NAME}")
    else:
        assert tale.found() == []


@pytest.mark.parametrize("more", [0, 1])
def test_more_starts_than_a_rate_allows_are_seen(tale: Tale, more: int) -> None:
    for number in range(RATED.capacity + more):
        tale.dispatch(f"job {number}", at=1.0, kind="rated")
        tale.run(f"job {number}", at=1.05, end=1.1, kind="rated")
        tale.record(f"job {number}", task="rated")
    if more:
        tale.is_red("I5", f"it was the {RATED.capacity + 1}th start")
    else:
        assert tale.found() == []

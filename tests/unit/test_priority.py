"""Lanes and turns: the names, and the rule by which a worker mixes priorities and queues."""

from __future__ import annotations

from collections import Counter

import pytest

from taskrunner.priority import (
    PRIORITIES,
    WEIGHTS,
    Turns,
    by_priority,
    lane,
    lanes,
    priority_of,
    queue_of,
)


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_lane_tells_its_queue_and_its_priority(priority: str) -> None:
    assert queue_of(lane("mail", priority)) == "mail"
    assert priority_of(lane("mail", priority)) == priority


def test_normal_jobs_stand_under_the_name_of_the_queue_itself() -> None:
    assert lanes("mail") == ("mail/high", "mail", "mail/low")


def test_the_high_lanes_of_all_queues_come_first_and_else_the_order_stays() -> None:
    mixed = ["b/low", "b", "a/low", "b/high", "a", "a/high"]
    assert by_priority(mixed) == ["b/high", "a/high", "b", "a", "b/low", "a/low"]


def test_of_ten_jobs_seven_are_high_two_normal_and_one_is_low() -> None:
    turns = Turns(lanes("mail"))
    for _ in range(3):
        assert turns.share_out(10) == {"mail/high": 7, "mail": 2, "mail/low": 1}


def test_a_worker_that_takes_jobs_one_by_one_keeps_to_the_rule() -> None:
    turns = Turns(lanes("mail"))
    taken = [one for _ in range(10) for one in turns.share_out(1)]
    assert Counter(taken) == {lane("mail", priority): weight for priority, weight in WEIGHTS.items()}
    assert [n for n, one in enumerate(taken) if one == "mail"] == [2, 8], "evenly mixed"


@pytest.mark.parametrize("steps", [[3, 3, 4], [1, 9], [5, 5], [7, 2, 1], [10]])
def test_however_ten_jobs_are_taken_they_are_shared_the_same(steps: list[int]) -> None:
    turns, taken = Turns(lanes("mail")), Counter[str]()
    for step in steps:
        shares = turns.share_out(step)
        assert sum(shares.values()) == step
        taken.update(shares)
    assert taken == {"mail/high": 7, "mail": 2, "mail/low": 1}


def test_queues_share_equally_whatever_lanes_they_have() -> None:
    turns = Turns(["a/high", "b/high", "a", "b", "c", "a/low"])
    shares = turns.share_out(300)
    by_queue = Counter[str]()
    for one, share in shares.items():
        by_queue[queue_of(one)] += share
    assert by_queue == {"a": 100, "b": 100, "c": 100}
    assert (shares["a/high"], shares["a"], shares["a/low"]) == (70, 20, 10)


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_with_less_room_than_queues_they_take_turns(room: int) -> None:
    turns, taken = Turns(["a", "b", "c"]), Counter[str]()
    for _ in range(30):
        taken.update(turns.share_out(room))
    assert taken == {"a": 10 * room, "b": 10 * room, "c": 10 * room}


def test_a_queue_with_one_lane_gets_everything() -> None:
    assert Turns(["mail/low"]).share_out(50) == {"mail/low": 50}


@pytest.mark.parametrize(
    ("there", "shares"),
    [
        (["a", "a/low"], {"a": 9, "a/low": 1}),
        (["a/high", "a/low"], {"a/high": 9, "a/low": 1}),
        (["a/high", "a"], {"a/high": 8, "a": 2}),
    ],
)
def test_the_turns_of_a_lane_that_does_not_exist_are_the_highest_ones(there: list[str], shares: dict[str, int]) -> None:
    assert Turns(there).share_out(10) == shares


def test_without_lanes_there_is_nothing_to_share_out() -> None:
    assert Turns([]).share_out(0) == {}

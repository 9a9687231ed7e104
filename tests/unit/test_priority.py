"""Lanes and turns: the names, and the rule by which a worker mixes priorities and queues."""

from __future__ import annotations

from collections import Counter

import pytest

from taskrunner.priority import (
    FIRST,
    PRIORITIES,
    WEIGHTS,
    Turns,
    by_priority,
    first_lane,
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
    assert lanes("mail") == ("mail/first", "mail/high", "mail", "mail/low")


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


# -- first lanes --------------------------------------------------------------------------------------------------


def test_a_first_lane_belongs_to_its_queue_and_nobody_can_choose_it() -> None:
    assert first_lane("mail") == "mail/first"
    assert queue_of(first_lane("mail")) == "mail"
    assert priority_of(first_lane("mail")) == FIRST
    assert FIRST not in PRIORITIES


def test_first_lanes_come_before_all_others() -> None:
    assert by_priority(["a", "a/high", "b/first", "b/low", "a/first"]) == [
        *("b/first", "a/first", "a/high", "a", "b/low"),
    ]


class Streams:
    """What waits in lanes, and how fetch.lua takes it."""

    def __init__(self, waiting: dict[str, int]) -> None:
        self.waiting = waiting
        self.turns = Turns(by_priority(waiting))

    def fetch(self, count: int) -> list[str]:
        left, shares, way = count, self.turns.share_out(count), self.turns.giving_way()
        taken: list[str] = []

        def read(lane: str, most: int) -> int:
            nonlocal left
            found = max(0, min(most, left, self.waiting[lane]))
            self.waiting[lane] -= found
            left -= found
            taken.extend([lane] * found)
            return found

        for one in by_priority(self.waiting):
            for other in way.get(one, ())[: read(one, shares.get(one) or len(way.get(one, ())))]:
                shares[other] -= 1
        for one in by_priority(self.waiting):
            read(one, left)
        self.turns.came(taken)
        return taken


def test_what_was_let_go_is_taken_before_all_others_of_its_queue() -> None:
    streams = Streams({"mail/first": 3, "mail/high": 50, "mail": 50})
    assert streams.fetch(5)[:3] == ["mail/first"] * 3
    streams.waiting["mail/first"] = 1
    assert streams.fetch(1) != ["mail/first"], "three went before two, and the others come first now"
    assert streams.fetch(1) == ["mail/first"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 100])
def test_a_first_lane_that_never_ends_takes_half_and_the_others_keep_to_their_rule(size: int) -> None:
    streams, taken = Streams(dict.fromkeys(lanes("mail"), 100_000)), Counter[str]()
    for _ in range(4000 // size):
        taken.update(streams.fetch(size))
    total = taken.total()
    assert abs(taken["mail/first"] - total / 2) <= size
    others = total - taken["mail/first"]
    for priority, weight in WEIGHTS.items():
        assert abs(taken[lane("mail", priority)] - others * weight / 10) <= 10


def test_where_only_the_first_lane_has_jobs_it_gets_all_room() -> None:
    streams = Streams({"mail/first": 100, "mail/high": 0, "mail": 0})
    for _ in range(10):
        assert streams.fetch(10) == ["mail/first"] * 10


def test_after_a_time_alone_a_first_lane_does_not_owe_for_it() -> None:
    streams = Streams({"mail/first": 10_000, "mail": 0})
    for _ in range(50):
        streams.fetch(10)
    streams.waiting["mail"] = 10_000
    taken = Counter(one for _ in range(3) for one in streams.fetch(10))
    assert taken["mail/first"] >= 10


def test_an_empty_first_lane_changes_nothing() -> None:
    with_first, without = Turns(lanes("mail")), Turns(lanes("mail")[1:])
    for step in (1, 3, 10, 4, 7):
        shares = with_first.share_out(step)
        with_first.came([one for one, n in shares.items() for _ in range(n)])
        assert shares == without.share_out(step)


def test_the_first_lane_of_one_queue_takes_nothing_from_another_queue() -> None:
    streams, taken = Streams(dict.fromkeys(["a/first", "a", "b"], 10_000)), Counter[str]()
    for _ in range(100):
        taken.update(streams.fetch(7))
    assert abs(taken["b"] - 350) <= 7
    assert abs(taken["a/first"] - 175) <= 7


def test_a_first_lane_whose_queue_has_no_other_one_to_read_gets_its_turns() -> None:
    assert Turns(["mail/first"]).share_out(5) == {"mail/first": 5}

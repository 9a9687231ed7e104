"""What has arrived and needs seats or a permit is asked for before it may start; what needs nothing is not held up."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from taskrunner.envelope import Delivery, Unreadable
from taskrunner.errors import RedisUnavailable
from taskrunner.needs import Permit, Seat, digest
from taskrunner.outcome import Expired, Released, Settlement
from taskrunner.worker.reclaimer import Reclaimer
from taskrunner.worker.usher import Usher
from tests.waiting import eventually
from tests.worker.entrance import Entrance, job, lock, names, plain

LIMIT, RATE = str(Seat(digest("limit", "l"), 2)), str(Permit(digest("rate", "r"), 1000.0, 1))


@pytest.fixture
async def entrance() -> Entrance:
    return Entrance(partitions=2)


async def test_what_needs_nothing_passes_in_its_order_and_nobody_is_asked(entrance: Entrance) -> None:
    strange = Unreadable([b"x", b"y"], "default", 0, b"9-9", 1, 0.0, "rubbish")
    arrivals = [plain("a"), plain("b"), strange, plain("c")]
    await entrance.usher.take(arrivals)
    assert entrance.inventory.inbox.empty() == arrivals
    assert entrance.server.asked == []


async def test_what_is_admitted_starts_in_its_order_under_its_grant(entrance: Entrance) -> None:
    arrivals = [job("a"), job("b"), job("c")]
    entrance.server.refused = {"b"}
    await entrance.usher.take(arrivals)
    waiting = entrance.inventory.inbox.empty()
    assert names(waiting) == ["a", "c"]
    assert [one.grant for one in arrivals] == [100, 0, 102]
    assert entrance.inventory.held == set(waiting), "what was not admitted is not ours"
    assert entrance.inventory.in_hand == 2


# -- the short way -----------------------------------------------------------------------------------------------------


async def test_what_needs_a_lock_only_and_was_just_fetched_goes_the_short_way(entrance: Entrance) -> None:
    arrivals = [job("a"), job("b")]
    before = [one.fetched_at for one in arrivals]
    await entrance.usher.take(arrivals)
    assert entrance.server.asked == [("sit", 0, "default", ["a", "b"])]
    assert [one.grant for one in arrivals] == [100, 101]
    assert [one.fetched_at for one in arrivals] == before, "that way renews nothing"


@pytest.mark.parametrize(
    "other",
    [
        {"needs": LIMIT},
        {"needs": RATE},
        {"needs": f"{lock('k')},{LIMIT}"},
        {"needs": f"{lock('k')},{RATE}"},
        {"deliveries": 2},
        {"age": 0.06},  # half a beat is 0.05
    ],
    ids=["limit", "rate", "lock and limit", "lock and rate", "taken over", "not so young"],
)
async def test_everything_else_is_asked_for_with_its_token_and_renewed(other: Any, entrance: Entrance) -> None:
    one = job("a", **other)
    before = time.monotonic()
    await entrance.usher.take([one])
    assert entrance.server.asked == [("admit", 0, "default", ["a"])]
    assert one.grant == 100
    assert one.fetched_at >= before


async def test_whoever_finds_the_short_way_closed_asks_the_long_way_and_the_order_stays(entrance: Entrance) -> None:
    arrivals = [job("a"), job("b", needs=LIMIT), job("c"), job("d"), job("e")]
    entrance.server.taken, entrance.server.refused = {"c"}, {"e"}
    before = time.monotonic()
    await entrance.usher.take(arrivals)
    assert entrance.server.asked == [
        ("sit", 0, "default", ["a", "c", "d", "e"]),
        ("admit", 0, "default", ["b", "c", "e"]),
    ]
    assert [one.grant for one in arrivals] == [100, 200, 201, 102, 0]
    assert names(entrance.inventory.inbox.empty()) == ["a", "b", "c", "d"]
    assert [one.fetched_at >= before for one in arrivals] == [False, True, True, False, True]


# -- how it asks -------------------------------------------------------------------------------------------------------


async def test_each_lane_and_partition_is_asked_for_by_itself_and_for_two_hundred_at_most(entrance: Entrance) -> None:
    many = [job(f"{n}") for n in range(201)]
    await entrance.usher.take([job("low", "default/low"), *many, job("far", partition=1)])
    asked = [(partition, lane, len(ids)) for _, partition, lane, ids in entrance.server.asked]
    assert asked == [(0, "default/low", 1), (0, "default", 200), (0, "default", 1), (1, "default", 1)]
    assert entrance.inventory.in_hand == 203


async def test_the_plain_jobs_of_a_batch_do_not_wait_for_the_others(entrance: Entrance) -> None:
    entrance.server.go.clear()
    taking = asyncio.create_task(entrance.usher.take([job("a"), plain("b"), job("c"), plain("d")]))
    await eventually(lambda: entrance.server.asked)
    assert names(entrance.inventory.inbox.empty()) == ["b", "d"]
    entrance.server.go.set()
    await taking
    assert names(entrance.inventory.inbox.empty()) == ["a", "c"]


async def test_while_it_asks_heartbeats_renew_what_it_asks_for(entrance: Entrance) -> None:
    entrance.server.go.clear()
    one = job("a")
    taking = asyncio.create_task(entrance.usher.take([one]))
    await eventually(lambda: entrance.server.asked)
    assert entrance.inventory.held == {one}
    assert entrance.inventory.in_hand == 0
    entrance.server.go.set()
    await taking


@pytest.mark.parametrize("how", ["revoke", "forfeit"])
async def test_what_is_cancelled_or_lost_while_it_asks_never_starts_and_its_seats_are_freed(
    how: str, entrance: Entrance
) -> None:
    entrance.server.go.clear()
    one, other = job("a"), job("b")
    taking = asyncio.create_task(entrance.usher.take([one, other]))
    await eventually(lambda: entrance.server.asked)
    getattr(entrance.inventory, how)([one])
    entrance.server.go.set()
    await taking
    assert entrance.inventory.inbox.empty() == [other]
    assert (entrance.inventory.held, entrance.inventory.vacated) == ({other}, [one])
    assert not entrance.inventory.revoked
    assert not entrance.inventory.outliving


async def test_what_is_in_doubt_after_an_outage_is_left_to_a_sweep(entrance: Entrance) -> None:
    entrance.server.away = True
    with pytest.raises(RedisUnavailable):
        await entrance.usher.take([job("a"), plain("b")])
    assert names(list(entrance.inventory.held)) == ["b"], "a sweep would not see the other one"


async def test_what_was_admitted_before_an_outage_starts_and_only_the_rest_is_in_doubt(entrance: Entrance) -> None:
    first, second = job("a", "default/high"), job("b")
    entrance.server.unanswered = {"b"}
    with pytest.raises(RedisUnavailable):
        await entrance.usher.take([first, second])
    assert entrance.inventory.inbox.empty() == [first]
    assert entrance.inventory.held == {first}


async def test_what_is_cancelled_while_an_outage_begins_is_forgotten(entrance: Entrance) -> None:
    entrance.server.go.clear()
    one = job("a")
    taking = asyncio.create_task(entrance.usher.take([one]))
    await eventually(lambda: entrance.server.asked)
    entrance.inventory.revoke([one])
    entrance.server.away = True
    entrance.server.go.set()
    with pytest.raises(RedisUnavailable):
        await taking
    assert (entrance.inventory.held, entrance.inventory.revoked) == (set(), set())


# -- for whom nobody asks ----------------------------------------------------------------------------------------------


async def test_for_what_may_not_start_nobody_is_asked(entrance: Entrance) -> None:
    entrance.inventory.bar(0, {"default"})
    await entrance.usher.take([job("a"), job("b", "mail"), plain("c")])
    assert entrance.server.asked == [("sit", 0, "mail", ["b"])]
    back = entrance.inventory.outbox
    assert sorted(names([one.delivery for one in back])) == ["a", "c"]
    assert all(isinstance(one.outcome, Released) for one in back)


async def test_in_a_stop_what_needs_seats_goes_back_unasked(entrance: Entrance) -> None:
    await entrance.usher.take([job("a")], stopping=True)
    assert entrance.server.asked == []
    assert names([one.delivery for one in entrance.inventory.outbox]) == ["a"]


async def test_what_was_cancelled_on_its_way_is_not_asked_for(entrance: Entrance) -> None:
    entrance.inventory.sieve = lambda arrivals: [one for one in arrivals if one.entry_id != b"a"]
    await entrance.usher.take([job("a"), job("b")])
    assert entrance.server.asked == [("sit", 0, "default", ["b"])]


def refusing(entrance: Entrance, *ids: str) -> Usher:
    """One whose worker is not to run these."""

    def refusal(one: Delivery) -> Settlement | None:
        return Settlement(one, Expired(), 0.0) if one.envelope.id in ids else None

    return Usher(entrance.server, entrance.inventory, refusal)


async def test_for_what_is_not_to_be_run_here_nobody_is_asked_and_its_outcome_is_recorded(entrance: Entrance) -> None:
    one, other = job("a"), job("b")
    await refusing(entrance, "a").take([one, other, plain("c")])
    assert entrance.server.asked == [("sit", 0, "default", ["b"])]
    assert entrance.inventory.outbox == [Settlement(one, Expired(), 0.0)]
    assert entrance.inventory.finished.is_set()
    assert entrance.inventory.in_hand == 2, "it never was in a slot"
    assert one in entrance.inventory.held, "it is renewed until that is recorded"


async def test_a_batch_of_which_nothing_is_to_be_run_here_asks_for_nothing(entrance: Entrance) -> None:
    assert refusing(entrance, "a", "b").let_in([job("a"), job("b")]) == []
    await refusing(entrance, "a", "b").take([job("a"), job("b")])
    assert entrance.server.asked == []


async def test_what_was_cancelled_on_its_way_has_no_other_outcome(entrance: Entrance) -> None:
    entrance.inventory.sieve = lambda arrivals: [one for one in arrivals if one.entry_id != b"a"]
    await refusing(entrance, "a").take([job("a")])
    assert (entrance.inventory.outbox, entrance.inventory.held) == ([], set())


# -- who brings it -----------------------------------------------------------------------------------------------------


async def test_a_reclaimer_asks_before_anybody_can_sweep(entrance: Entrance) -> None:
    one, inventory = job("a"), entrance.inventory
    entrance.server.pending = [one]
    entrance.server.go.clear()
    fetcher = entrance.fetcher()
    lanes: Any = SimpleNamespace(all=("default",), paused=lambda lane: False)
    partition = entrance.server.partitions[0]
    reclaimer = Reclaimer(entrance.server, partition, lanes, inventory, fetcher.look_again, time.monotonic, 4)
    taking = asyncio.create_task(reclaimer._reclaim("default"))
    await eventually(lambda: entrance.server.asked)
    sweep = asyncio.create_task(fetcher.sweep())
    entrance.server.go.set()
    await taking
    assert await sweep == []
    assert inventory.inbox.empty() == [one]


async def test_a_reclaimer_that_could_not_ask_makes_the_fetcher_sweep(entrance: Entrance) -> None:
    entrance.server.pending, entrance.server.away = [job("a")], True
    told: list[str] = []
    lanes: Any = SimpleNamespace(all=("default",), paused=lambda lane: False)
    partition, inventory = entrance.server.partitions[0], entrance.inventory
    reclaimer = Reclaimer(entrance.server, partition, lanes, inventory, lambda: told.append("lost"), time.monotonic, 4)
    with pytest.raises(RedisUnavailable):
        await reclaimer._reclaim("default")
    assert told == ["lost"]


async def test_a_sweep_leaves_alone_what_still_runs_here_though_it_was_lost(entrance: Entrance) -> None:
    one = job("a")
    await entrance.usher.take([one])
    assert await entrance.inventory.inbox.get() is one
    entrance.inventory.forfeit([one])
    entrance.server.pending = [one]
    fetcher = entrance.fetcher()
    assert await fetcher.sweep() == []
    entrance.inventory.drop(one)
    assert await fetcher.sweep() == [one]

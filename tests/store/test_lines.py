"""Lines: who needs a seat stands in the stream only as far as it could run now, in the order of the dispatches."""

from __future__ import annotations

import pytest

from taskrunner.outcome import Released
from tests.store.auditing import audit, end_grace
from tests.store.cancelling import cancel, left
from tests.store.conftest import Place
from tests.store.seating import (
    FIRST,
    LOW,
    admit,
    check_books,
    drain,
    end,
    fetch,
    in_lease,
    in_stream,
    lease_of,
    limit,
    lock,
    names,
    needing,
    parked,
    promote,
    rate,
    send,
    start,
)

# -- dispatch -------------------------------------------------------------------------------------------------------


async def test_of_one_lock_key_one_job_stands_in_the_stream_and_the_others_are_parked(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    assert (await in_stream(place), await parked(place)) == (["a"], ["b", "c"])
    assert await place.live() == {"a": "q default", "b": "b default", "c": "b default"}
    assert await in_lease(place, lock()) == (set(), ["a", "b", "c"])
    await check_books(place)


async def test_of_a_limit_as_many_as_may_run_stand_in_the_stream(place: Place) -> None:
    await send(place, *(needing(id, limit(3)) for id in "abcde"))
    assert (await in_stream(place), await parked(place)) == (["a", "b", "c"], ["d", "e"])
    await start(place)
    await send(place, needing("f", limit(3)))
    assert sorted(await parked(place)) == ["d", "e", "f"]
    await check_books(place)


async def test_different_keys_hold_up_nobody(place: Place) -> None:
    await send(place, *(needing(id, lock(id)) for id in "abc"), needing("plain"))
    assert await in_stream(place) == ["a", "b", "c", "plain"]


async def test_a_job_that_waits_for_its_time_holds_no_place(place: Place) -> None:
    await send(place, needing("later", lock(), delay=100))
    await send(place, needing("now", lock()))
    assert await in_stream(place) == ["now"]
    await promote(place)
    assert (await in_stream(place), await parked(place)) == (["now"], ["later"])
    await check_books(place)
    assert await drain(place) == ["now", "later"]


async def test_a_second_batch_stands_behind_the_first_one(place: Place) -> None:
    await send(place, *(needing(f"a{n}", lock()) for n in range(3)))
    await send(place, *(needing(f"b{n}", lock()) for n in range(3)))
    assert await drain(place) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert not await place.client.exists(lease_of(place, lock()))


async def test_a_duplicate_takes_no_place(place: Place) -> None:
    await send(place, needing("a", lock(), custom_id=True))
    assert await send(place, needing("a", lock(), custom_id=True)) == {0: "a"}
    assert await in_lease(place, lock()) == (set(), ["a"])


# -- who is let go --------------------------------------------------------------------------------------------------


async def test_whoever_ends_lets_the_next_one_go_into_the_first_lane_with_its_home(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    [a] = await start(place)
    await end(place, a)
    assert (await in_stream(place, FIRST), await parked(place)) == (["b"], ["c"])
    await check_books(place)
    [b] = await fetch(place, FIRST)
    assert (b.envelope.id, b.home) == ("b", "default")


async def test_ten_thousand_in_line_leave_in_their_order(place: Place) -> None:
    await send(place, *(needing(f"{n:05}", limit(200)) for n in range(10_000)))
    assert await place.client.zcard(lease_of(place, limit(200))) == 10_000
    ran: list[str] = []
    while running := await start(place):
        assert len(running) <= 200
        ran += names(running)
        for lane in {one.queue for one in running}:
            await end(place, *(one for one in running if one.queue == lane))
        await promote(place)
    assert ran == [f"{n:05}" for n in range(10_000)]
    await check_books(place)
    assert not await place.client.exists(lease_of(place, limit(200)))


async def test_all_of_many_keys_that_become_free_at_once_go_on(place: Place) -> None:
    for turn in "abc":
        await send(place, *(needing(f"{turn}{n}", lock(str(n))) for n in range(200)))
    running = await start(place)
    assert len(running) == 200
    await end(place, *running)
    ran = names(running)
    while running := await start(place, FIRST, "default"):
        ran += names(running)
        await end(place, *running)
        await (await place.store()).promote(place.keys, "default")
    assert sorted(ran) == sorted(f"{turn}{n}" for turn in "abc" for n in range(200))
    assert await place.live() == {}


async def test_what_one_script_leaves_over_a_promoter_is_told_of(place: Place) -> None:
    for turn in "ab":
        await send(place, *(needing(f"{turn}{n}", lock(str(n))) for n in range(100)))
    running = await start(place)
    pubsub = place.client.pubsub()
    await pubsub.subscribe(place.keys.wake)
    assert (await pubsub.get_message(timeout=20))["type"] == "subscribe"  # type: ignore[index]
    await end(place, *running)
    heard = set[bytes]()
    while b"due" not in heard:
        message = await pubsub.get_message(timeout=20)
        assert message is not None, "nobody was told"
        heard.add(message["data"])
    await pubsub.aclose()
    store, went = await place.store(), len(await in_stream(place, FIRST))
    assert went < 100
    while went < 100:
        await store.promote(place.keys, "default")
        more = len(await in_stream(place, FIRST))
        assert more > went
        went = more
    assert not await place.client.exists(place.keys.outlived)


async def test_large_letters_are_let_go_a_megabyte_at_a_time(place: Place) -> None:
    payload = b'[["' + b"x" * 400_000 + b'"]]'
    await send(place, *(needing(f"a{n}", limit(8)) for n in range(8)))
    running = await start(place)
    for n in range(8):
        await send(place, needing(f"b{n}", limit(8), payload=payload))
    await end(place, *running)
    assert len(await in_stream(place, FIRST)) == 3
    await (await place.store()).promote(place.keys, "default")
    assert len(await in_stream(place, FIRST)) == 6
    assert len(await drain(place)) == 8


async def test_a_cancelled_job_in_line_makes_room_for_those_behind_it(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abcd"))
    assert await cancel(place, "b") is not None
    assert await in_lease(place, lock()) == (set(), ["a", "c", "d"])
    assert await cancel(place, "a") is not None
    assert (await in_stream(place, FIRST), await parked(place)) == (["c"], ["d"])
    await check_books(place)


# -- rows of several lanes ------------------------------------------------------------------------------------------


async def test_a_lane_that_nobody_reads_holds_up_no_other_one(place: Place) -> None:
    await send(place, needing("low", lock(), lane=LOW))
    await send(place, *(needing(id, lock()) for id in "ab"))
    assert (await in_stream(place, LOW), await in_stream(place)) == (["low"], ["a"])
    for id in "ab":
        [running] = await start(place, FIRST, "default")
        assert running.envelope.id == id
        await end(place, running)
    assert names(await start(place, LOW)) == ["low"]


async def test_a_free_lock_is_given_in_the_order_of_arrival_over_the_lanes_of_a_queue(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in ("a", "b", "c")))
    await send(place, *(needing(id, lock(), lane=LOW) for id in ("x", "y")))
    [a] = await start(place, "default")
    assert await start(place, LOW) == []
    assert (await in_lease(place, lock()))[1] == ["b", "c", "x", "y"]
    await end(place, a)
    assert await in_stream(place, FIRST) == ["b"]
    [b] = await start(place, FIRST)
    assert b.envelope.id == "b"
    assert (await in_lease(place, lock()))[1] == ["c", "x", "y"]
    assert (await parked(place), sorted(await parked(place, LOW))) == (["c"], ["x", "y"])
    await check_books(place)
    await end(place, b)
    ran = await drain(place)
    assert ran == ["c", "x", "y"]
    assert await left_but_outcomes(place) == {}


async def left_but_outcomes(place: Place) -> dict[str, object]:
    found = await left(place)
    return {name: value for name, value in found.items() if not name.startswith(("job:", "succeeded:", "cancelled:"))}


async def test_a_row_keeps_its_number(place: Place) -> None:
    for _ in range(2):
        await send(place, needing("a", lock()), needing("b", lock()))
        await send(place, needing("x", lock(), lane=LOW))
        await drain(place)
    rows = {name: n for name, n in (await place.client.hgetall(place.keys.janitor)).items() if name.startswith(b"row")}
    assert rows == {b"rows": b"2", b"row:default": b"1", b"row:default/low": b"2"}


# -- several seats --------------------------------------------------------------------------------------------------


async def test_who_waits_for_its_lock_takes_no_place_among_those_who_wait_for_the_limit(place: Place) -> None:
    await send(place, needing("a", lock("1"), limit(2)), needing("b", lock("1"), limit(2)))
    await send(place, needing("c", lock("2"), limit(2)))
    assert await in_stream(place) == ["a", "c"]
    assert (await in_lease(place, limit(2)))[1] == ["a", "c"]
    running = await start(place)
    assert names(running) == ["a", "c"]
    await end(place, running[1])
    assert await in_stream(place, FIRST) == []
    await end(place, running[0])
    assert await drain(place) == ["b"]
    assert await left_but_outcomes(place) == {}


async def test_who_has_come_through_one_line_waits_in_the_next_one(place: Place) -> None:
    await send(place, needing("x", limit(1)), needing("y", limit(1)))
    await send(place, needing("a", lock(), limit(1)), needing("b", lock(), limit(1)))
    assert sorted(await parked(place)) == ["a", "b", "y"]
    assert (await in_lease(place, lock()))[1] == ["a", "b"]
    assert (await in_lease(place, limit(1)))[1] == ["x", "y", "a"]
    assert await drain(place) == ["x", "y", "a", "b"]


async def test_two_jobs_that_need_the_same_two_seats_never_wait_on_each_other(place: Place) -> None:
    for n in range(20):
        await send(place, needing(f"{n}", lock(str(n % 3)), limit(1)))
    assert sorted(await drain(place), key=int) == [str(n) for n in range(20)]
    assert await left_but_outcomes(place) == {}


async def test_who_is_held_up_at_its_first_seat_again_gives_its_place_at_the_second_one_to_others(place: Place) -> None:
    await send(place, needing("a", lock(), limit(1)))
    await send(place, needing("low", lock(), lane=LOW))
    [low] = await start(place, LOW)
    assert await start(place, "default") == []  # the other lane was faster: it has the lock
    await send(place, needing("c", limit(1)))
    assert names(await start(place, "default")) == ["c"]
    assert (await in_lease(place, limit(1)))[0] == {"c"}
    await end(place, low)


# -- capacities that change -----------------------------------------------------------------------------------------


async def test_a_limit_that_is_raised_lets_more_run_as_soon_as_the_jobs_say_so(place: Place) -> None:
    await send(place, *(needing(f"old{n}", limit(3)) for n in range(4)))
    running = await start(place)
    assert len(running) == 3
    await send(place, *(needing(f"new{n}", limit(5)) for n in range(6)))
    running += await start(place)
    assert names(running[3:]) == ["new0"], "four run, and the one before it may be the third at most"
    ran = list[str]()
    while running:
        assert len((await in_lease(place, limit(5)))[0]) <= 5
        for one in running:
            await end(place, one)
        ran += names(running)
        running = await start(place)
    assert ran[4:] == ["old3", *(f"new{n}" for n in range(1, 6))]


@pytest.mark.parametrize(("before", "after"), [(3, 100), (10, 100), (100, 3)])
async def test_no_job_stays_in_line_when_a_capacity_changes(place: Place, before: int, after: int) -> None:
    await send(place, *(needing(f"a{n:03}", limit(before)) for n in range(before + 5)))
    running = await start(place)
    assert len(running) == before
    await send(place, *(needing(f"b{n:03}", limit(after)) for n in range(120)))
    for one in running:
        await end(place, one)
    ran = await drain(place)
    assert len(ran) == 5 + 120
    assert await left_but_outcomes(place) == {}


async def test_who_leaves_under_a_smaller_capacity_lets_those_go_who_know_of_a_greater_one(place: Place) -> None:
    await send(place, needing("old", limit(1)))
    [old] = await start(place)
    await send(place, *(needing(f"b{n}", limit(3)) for n in range(4)))
    running = await start(place)
    assert names(running) == ["b0", "b1"]
    await end(place, old)
    assert names(await start(place)) == ["b2"], "two run, and its own limit is three"


# -- strangers' data and lost data ----------------------------------------------------------------------------------


async def test_a_strangers_data_under_a_lease_stops_who_needs_it_and_nobody_else(place: Place) -> None:
    await place.client.set(lease_of(place, lock()), "a stranger's")
    await send(place, needing("a", lock()), needing("b", lock("other")), needing("c"))
    assert (await in_stream(place), await parked(place)) == (["b", "c"], ["a"])
    assert await place.client.get(lease_of(place, lock())) == b"a stranger's"
    await check_books(place)


async def test_a_lease_that_turns_strange_while_jobs_run_lets_them_end(place: Place) -> None:
    await send(place, *(needing(id, lock(), limit(2)) for id in "ab"))
    [a] = await start(place)
    await place.client.set(lease_of(place, lock()), "a stranger's")
    assert await end(place, a) == b"1"
    assert await place.live() == {"b": "b default"}


@pytest.mark.parametrize("key", ["stream", "rates", "waiting"])
async def test_a_strangers_data_in_the_first_lane_costs_no_job(place: Place, key: str) -> None:
    await place.client.set(getattr(place.keys.queue(FIRST), key), "a stranger's")
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await start(place, "default")
    assert await end(place, a) == b"1"
    expected = "b default" if key == "stream" else "q default/first"
    assert await place.live() == {"b": expected}


@pytest.mark.parametrize("damage", [b"rubbish", b"work\nn\nt1\n[]", b"work\nn x y\nt1\n[]", None])
async def test_a_damaged_letter_of_the_next_in_line_costs_whoever_ends_nothing(
    place: Place, damage: bytes | None
) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    [a] = await start(place)
    if damage is None:
        await place.client.hdel(place.names.letters, "b")
    else:
        await place.client.hset(place.names.letters, "b", damage)
    assert await end(place, a) == b"1"
    assert await place.live() == {"b": "b default", "c": "b default"}


async def test_nobody_is_called_again_and_again_for_those_who_cannot_go(place: Place) -> None:
    await send(place, *(needing(f"{n:03}", limit(100)) for n in range(100)))
    running = await start(place)
    await send(place, *(needing(f"b{n:03}", limit(100)) for n in range(100)))
    await place.client.set(place.keys.queue(FIRST).stream, "a stranger's")
    assert await end(place, *running) == b"1" * 100
    assert not await place.client.exists(place.keys.outlived)
    await place.client.delete(place.keys.queue(FIRST).stream)
    await end_grace(place)
    await audit(place)
    assert sorted(await drain(place)) == [f"b{n:03}" for n in range(100)]


async def test_lost_numbers_of_rows_and_grants_cost_the_order_and_not_the_lock(place: Place) -> None:
    await send(place, needing("low", lock(), lane=LOW), needing("low2", lock(), lane=LOW))
    await send(place, needing("a", lock()), needing("b", lock()))
    [a] = await start(place, "default")
    await place.client.delete(place.keys.janitor)
    await send(place, needing("c", lock()))
    assert await start(place) == []
    await end(place, a)
    ran = list[str]()
    for _ in range(20):
        running = await start(place)
        assert len(running) <= 1
        for one in running:
            assert one.grant > a.grant
            ran += names([one])
            await end(place, one)
    assert sorted(ran) == ["b", "c", "low", "low2"]


# -- time and permits -----------------------------------------------------------------------------------------------


async def test_a_rate_alone_needs_no_line(place: Place) -> None:
    await send(place, *(needing(id, rate(1000)) for id in "abc"))
    assert await in_stream(place) == ["a", "b", "c"]
    assert not [key async for key in place.client.scan_iter(match=place.keys.prefix.replace("{", "\\{") + "lease:*")]


async def test_a_job_that_steps_back_in_a_row_of_several_stands_before_who_was_never_let_go(place: Place) -> None:
    await send(place, *(needing(id, limit(2)) for id in "abcd"))
    running = await start(place)
    await end(place, *running, how=Released())
    assert (await in_lease(place, limit(2)))[1][2:] == ["c", "d"]
    assert sorted(names(again := await start(place))) == ["a", "b"]
    assert await admit(place, again) == [one.grant for one in again]

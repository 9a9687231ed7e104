"""admit.lua on rates: a token bucket by server time, and a time of its own for whoever finds no permit.

Time passes here by shifting what the server has noted, never by waiting.
"""

from __future__ import annotations

import pytest

from taskrunner.outcome import Again, Failure, Released
from tests.store.cancelling import cancel, purge
from tests.store.conftest import Place
from tests.store.seating import (
    FIRST,
    LANES,
    LOW,
    admit,
    check_books,
    end,
    fetch,
    in_lease,
    in_stream,
    lease_of,
    lock,
    names,
    needing,
    parked,
    promote,
    rate,
    send,
    start,
)

HOUR = 3_600_000.0


def rate_of(place: Place, need: str) -> str:
    return f"{place.keys.prefix}rate:{need[:32]}"


async def due_times(place: Place, lane: str = "default") -> dict[str, float]:
    rows = await place.client.zrange(place.keys.queue(lane).due, 0, -1, withscores=True)
    return {id.decode(): score for id, score in rows}


async def pass_time(place: Place, need: str, milliseconds: float) -> None:
    """As if so much time had passed: all instants that are noted are so much longer ago; and moves what is due."""
    keys = [rate_of(place, need), *(place.keys.queue(lane).due for lane in LANES)]
    for key in keys:
        for member in await place.client.zrange(key, 0, -1):
            await place.client.zincrby(key, -milliseconds, member)
    for lane in LANES:
        await (await place.store()).promote(place.keys, lane)


async def test_as_many_as_the_burst_start_at_once_and_the_others_each_at_a_time_of_their_own(place: Place) -> None:
    need = rate(HOUR, burst=3)
    await send(place, *(needing(f"{n}", need) for n in range(6)))
    before = await place.now()
    assert names(await start(place)) == ["0", "1", "2"]
    after = await place.now()
    times = await due_times(place)
    assert list(times) == ["3", "4", "5"]
    assert before + HOUR <= times["3"] <= after + HOUR + 1
    assert times["4"] - times["3"] == pytest.approx(HOUR, abs=1)
    assert times["5"] - times["4"] == pytest.approx(HOUR, abs=1)
    assert await place.live() == {f"{n}": "q default" if n < 3 else "s default" for n in range(6)}
    await check_books(place)


async def test_a_rate_without_burst_starts_one_per_interval(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(f"{n}", need) for n in range(4)))
    for n in range(4):
        running = await start(place)
        assert names(running) == [f"{n}"]
        await end(place, *running)
        assert await start(place) == []
        await pass_time(place, need, HOUR)
    assert await place.live() == {}


async def test_after_a_rest_the_burst_is_there_again_and_no_more(place: Place) -> None:
    need = rate(HOUR, burst=3)
    for _ in range(2):
        await send(place, *(needing(f"{n}", need) for n in range(5)))
        running = await start(place)
        assert len(running) == 3
        await end(place, *running)
        await purge(place)
        await pass_time(place, need, 100 * HOUR)


async def test_whoever_comes_later_gets_a_later_time_even_if_a_permit_has_come(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(id, need) for id in "abc"))
    await start(place)
    await pass_time(place, need, 1.5 * HOUR)
    await send(place, needing("d", need))
    assert names(await start(place)) == ["b"]
    times = await due_times(place)
    assert list(times) == ["c", "d"]
    assert times["d"] - times["c"] == pytest.approx(HOUR, abs=1)


async def test_whoever_comes_a_little_late_for_its_time_delays_nobody(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(id, need) for id in "abc"))
    await start(place)
    await pass_time(place, need, 1.4 * HOUR)
    assert names(await start(place)) == ["b"]
    await pass_time(place, need, 0.6 * HOUR)
    assert names(await start(place)) == ["c"]


async def test_over_a_long_time_no_more_start_than_the_rate_allows(place: Place) -> None:
    need, started, hours = rate(HOUR, burst=2), 0, 0.0
    await send(place, *(needing(f"{n:02}", need) for n in range(30)))
    for late in (0.0, 1.4, 0.6, 1.3, 0.7, 1.0, 2.9, 0.1, 1.0, 1.45, 0.55, 1.0):
        await pass_time(place, need, late * HOUR)
        hours += late
        running = await start(place)
        started += len(running)
        assert started <= hours + 2 + 0.5
    assert started >= hours - 1


async def test_a_job_that_waited_for_its_permit_and_does_not_get_it_waits_for_another_time(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(id, need) for id in "ab"))
    await start(place)
    await promote(place)  # before its time
    assert await start(place) == []
    assert (await due_times(place))["b"] > await place.now()
    await check_books(place)


async def test_who_waits_for_a_permit_holds_no_seat(place: Place) -> None:
    need = rate(HOUR)
    await send(place, needing("a", need), needing("b", lock(), need), needing("c", lock()))
    assert names([*await start(place), *await start(place)]) == ["a", "c"]
    assert await in_lease(place, lock()) == ({"c"}, [])
    assert await place.live() == {"a": "q default", "b": "s default", "c": "q default/first"}
    await check_books(place)


async def test_who_finds_its_seat_taken_uses_up_no_permit(place: Place) -> None:
    need = rate(HOUR)
    await send(place, needing("a", lock(), need))
    await send(place, needing("x", lock(), lane=LOW))
    await start(place, LOW)
    assert await start(place, "default") == []
    assert not await place.client.exists(rate_of(place, need))


async def test_a_retry_needs_another_permit(place: Place) -> None:
    need = rate(HOUR)
    await send(place, needing("a", need))
    [a] = await start(place)
    await end(place, a, how=Again(0.0, Failure("E", "")))
    await promote(place)
    assert await start(place) == []
    assert await place.live() == {"a": "s default"}


async def test_who_waited_for_its_permit_and_is_handed_back_before_its_start_keeps_its_turn(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(id, need) for id in "ab"))
    await start(place)
    await pass_time(place, need, 0.7 * HOUR)
    await promote(place)
    [b] = await fetch(place)
    assert b.paced
    await end(place, b, how=Released())
    [again] = await fetch(place, FIRST)
    assert again.paced
    assert await admit(place, [again]) != [0]


async def test_the_times_of_jobs_that_were_cancelled_or_purged_are_given_to_others(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(f"{n}", need) for n in range(20)))
    [first] = await start(place)
    assert await purge(place) == 19
    await end(place, first)
    await send(place, needing("next", need))
    assert await start(place) == []
    assert (await due_times(place))["next"] <= await place.now() + HOUR + 1
    assert await cancel(place, "next") is not None
    await send(place, needing("other", need))
    assert await start(place) == []
    assert (await due_times(place))["other"] <= await place.now() + HOUR + 1


async def test_a_clock_that_is_set_back_stops_nobody_for_longer_than_the_rate(place: Place) -> None:
    need = rate(1000.0)
    await send(place, *(needing(f"{n}", need) for n in range(5)))
    await start(place)
    await pass_time(place, need, -HOUR)
    await send(place, needing("next", need))
    assert await start(place) == []
    assert (await due_times(place))["next"] <= await place.now() + 2_000


async def test_a_rate_that_is_raised_counts_at_once(place: Place) -> None:
    await send(place, *(needing(f"{n}", rate(HOUR)) for n in range(5)))
    await start(place)
    await send(place, needing("next", rate(1000.0)))
    assert await start(place) == []
    assert (await due_times(place))["next"] <= await place.now() + 2_000


async def test_a_rate_ends_by_expiry_when_it_is_full_again_and_nobody_waits(place: Place) -> None:
    need = rate(HOUR, burst=2)
    await send(place, *(needing(id, need) for id in "abcd"))
    await start(place)
    assert 2 * HOUR < await place.client.pttl(rate_of(place, need)) <= 2 * HOUR + 1_000
    assert await place.client.zcard(rate_of(place, need)) == 3


async def test_a_strangers_data_under_a_rate_makes_its_jobs_wait_and_costs_none(place: Place) -> None:
    need = rate(1000)
    await place.client.set(rate_of(place, need), "a stranger's")
    await send(place, needing("a", need))
    assert await start(place) == []
    assert await place.live() == {"a": "s default"}
    await place.client.delete(rate_of(place, need))
    await promote(place)
    assert names(await start(place)) == ["a"]


async def test_who_waited_for_its_permit_stands_before_those_who_were_never_asked(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(f"{n}", lock(), need) for n in range(9)))
    [first] = await start(place)
    await end(place, first)
    for _ in range(2):  # the next two are told their times
        assert await start(place) == []
    await pass_time(place, need, 2.2 * HOUR)
    assert (await in_lease(place, lock()))[1] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    await check_books(place)


async def test_jobs_with_a_lock_and_a_rate_run_in_their_order(place: Place) -> None:
    need = rate(HOUR)
    await send(place, *(needing(f"{n}", lock(), need) for n in range(6)))
    ran = list[str]()
    for _ in range(60):
        running = await start(place)
        assert len(running) <= 1
        for one in running:
            ran += names([one])
            await end(place, one)
        if not running:
            await pass_time(place, need, HOUR / 2)
    assert ran == [str(n) for n in range(6)]
    assert await in_stream(place) == await parked(place) == []
    assert not await place.client.exists(lease_of(place, lock()))

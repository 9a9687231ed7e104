"""admit.lua: who has arrived at a worker gets all that it needs or nothing, whoever else asks at the same time."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.errors import RedisConfigurationError
from tests.store.cancelling import cancel
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
    lease_of,
    limit,
    lock,
    names,
    needing,
    rate,
    send,
    start,
)

# -- seats ----------------------------------------------------------------------------------------------------------


async def test_a_job_gets_all_its_seats_under_one_grant(place: Place) -> None:
    await send(place, needing("a", lock(), limit(2)))
    [a] = await start(place)
    assert a.grant > 1_000_000 * 1000
    for need in (lock(), limit(2)):
        assert await place.client.zscore(lease_of(place, need), "a") == -a.grant
    assert await place.live() == {"a": "q default"}


async def test_grants_grow_with_every_hand_over(place: Place) -> None:
    await send(place, *(needing(id, lock(str(n % 2))) for n, id in enumerate("abcdef")))
    grants = list[int]()
    for _ in range(3):
        running = await start(place)
        grants += [one.grant for one in running]
        for one in running:
            await end(place, one)
    assert grants == sorted(set(grants))
    assert len(grants) == 6


async def test_a_grant_grows_on_when_the_last_one_was_lost(place: Place) -> None:
    await send(place, *(needing(id, lock(id)) for id in "ab"))
    [a] = await start(place, count=1)
    await asyncio.sleep(0.002)  # a clock that turned
    await place.client.delete(place.keys.janitor)
    [b] = await start(place)
    assert b.grant > a.grant


async def test_who_finds_one_of_its_seats_taken_takes_none_and_waits_at_its_place(place: Place) -> None:
    await send(place, needing("a", lock("1"), limit(1)))
    await send(place, needing("x", limit(1), lane=LOW))
    [x] = await start(place, LOW)
    assert await start(place, "default") == []
    assert await in_lease(place, lock("1")) == (set(), ["a"])
    assert (await in_lease(place, limit(1)))[0] == {"x"}
    assert (await place.live())["a"] == "b default"
    await check_books(place)
    await end(place, x)
    assert names(await start(place)) == ["a"]


async def test_whoever_was_faster_in_another_lane_has_it_and_the_other_is_next(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    await send(place, needing("x", lock(), lane=LOW))
    [slow] = await fetch(place, "default")
    [x] = await start(place, LOW)
    assert await admit(place, [slow]) == [0]
    assert (await in_lease(place, lock()))[1] == ["a", "b"]
    assert await place.pending() == []
    await end(place, x)
    assert names(await start(place, FIRST)) == ["a"]


async def test_a_stale_token_gets_nothing_and_changes_nothing(place: Place) -> None:
    await send(place, needing("a", lock(), rate(1000)))
    [late] = await fetch(place)
    await place.store("two")
    await place.client.xclaim(place.names.stream, "group", "two", 0, [late.entry_id])
    before = await place.everything()
    assert await admit(place, [late]) == [0]
    assert await admit(place, [late], worker="two") == [0], "its count is another one"
    after = await place.everything()
    assert {key: value for key, value in after.items() if "first" not in key} == before
    late.deliveries = 2
    assert await admit(place, [late], worker="two") != [0]


async def test_an_entry_that_was_settled_or_cancelled_gets_nothing(place: Place) -> None:
    await send(place, needing("a", lock()), needing("b", lock("other")))
    a, b = await fetch(place)
    await admit(place, [a])
    await end(place, a)
    await cancel(place, "b")
    assert await admit(place, [a, b]) == [0, 0]
    assert not await place.client.exists(lease_of(place, lock()), lease_of(place, lock("other")))


async def test_asked_again_after_a_lost_reply_it_grants_again(place: Place) -> None:
    await send(place, needing("a", lock(), limit(1)), needing("b", lock(), limit(1)))
    arrivals = await fetch(place)
    [first], [second] = await admit(place, arrivals), await admit(place, arrivals)
    assert second > first
    assert await in_lease(place, lock()) == ({"a"}, ["b"])
    assert (await in_lease(place, limit(1)))[0] == {"a"}


async def test_the_seats_of_a_dead_worker_are_found_by_whoever_runs_its_job_next(place: Place) -> None:
    await send(place, *(needing(id, lock(), limit(1)) for id in "ab"))
    [a] = await start(place)
    await place.fall_silent(a)
    _, [again] = await (await place.store("two")).reclaim(place.keys, "default", 10)
    [grant] = await admit(place, [again], worker="two")
    assert grant > a.grant
    assert await in_lease(place, lock()) == ({"a"}, ["b"])
    assert await end(place, a) == b"0"
    assert (await in_lease(place, lock()))[0] == {"a"}, "the outcome of the dead one frees nothing"
    assert await end(place, again, worker="two") == b"1"
    assert await drain(place) == ["b"]


async def test_in_a_full_limit_who_runs_finds_its_own_seat_and_no_other_one(place: Place) -> None:
    await send(place, *(needing(id, limit(2)) for id in "abc"))
    running = await start(place)
    again = await admit(place, running)
    assert 0 not in again
    assert await in_lease(place, limit(2)) == ({"a", "b"}, ["c"])


async def test_a_job_that_was_fetched_and_not_admitted_keeps_its_place_when_its_worker_dies(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await fetch(place)
    await place.fall_silent(a)
    _, [again] = await (await place.store("two")).reclaim(place.keys, "default", 10)
    assert await in_lease(place, lock()) == (set(), ["a", "b"])
    assert await admit(place, [again], worker="two") != [0]


async def test_two_hundred_racing_workers_never_get_more_than_there_is_nor_less(place: Place) -> None:
    workers = [f"w{n}" for n in range(8)]
    await send(place, *(needing(f"{n:03}", limit(3)) for n in range(60)))
    ran, most = list[str](), 0
    while len(ran) < 60:
        arrivals = [(worker, one) for worker in workers for one in await fetch(place, FIRST, worker, 1)]
        arrivals += [(worker, one) for worker in workers for one in await fetch(place, "default", worker, 1)]
        assert arrivals
        grants = await asyncio.gather(*(admit(place, [one], worker) for worker, one in arrivals))
        running = [arrival for arrival, grant in zip(arrivals, grants, strict=True) if grant != [0]]
        most = max(most, len(running))
        assert len(running) == min(3, 60 - len(ran)), "never four, and never fewer than three while there are jobs"
        assert len((await in_lease(place, limit(3)))[0]) == len(running)
        await asyncio.gather(*(end(place, one, worker=worker) for worker, one in running))
        ran += [one.envelope.id for _, one in running]
    assert most == 3
    assert sorted(ran) == sorted(set(ran))


@pytest.mark.parametrize("key", ["letters", "due", "parked"])
async def test_a_strangers_data_in_its_home_lane_costs_the_job_its_lane_and_not_its_life(
    place: Place, key: str
) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    await send(place, needing("x", lock(), lane=LOW))
    [a] = await start(place, "default")
    await end(place, a)
    [b] = await fetch(place, FIRST)
    [x] = await start(place, LOW)
    strange = place.keys.prefix + key + ":default"
    await place.client.delete(strange)
    await place.client.set(strange, "a stranger's")
    assert await admit(place, [b]) == [0]
    assert (await place.live())["b"] == ("b default" if key == "parked" else "b " + FIRST)
    await end(place, x)
    assert names(await start(place, FIRST)) == ["b"]


async def test_a_strangers_data_where_a_lane_should_be_is_refused_before_anything_is_written(place: Place) -> None:
    await send(place, needing("a", lock()))
    [a] = await fetch(place)
    await place.client.set(place.names.due, "a stranger's")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError):
        await admit(place, [a])
    assert await place.everything() == before


async def test_a_server_that_is_out_of_memory_admits(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await fetch(place)
    old = (await place.client.config_get("maxmemory"))["maxmemory"]
    await place.client.config_set("maxmemory", 1)
    try:
        assert await admit(place, [a]) != [0]
        assert await end(place, a) == b"1"
        [b] = await fetch(place, FIRST)
        assert await admit(place, [b]) != [0]
        assert await cancel(place, "b") is not None
        assert await (await place.store()).seating.tend(place.keys, "renew", [("b", b.grant, lock())]) == 1
        assert await (await place.store()).seating.tend(place.keys, "free", [("b", b.grant, lock())]) == 1
    finally:
        await place.client.config_set("maxmemory", old)

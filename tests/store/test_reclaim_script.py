"""reclaim.lua: jobs of silent workers change hands, with a new token, and consumers of the dead go."""

from __future__ import annotations

import asyncio
from typing import Any

from taskrunner.envelope import Extra
from taskrunner.outcome import Succeeded
from tests.store.conftest import Place


async def reclaim(place: Place, worker: str = "two", limit: int = 100, **options: Any) -> tuple[bool, list[Any]]:
    return await (await place.store(worker)).reclaim(place.keys, "default", limit, **options)


async def dead_worker(place: Place, count: int, **draft: Any) -> list[Any]:
    """Jobs that worker one fetched before it fell silent."""
    await place.store("two")
    await place.dispatch(*(place.draft(**draft) for _ in range(count)))
    arrivals = await place.fetch("one")
    await place.fall_silent(*arrivals)
    return arrivals


async def test_jobs_of_a_silent_worker_change_hands_and_their_old_tokens_are_stale(place: Place) -> None:
    arrivals = await dead_worker(place, 3)
    more, taken = await reclaim(place)
    assert not more
    assert [one.envelope for one in taken] == [one.envelope for one in arrivals]
    assert await place.pending() == [(one.entry_id.decode(), "two", 2) for one in arrivals]
    assert [one.deliveries for one in taken] == [2, 2, 2]
    assert await place.settle("one", *((one, Succeeded(b"1")) for one in arrivals)) == b"000"
    assert await place.settle("two", *((one, Succeeded(b"1")) for one in taken)) == b"111"


async def test_jobs_of_a_worker_that_beats_stay_where_they_are(place: Place) -> None:
    await dead_worker(place, 0)
    await place.dispatch(place.draft())
    [arrival] = await place.fetch("one")
    await place.fall_silent(arrival, milliseconds=9_000)  # its reservation is ten seconds
    assert await reclaim(place) == (False, [])
    assert await place.pending() == [(arrival.entry_id.decode(), "one", 1)]


async def test_of_many_at_once_one_takes_each_job(place: Place) -> None:
    workers = [f"worker{n}" for n in range(8)]
    for worker in workers:
        await place.store(worker)
    arrivals = await dead_worker(place, 100)
    taken = await asyncio.gather(*(reclaim(place, worker, limit=20) for worker in workers))
    ids = [one.entry_id for _, some in taken for one in some]
    assert len(ids) == len(set(ids))
    assert set(ids) <= {one.entry_id for one in arrivals}
    counts = {row[2] for row in await place.pending()}
    assert counts <= {1, 2}


async def test_a_limit_is_kept_and_the_next_call_goes_on_where_it_ended(place: Place) -> None:
    arrivals = await dead_worker(place, 5)
    seen = list[Any]()
    more = True
    while more:
        more, taken = await reclaim(place, limit=2)
        assert len(taken) <= 2
        seen += taken
    assert [one.entry_id for one in seen] == [one.entry_id for one in arrivals]


async def test_the_dead_are_found_behind_many_that_live(place: Place) -> None:
    await place.store("two")
    for _ in range(2):
        await place.dispatch(*(place.draft() for _ in range(150)))
    arrivals = await place.fetch("one", count=300)
    await place.fall_silent(arrivals[-1])
    more, seen = True, list[Any]()
    while more:
        more, taken = await reclaim(place, limit=10)
        seen += taken
    assert [one.entry_id for one in seen] == [arrivals[-1].entry_id]


async def test_the_fleet_passes_once_per_turn(place: Place) -> None:
    await dead_worker(place, 1)
    _, first = await reclaim(place)
    assert len(first) == 1
    await place.dispatch(place.draft())
    [arrival] = await place.fetch("one")
    await place.fall_silent(arrival)
    await place.client.hset(place.keys.janitor, "next:default", await place.now() + 1000)
    assert await reclaim(place, "three") == (False, [])


async def test_nothing_is_taken_in_the_time_of_grace_after_a_long_silence_of_all(place: Place) -> None:
    await dead_worker(place, 1)
    await place.client.hset(place.keys.janitor, "last", await place.now() - 60_000)
    assert await reclaim(place) == (False, [])
    assert await reclaim(place) == (False, []), "the call itself is a sign of life, and the grace still lasts"
    await place.client.hset(place.keys.janitor, "grace", 0)
    assert len((await reclaim(place))[1]) == 1


async def test_a_clock_that_was_set_back_means_grace_too(place: Place) -> None:
    await dead_worker(place, 1)
    await place.client.hset(place.keys.janitor, "last", await place.now() + 3_600_000)
    assert await reclaim(place) == (False, [])


async def test_a_reservation_of_the_tasks_own_counts_whether_longer_or_shorter(place: Place) -> None:
    await place.store("two")
    await place.dispatch(
        place.draft("plain"),
        place.draft("long", extras={Extra.RESERVATION: 60_000}),
        place.draft("short", extras={Extra.RESERVATION: 2_000}),
    )
    arrivals = await place.fetch("one")
    await place.fall_silent(*arrivals, milliseconds=5_000)
    _, taken = await reclaim(place)
    assert [one.envelope.id for one in taken] == ["short"]
    await place.fall_silent(*arrivals[:2], milliseconds=30_000)
    _, taken = await reclaim(place)
    assert [one.envelope.id for one in taken] == ["plain"]
    await place.fall_silent(arrivals[1], milliseconds=61_000)
    _, taken = await reclaim(place)
    assert [one.envelope.id for one in taken] == ["long"]


async def test_what_is_pending_but_gone_from_the_stream_is_acknowledged(place: Place) -> None:
    arrivals = await dead_worker(place, 2)
    await place.client.xdel(place.names.stream, arrivals[0].entry_id)
    _, taken = await reclaim(place)
    assert [one.entry_id for one in taken] == [arrivals[1].entry_id]
    assert [row[0] for row in await place.pending()] == [arrivals[1].entry_id.decode()]


async def test_a_worker_takes_one_job_at_its_last_run_at_a_time(place: Place) -> None:
    arrivals = await dead_worker(place, 3)
    _, taken = await reclaim(place, last=2)
    assert len(taken) == 1
    assert sorted(row[2] for row in await place.pending()) == [1, 1, 2]
    rest = [one for one in arrivals if one.entry_id != taken[0].entry_id]
    await place.fall_silent(*rest)
    assert (await reclaim(place, last=2, busy=True))[1] == []
    await place.client.hdel(place.keys.janitor, "next:default")
    _, taken = await reclaim(place, last=2, busy=False)
    assert len(taken) == 1, "what was left alone is still to be had, at once"


async def test_a_job_that_is_left_for_another_worker_is_not_in_the_hands_of_who_left_it(place: Place) -> None:
    arrivals = await dead_worker(place, 2)
    assert (await reclaim(place, last=2, busy=True))[1] == []
    assert await (await place.store("two")).sweep(place.keys, "default") == [], (
        "it would run with a count that was used"
    )
    await place.client.hdel(place.keys.janitor, "next:default")
    assert len((await reclaim(place, "three", last=2))[1]) == 1
    await place.client.hdel(place.keys.janitor, "next:default")
    assert len((await reclaim(place, "four", last=2))[1]) == 1
    assert sorted(await place.pending()) == [
        (arrivals[0].entry_id.decode(), "three", 2),
        (arrivals[1].entry_id.decode(), "four", 2),
    ]
    names = {row["name"] for row in await place.client.xinfo_consumers(place.names.stream, "group")}
    assert names <= {b"two", b"three", b"four", b"parked"}
    await (await place.store("two")).leave(place.keys, ["default"])
    names = {row["name"] for row in await place.client.xinfo_consumers(place.names.stream, "group")}
    assert names == {b"three", b"four"}


async def test_a_full_pass_removes_consumers_of_dead_workers_and_their_registration(place: Place) -> None:
    [arrival] = await dead_worker(place, 1)
    store = await place.store("two")
    await place.client.zadd(place.keys.workers, {"one": 1, "two": await place.now() + 60_000})
    await place.client.hset(place.keys.worker_facts, "one", "{}")
    await reclaim(place)
    assert await place.client.zrange(place.keys.workers, 0, -1) == [b"two"]
    assert not await place.client.hexists(place.keys.worker_facts, "one")
    names = {row["name"] for row in await place.client.xinfo_consumers(place.names.stream, "group")}
    assert names == {b"two"}
    assert store.options.worker_id == "two"
    assert len(await place.pending()) == 1, arrival


async def test_a_consumer_with_pending_entries_is_never_removed(place: Place) -> None:
    await place.dispatch(place.draft(), place.draft())
    arrivals = await place.fetch("one")
    await place.fall_silent(arrivals[0])
    await reclaim(place)
    rows = {row["name"]: row["pending"] for row in await place.client.xinfo_consumers(place.names.stream, "group")}
    assert rows == {b"one": 1, b"two": 1}

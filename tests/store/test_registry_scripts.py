"""sweep.lua, leave.lua and lead.lua: what a worker still holds, how it signs off, and who evaluates."""

from __future__ import annotations

from tests.store.conftest import Place
from tests.waiting import eventually

# -- sweep -----------------------------------------------------------------------------------------------------------


async def test_a_sweep_finds_all_that_is_pending_for_the_worker_and_nothing_else(place: Place) -> None:
    await place.dispatch(*(place.draft(f"job{n}") for n in range(6)))
    mine, others = await place.fetch("one", count=4), await place.fetch("two", count=1)
    before = await place.everything()
    found = await (await place.store("one")).sweep(place.keys, "default")
    assert [(one.entry_id, one.envelope, one.deliveries) for one in found] == [
        (one.entry_id, one.envelope, 1) for one in mine
    ]
    assert others[0].entry_id not in [one.entry_id for one in found]
    assert await place.everything() == before


async def test_a_sweep_goes_through_any_number(place: Place) -> None:
    for _ in range(3):
        await place.dispatch(*(place.draft() for _ in range(150)))
    arrivals = await place.fetch("one", count=450)
    found = await (await place.store("one")).sweep(place.keys, "default")
    assert [one.entry_id for one in found] == [one.entry_id for one in arrivals]


async def test_what_a_sweep_finds_is_taken_by_nobody_for_a_reservation(place: Place) -> None:
    await place.store("two")
    await place.dispatch(place.draft())
    [arrival] = await place.fetch("one")
    await place.fall_silent(arrival)
    [found] = await (await place.store("one")).sweep(place.keys, "default")
    assert await (await place.store("two")).reclaim(place.keys, "default", 100) == (False, [])
    assert await place.pending() == [(found.entry_id.decode(), "one", 1)]


async def test_a_sweep_shows_an_entry_that_is_gone_without_its_fields(place: Place) -> None:
    await place.dispatch(place.draft())
    [arrival] = await place.fetch("one")
    await place.client.xdel(place.names.stream, arrival.entry_id)
    [found] = await (await place.store("one")).sweep(place.keys, "default")
    assert (found.entry_id, found.raw) == (arrival.entry_id, [])


async def test_a_sweep_on_an_emptied_server_finds_nothing(place: Place) -> None:
    store = await place.store("one")
    await place.client.delete(place.names.stream)
    assert await store.sweep(place.keys, "default") == []


# -- leave -----------------------------------------------------------------------------------------------------------


async def registered(place: Place, *workers: str) -> None:
    for worker in workers:
        await place.client.zadd(place.keys.workers, {worker: await place.now() + 60_000})
        await place.client.hset(place.keys.worker_facts, worker, "{}")


async def test_a_worker_that_holds_nothing_leaves_nothing_behind(place: Place) -> None:
    await place.dispatch(place.draft())
    await place.fetch("two")
    await place.fetch("one")
    await registered(place, "one", "two")
    assert await (await place.store("one")).leave(place.keys, ["default", "never-made"]) == 0
    assert await place.client.zrange(place.keys.workers, 0, -1) == [b"two"]
    assert await place.client.hkeys(place.keys.worker_facts) == [b"two"]
    assert [row["name"] for row in await place.client.xinfo_consumers(place.names.stream, "group")] == [b"two"]


async def test_the_consumer_of_a_worker_that_still_holds_jobs_stays_with_them(place: Place) -> None:
    await place.dispatch(place.draft())
    [arrival] = await place.fetch("one")
    await registered(place, "one")
    assert await (await place.store("one")).leave(place.keys, ["default"]) == 1
    assert await place.pending() == [(arrival.entry_id.decode(), "one", 1)]
    assert not await place.client.exists(place.keys.workers)


# -- lead ------------------------------------------------------------------------------------------------------------


async def test_one_leads_and_keeps_it_and_another_follows_when_the_time_is_over(place: Place) -> None:
    one, two = await place.store("one"), await place.store("two")
    assert await one.lead(100)
    assert not await two.lead(100)
    assert await one.lead(200), "it renews"
    assert 190_000 < await place.client.pttl(place.keys.leader) <= 200_000
    assert await one.lead(0.05)

    async def two_leads() -> bool:
        return await two.lead(100)

    await eventually(two_leads)
    assert not await one.lead(100)

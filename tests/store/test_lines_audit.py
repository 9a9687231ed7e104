"""audit.lua on lines: whatever is deleted, by operators or by eviction, nobody waits for a seat that nobody has."""

from __future__ import annotations

import pytest

from taskrunner.store.scripts import VACATE
from taskrunner.store.survey import Survey, survey
from tests.store.auditing import audit, dead, end_grace
from tests.store.cancelling import cancel
from tests.store.conftest import Place
from tests.store.seating import (
    FIRST,
    LOW,
    check_books,
    drain,
    end,
    fetch,
    in_lease,
    in_stream,
    lease_of,
    limit,
    lock,
    lose,
    names,
    needing,
    parked,
    send,
    start,
)


async def line(place: Place, need: str = lock(), ids: str = "abc") -> None:
    await send(place, *(needing(id, need) for id in ids))
    await end_grace(place)


@pytest.mark.parametrize("seats", [lock(), limit(1)])
async def test_a_line_that_moves_is_left_alone(place: Place, seats: str) -> None:
    await line(place, seats)
    await start(place)
    before = await place.live()
    for how in ("look", "mend"):
        found = await audit(place, how)
        assert (found.readded, found.orphaned, await place.live()) == (set(), set(), before)


@pytest.mark.parametrize("has_run", [True, False], ids=["that ran", "in the stream"])
async def test_when_the_first_one_is_lost_the_next_one_goes(place: Place, has_run: bool) -> None:
    await line(place)
    if has_run:
        await start(place)
    await lose(place, "a")
    assert (await audit(place, "look")).readded >= {"b"}
    assert await parked(place) == ["b", "c"]
    assert (await audit(place)).readded >= {"b"}
    assert await in_stream(place, FIRST) == ["b"]
    assert (await in_lease(place, lock()))[1] == ["b", "c"]
    assert await drain(place) == ["b", "c"]
    assert not await place.client.exists(lease_of(place, lock()))


async def test_a_job_whose_entry_is_deleted_while_others_wait_is_ended_and_they_go_on(place: Place) -> None:
    await line(place)
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    orphaned = set[str]()
    for _ in range(2):
        orphaned |= (await audit(place)).orphaned
    assert orphaned == {"a"}
    assert (await dead(place, "a")).reason == "orphaned"
    assert await drain(place) == ["b", "c"]


async def test_of_one_in_line_whose_letter_is_deleted_a_dead_letter_is_left_and_the_others_go_on(place: Place) -> None:
    await line(place, ids="abcd")
    await place.client.hdel(place.names.letters, "b")
    assert (await audit(place)).orphaned == {"b"}
    assert (await dead(place, "b")).reason == "orphaned"
    [a] = await start(place)
    await end(place, a)
    await audit(place)
    assert await drain(place) == ["c", "d"]
    await audit(place)
    await check_books(place)


@pytest.mark.parametrize("damage", [b"work\nn x\nt1\n[]", b"rubbish"])
async def test_one_in_line_whose_letter_is_damaged_holds_nobody_up(place: Place, damage: bytes) -> None:
    await line(place, ids="abc")
    await place.client.hset(place.names.letters, "b", damage)
    [a] = await start(place)
    await end(place, a)
    for _ in range(3):
        await audit(place)
    assert await drain(place) == ["c"]


async def test_when_the_lease_is_deleted_all_run_in_the_end_and_two_never_at_once(place: Place) -> None:
    await line(place, ids="abcd")
    await send(place, needing("x", lock(), lane=LOW))
    await place.client.delete(lease_of(place, lock()))
    ran = list[str]()
    for _ in range(20):
        running = await start(place)
        assert len(running) <= 1
        for one in running:
            await end(place, one)
        ran += names(running)
        await audit(place)
    assert sorted(ran) == ["a", "b", "c", "d", "x"]
    assert not await place.client.exists(lease_of(place, lock()))
    await check_books(place)


async def test_when_a_place_in_line_is_deleted_the_job_gets_another_one(place: Place) -> None:
    await line(place)
    await place.client.zrem(lease_of(place, lock()), "b")
    await audit(place)
    assert (await in_lease(place, lock()))[1] == ["a", "c", "b"]
    assert sorted(await drain(place)) == ["a", "b", "c"]


async def test_a_job_that_a_look_at_another_one_let_go_is_judged_by_how_it_is_now(place: Place) -> None:
    await line(place)
    record = await place.client.hget(place.keys.live, "b")
    await place.client.hdel(place.keys.live, "b")
    await place.client.hset(place.keys.live, "b", record)  # looked at behind "c", in the same page
    await lose(place, "a")
    found = await audit(place)
    assert (found.readded, found.orphaned) == ({"b"}, set())
    assert await drain(place) == ["b", "c"]


async def test_the_rows_of_all_lanes_are_looked_at(place: Place) -> None:
    await send(place, *(needing(f"a{n}", lock()) for n in range(3)))
    await send(place, *(needing(f"x{n}", lock(), lane=LOW) for n in range(3)))
    await end_grace(place)
    await lose(place, "a0")
    await lose(place, "x0")
    for _ in range(3):
        await audit(place)
    assert await in_stream(place, FIRST) == ["a1", "x1"]


async def test_of_a_limit_all_places_of_lost_jobs_are_given_away(place: Place) -> None:
    await line(place, limit(3), "abcdefgh")
    await start(place)
    for id in "abd":
        await lose(place, id)
    await audit(place)
    assert names(await start(place)) == ["e", "f"]
    assert (await in_lease(place, limit(3)))[0] == {"c", "e", "f"}


async def test_an_entry_that_nobody_would_get_keeps_its_place(place: Place) -> None:
    await line(place)
    await fetch(place)
    await place.client.xgroup_delconsumer(place.names.stream, "group", "one")
    assert (await audit(place)).readded == {"a"}
    assert await drain(place) == ["a", "b", "c"]


async def test_a_strangers_lease_is_left_alone_and_its_jobs_go_on_when_it_is_gone(place: Place) -> None:
    await place.client.set(lease_of(place, lock()), "a stranger's")
    await line(place)
    found = await audit(place)
    assert (found.readded, found.orphaned) == (set(), set())
    await place.client.delete(lease_of(place, lock()))
    await audit(place)
    assert sorted(await drain(place)) == ["a", "b", "c"]


async def test_a_look_writes_nothing_even_without_the_numbers_of_rows(place: Place) -> None:
    await line(place)
    await lose(place, "a")
    await place.client.delete(place.keys.janitor)
    before = await place.everything()
    await audit(place, "look")
    assert await place.everything() == before


async def test_ten_thousand_in_line_are_audited_in_pages(place: Place) -> None:
    await send(place, *(needing(f"{n:05}", lock()) for n in range(10_000)))
    await end_grace(place)
    await lose(place, "00000")
    found = await audit(place)
    assert found.readded >= {"00001"}
    assert found.orphaned == set()
    assert await in_stream(place, FIRST) == ["00001"]
    assert found.pages > 50


# -- those whom nobody waits behind: an operator's repair -----------------------------------------------------------


async def vacate(place: Place, *needs: str, mend: bool) -> int:
    link = (await place.store()).control(place.keys)
    keys = [place.keys.live, place.keys.queues, place.keys.janitor, *(lease_of(place, need) for need in needs)]
    return int(await link.run(VACATE, keys, [int(mend), place.keys.prefix, place.keys.wake]))


async def test_the_seats_and_places_of_lost_jobs_are_counted_and_freed(place: Place) -> None:
    await send(place, *(needing(id, lock(), limit(2)) for id in "ab"), needing("c", limit(2)))
    await start(place)
    await lose(place, "a")
    await lose(place, "c")
    assert await vacate(place, lock(), limit(2), mend=False) == 3
    assert await in_stream(place, FIRST) == []
    assert await vacate(place, lock(), limit(2), mend=True) == 3
    assert await vacate(place, lock(), limit(2), mend=True) == 0
    assert await drain(place) == ["b"]


async def test_the_seats_of_jobs_and_of_their_runs_are_left_alone(place: Place) -> None:
    await send(place, *(needing(id, limit(2)) for id in "abcd"))
    [a, _] = await start(place)
    await cancel(place, "a")
    before = await place.everything()
    assert await vacate(place, limit(2), lock("nobody"), mend=True) == 0
    assert await place.everything() == before
    await place.client.delete(place.keys.outlived)
    assert await vacate(place, limit(2), mend=True) == 1
    assert names(await start(place)) == ["c"]
    assert a.grant


async def test_a_strangers_lease_is_no_lease(place: Place) -> None:
    await place.client.set(lease_of(place, lock()), "a stranger's")
    assert await vacate(place, lock(), mend=True) == 0


async def test_a_lock_whose_only_job_is_lost_is_counted_and_freed(place: Place) -> None:
    store = await place.store()
    await send(place, needing("lost", lock("one")), needing("there", lock("two")))
    await place.client.hdel(place.keys.live, "lost")
    known = Survey()
    await survey(store.control(place.keys), [place.keys], known)
    assert known.seats == 1
    assert await place.client.hlen(place.keys.alone) == 2, "a look frees nothing"
    known = Survey()
    await survey(store.control(place.keys), [place.keys], known, repair=True)
    assert known.seats == 1
    assert await in_lease(place, lock("one")) == (set(), [])
    assert await in_lease(place, lock("two")) == (set(), ["there"])

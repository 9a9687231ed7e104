"""audit.lua on parked jobs: nothing waits for ever for a job that is gone."""

from __future__ import annotations

import pytest

from tests.store.auditing import audit, dead, end_grace
from tests.store.conftest import Place
from tests.store.test_place_script import end, latest, send, tallies, waits


async def parked_pair(place: Place) -> None:
    await send(place, latest(place, "a", 1))
    await send(place, latest(place, "b", 2))
    await end_grace(place)


async def test_the_audit_leaves_a_parked_job_alone_whose_holder_lives(place: Place) -> None:
    await parked_pair(place)
    before = await place.live()
    found = await audit(place)
    assert (found.readded, found.orphaned, await place.live()) == (set(), set(), before)


@pytest.mark.parametrize("evicted", ["live record", "key", "record and key"])
async def test_the_audit_wakes_a_parked_job_whose_holder_is_gone(place: Place, evicted: str) -> None:
    await parked_pair(place)
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    if "record" in evicted:
        await place.client.hdel(place.keys.live, "a")
    if "key" in evicted:
        await place.client.delete(place.keys.unique("digest"))
    assert (await audit(place, "look")).readded == {"b"}
    assert (await place.live())["b"] == "b default"
    assert (await audit(place)).readded == {"b"}
    assert (await place.live())["b"] == "q default"
    assert await place.client.get(place.keys.unique("digest")) == b"b"
    assert not await place.client.exists(place.keys.next("digest"))


async def test_the_audit_ends_a_holder_whose_entry_is_gone_and_wakes_who_waited_for_it(place: Place) -> None:
    await parked_pair(place)
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    for _ in range(2):  # the record of the one may be looked at after that of the other
        await audit(place)
    assert await place.live() == {"b": "q default"}
    assert (await dead(place, "a")).reason == "orphaned"


async def test_who_goes_on_as_the_audit_ends_the_holder_is_not_ended_too(place: Place) -> None:
    await send(place, latest(place, "a", 1, delay=100))
    await end_grace(place)
    await place.client.hset(place.keys.live, "a", "r default")  # it has run, and waits for its next run
    await send(place, latest(place, "b", 2))
    assert (await place.live())["b"] == "b default"
    await place.client.zrem(place.names.due, "a")
    auditor = (await place.store("two")).auditor(place.keys)
    page = await auditor.page("mend", "live  0,0")  # as if its time was deleted right behind the pages of times
    assert ([id for _, id in page.orphaned], page.cursor) == (["a"], "")
    assert await place.live() == {"b": "q default"}
    assert (await dead(place, "a")).reason == "orphaned"
    await end(place, (await place.fetch())[0])


async def test_the_audit_puts_a_place_back_that_somebody_deleted(place: Place) -> None:
    await parked_pair(place)
    await place.client.delete(place.keys.next("digest"))
    await audit(place)
    await end(place, (await place.fetch())[0])
    assert await place.live() == {"b": "q default"}


async def test_the_audit_ends_a_parked_job_whose_place_has_gone_to_another(place: Place) -> None:
    await parked_pair(place)
    await place.client.delete(place.keys.next("digest"))
    await send(place, latest(place, "c", 3))
    assert (await audit(place)).orphaned == {"b"}
    assert await tallies(place) == {"b work": 1}
    await end(place, (await place.fetch())[0])
    assert await place.live() == {"c": "q default"}


@pytest.mark.parametrize("damage", [None, b"rubbish", b"work\n\nt1\nno letter"])
async def test_the_audit_ends_a_parked_job_whose_letter_is_gone_or_damaged(place: Place, damage: bytes | None) -> None:
    await parked_pair(place)
    if damage is None:
        await place.client.hdel(place.names.letters, "b")
    else:
        await place.client.hset(place.names.letters, "b", damage)
    assert (await audit(place)).orphaned == {"b"}
    assert await place.live() == {"a": "q default"}
    assert (await dead(place, "b")).reason == "orphaned"
    await audit(place)
    assert not await place.client.exists(*waits(place))
    await end(place, (await place.fetch())[0])
    assert await send(place, latest(place, "c", 3)) is None
    assert not await place.client.exists(place.keys.next("digest"))


async def test_the_audit_puts_the_list_of_parked_jobs_right(place: Place) -> None:
    await parked_pair(place)
    listed = place.keys.prefix + "parked:default"
    await place.client.delete(listed)
    await place.client.zadd(listed, {"a": 1, "long gone": 2})
    await audit(place)
    assert await place.client.zrange(listed, 0, -1) == [b"b"]


async def test_a_letter_that_nobody_knows_is_found_beside_parked_jobs(place: Place) -> None:
    await parked_pair(place)
    await place.dispatch(place.draft("delayed", delay=100))
    await place.client.zrem(place.names.due, "delayed")
    await place.client.hdel(place.keys.live, "delayed")
    assert (await audit(place)).orphaned == {"delayed"}
    assert (await place.live())["b"] == "b default"

"""trim.lua: the audit trail loses what is old, and never what has not finished."""

from __future__ import annotations

import pytest

from taskrunner.errors import RedisUnavailable
from taskrunner.outcome import Succeeded
from taskrunner.store.scripts import TRIM
from taskrunner.store.store import TRIMMED, Store
from tests.store.conftest import Place

HOUR = 3_600_000


async def trail(place: Place, *ages: int) -> tuple[Store, list[str]]:
    """A trail with entries of these ages in hours; those that were fetched are pending for worker one."""
    store = await place.store("one", delete_on_ack=False, audit_age=36 * 3600.0)
    now = await place.now()
    ids = [f"{now - age * HOUR}-0" for age in ages]
    for id in ids:
        await place.client.xadd(place.names.stream, {"t1": b'["x","work",1,0]\n[[]]'}, id=id)
    return store, ids


async def left(place: Place) -> list[str]:
    return [id.decode() for id, _ in await place.client.xrange(place.names.stream)]


async def test_finished_entries_go_when_they_are_old_enough(place: Place) -> None:
    store, ids = await trail(place, 50, 40, 30, 1)
    await place.settle("one", *((one, Succeeded(None)) for one in await place.fetch("one")))
    assert await place.client.hget(place.names.rates, "kept") == b"4"
    assert await store.trim(place.keys, "default") == 2
    assert await left(place) == ids[2:]
    assert await place.client.hget(place.names.rates, "kept") == b"2"
    assert await store.trim(place.keys, "default") == 0


async def test_nothing_at_or_after_an_entry_that_is_still_running_goes(place: Place) -> None:
    store, ids = await trail(place, 60, 55, 50, 45)
    arrivals = await place.fetch("one")
    await place.settle("one", *((one, Succeeded(None)) for n, one in enumerate(arrivals) if n != 1))
    assert await store.trim(place.keys, "default") == 1
    assert await left(place) == ids[1:]


async def test_what_nobody_has_read_yet_stays_however_old(place: Place) -> None:
    store, ids = await trail(place, 60, 55, 50, 45)
    assert await store.trim(place.keys, "default") == 0
    [first, second] = await place.fetch("one", count=2)
    await place.settle("one", (first, Succeeded(None)), (second, Succeeded(None)))
    assert await store.trim(place.keys, "default") == 1, "the last that was read is the border"
    assert await left(place) == ids[1:]


async def test_one_call_removes_two_thousand_at_most_and_the_store_goes_on_until_all_is_gone(place: Place) -> None:
    store = await place.store("one", delete_on_ack=False, audit_age=3600.0)
    old, client = await place.now() - 2 * HOUR, place.client
    async with client.pipeline(transaction=False) as pipe:
        for n in range(5_250):
            pipe.xadd(place.names.stream, {"t1": b'["x","work",1,0]\n[[]]'}, id=f"{old}-{n}")
        await pipe.execute()
    await client.xadd(place.names.stream, {"t1": b'["x","work",1,0]\n[[]]'})
    await client.xgroup_setid(place.names.stream, "group", "$")  # as if all had been read and settled
    keys = [place.names.stream, place.names.rates]
    first = await client.eval(TRIM.text, 2, *keys, "group", HOUR, TRIMMED)
    assert 1_900 <= first <= TRIMMED
    assert await client.xlen(place.names.stream) == 5_251 - first
    assert await store.trim(place.keys, "default") == 5_250 - first
    assert await client.xlen(place.names.stream) == 1
    assert await client.hget(place.names.rates, "kept") == b"-5250"


async def test_a_stream_or_group_that_is_gone_is_an_outage_and_no_crash(place: Place) -> None:
    store, _ = await trail(place)
    await place.client.delete(place.names.stream)
    with pytest.raises(RedisUnavailable):
        await store.trim(place.keys, "default")

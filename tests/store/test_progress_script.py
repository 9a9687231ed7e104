"""progress.lua keeps how far runs are, of those only that still have their jobs; observe.lua reads it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from taskrunner.envelope import Delivery
from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Succeeded
from taskrunner.store import progress
from taskrunner.store.progress import Report
from taskrunner.store.saved import LIFETIME
from taskrunner.store.wire import Ended
from tests.store.conftest import Place
from tests.waiting import eventually

REPORT: Report = (1, 2, "text")


async def write(place: Place, *reports: tuple[Delivery, Report], worker: str = "one") -> None:
    store = await place.store(worker)
    await progress.write(store.control(place.keys), place.keys, "group", worker, reports)


async def kept(place: Place, id: str) -> Report | None:
    found = progress.read(await place.client.get(place.keys.progress(id)))
    return None if found is None else found[0]


async def running(place: Place, *ids: str) -> list[Any]:
    await place.store()
    await place.dispatch(*(place.draft(id) for id in ids))
    return await place.fetch()


async def test_each_report_of_a_batch_is_kept_with_the_servers_time(place: Place) -> None:
    one, two = await running(place, "one", "two")
    before = await place.now()
    await write(place, (one, REPORT), (two, (3.5, None, None)))
    assert await kept(place, "one") == REPORT
    found = progress.read(await place.client.get(place.keys.progress("two")))
    assert found is not None
    assert found[0] == (3.5, None, None)
    assert before <= found[1] <= await place.now()
    assert LIFETIME - 10 < await place.client.ttl(place.keys.progress("one")) <= LIFETIME


async def test_the_later_report_takes_the_place_of_the_one_before(place: Place) -> None:
    [one] = await running(place, "one")
    await write(place, (one, REPORT))
    await write(place, (one, (2, 2, None)))
    assert await kept(place, "one") == (2, 2, None)


@pytest.mark.parametrize("stale", ["count", "worker", "settled"])
async def test_of_a_run_that_has_lost_its_job_nothing_is_written(place: Place, stale: str) -> None:
    one, two = await running(place, "one", "two")
    delivery, worker = one, "one"
    if stale == "count":
        delivery = dataclasses.replace(one, deliveries=2)
    elif stale == "worker":
        worker = "two"
    else:
        await place.settle("one", (one, Succeeded(b"1")))
    await write(place, (delivery, REPORT), (two, REPORT), worker=worker)
    assert await kept(place, "one") is None
    assert await kept(place, "two") == (REPORT if worker == "one" else None), "each is its own"


async def test_what_a_stranger_has_under_the_name_stays_and_the_others_are_kept(place: Place) -> None:
    one, two = await running(place, "one", "two")
    await place.client.hset(place.keys.progress("one"), "strange", "1")
    await place.client.set(place.keys.watchers, "strange")
    await write(place, (one, REPORT), (two, REPORT))
    assert await place.client.hgetall(place.keys.progress("one")) == {b"strange": b"1"}
    assert await kept(place, "two") == REPORT


async def test_those_who_watch_are_told_and_go_on_watching(place: Place) -> None:
    one, two = await running(place, "one", "two")
    await place.client.hset(place.keys.watchers, "one", "here there")
    async with place.client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe("here", "there")
        heard = list[tuple[bytes, bytes]]()

        async def both() -> bool:
            message = await listener.get_message(timeout=0.1)
            if message is not None:
                heard.append((message["channel"], message["data"]))
            return len(heard) == 2

        await write(place, (two, REPORT), (one, REPORT))
        await eventually(both)
    assert sorted(heard) == [(b"here", b"progress one"), (b"there", b"progress one")]
    assert await place.client.hget(place.keys.watchers, "one") == b"here there"


async def test_two_hundred_reports_go_in_one_call(place: Place) -> None:
    arrivals = await running(place, *(f"job-{n}" for n in range(200)))
    arrivals += await place.fetch()
    assert len(arrivals) == 200
    await write(place, *((one, (n, 200, None)) for n, one in enumerate(arrivals)))
    assert await kept(place, arrivals[199].envelope.id) == (199, 200, None)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"1", b"1 [1]", b"1 {}", b'x [1,2,"a"]', b'1 ["1",2,null]', b"1 [1,2,3]", b"\xff"]
)
def test_what_is_no_report_is_none(data: bytes) -> None:
    assert progress.read(data) is None


# -- observe.lua -----------------------------------------------------------------------------------------------------


async def test_who_observes_a_live_job_sees_its_report_and_is_on_the_list_of_those_to_tell(place: Place) -> None:
    [one] = await running(place, "one")
    await write(place, (one, REPORT))
    inspection = (await place.store()).inspection
    for _ in range(2):
        seen = await inspection.observe(place.keys, "one", "here")
        assert seen is not None
        assert progress.read(seen[1]) is not None
        assert seen[0] == await inspection.look(place.keys, "one")
    assert await inspection.observe(place.keys, "one", "there") is not None
    assert await place.client.hget(place.keys.watchers, "one") == b"here there"


async def test_who_observes_a_job_that_has_ended_or_never_was_is_on_no_list(place: Place) -> None:
    [one] = await running(place, "one")
    await place.settle("one", (one, Succeeded(b"1")))
    inspection = (await place.store()).inspection
    seen = await inspection.observe(place.keys, "one", "here")
    assert seen is not None
    assert isinstance(seen[0], Ended)
    assert seen[1] is None
    assert await inspection.observe(place.keys, "nobody", "here") is None
    assert not await place.client.exists(place.keys.watchers)


async def test_foreign_data_under_the_names_of_a_job_is_told(place: Place) -> None:
    inspection = (await place.store()).inspection
    await place.client.hset(place.keys.job("one"), "strange", "1")
    with pytest.raises(RedisConfigurationError, match="foreign data"):
        await inspection.observe(place.keys, "one", "here")

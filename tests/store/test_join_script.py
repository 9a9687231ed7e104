"""join.lua: streams and groups are there when a worker begins to read, whatever was there before."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.errors import RedisConfigurationError
from tests.store.conftest import PATIENCE, Place

QUEUES = ["default", "mail"]


async def groups(place: Place, queue: str) -> list[bytes]:
    return [row["name"] for row in await place.client.xinfo_groups(place.keys.queue(queue).stream)]


async def test_streams_and_groups_are_made_and_the_queues_are_known(place: Place) -> None:
    store = await place.store()
    await store.prepare(place.keys, QUEUES)
    assert [await groups(place, queue) for queue in QUEUES] == [[b"group"], [b"group"]]
    assert await place.client.smembers(place.keys.queues) == {b"default", b"mail"}


async def test_what_was_dispatched_before_is_read(place: Place) -> None:
    await place.dispatch(place.draft("early"))
    await place.client.xgroup_destroy(place.names.stream, "group")
    store = await place.store()
    await store.prepare(place.keys, ["default"])
    assert [one.envelope.id for one in await place.fetch()] == ["early"]


async def test_a_group_that_is_there_stays_as_it_is(place: Place) -> None:
    await place.dispatch(place.draft("one"), place.draft("two"))
    await place.fetch(count=1)
    store = await place.store()
    await store.prepare(place.keys, ["default"])
    assert len(await place.pending()) == 1
    assert [one.envelope.id for one in await place.fetch()] == ["two"]


async def test_a_stream_of_strangers_is_left_alone_and_the_others_can_be_read(place: Place) -> None:
    store, foreign = await place.store(), place.keys.queue("mail").stream
    await place.client.set(foreign, "foreign")
    found = await store.prepare(place.keys, ["new", "mail", "default"])
    assert (found.lanes, found.foreign) == (["new", "mail", "default"], ["mail"])
    assert await groups(place, "new") == [b"group"]
    assert await place.client.smembers(place.keys.queues) == {b"default", b"new"}
    assert await place.client.get(foreign) == b"foreign"


async def test_when_strangers_hold_all_streams_it_is_told_by_their_names(place: Place) -> None:
    store = await place.store()
    await place.client.set(place.keys.queue("mail").stream, "foreign")
    with pytest.raises(RedisConfigurationError, match=r"foreign data under our keys .*stream:mail"):
        await store.prepare(place.keys, ["mail"])


async def test_foreign_data_under_a_key_of_all_queues_refuses_the_call_before_the_first_write(place: Place) -> None:
    store = await place.store()
    await place.client.delete(place.keys.queues)
    await place.client.set(place.keys.queues, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError, match="holds a string"):
        await store.prepare(place.keys, ["new", "default"])
    assert await place.everything() == before


async def test_of_further_lanes_those_are_made_and_told_that_somebody_has_dispatched_to(place: Place) -> None:
    store = await place.store()
    await store.dispatch(0, "default/low", [place.draft("early")], PATIENCE)
    found = await store.prepare(place.keys, ["default"], ["default/high", "default/low"])
    assert found.lanes == ["default", "default/low"]
    assert await groups(place, "default/low") == [b"group"]
    assert not await place.client.exists(place.keys.queue("default/high").stream)
    assert await place.client.smembers(place.keys.queues) == {b"default", b"default/low"}


async def test_the_names_of_paused_queues_are_told(place: Place) -> None:
    store = await place.store()
    assert (await store.prepare(place.keys, ["default"])).paused == frozenset()
    await store.pause(place.keys, "mail", paused=True)
    assert (await store.prepare(place.keys, ["default"])).paused == {"mail"}


@pytest.mark.parametrize("how", ["a worker that joins", "a dispatch"])
async def test_a_new_lane_is_told_once_to_all_who_listen(place: Place, how: str) -> None:
    store = await place.store()
    async with place.client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(place.keys.wake)
        for _ in range(3):
            if how == "a dispatch":
                await store.dispatch(0, "new", [place.draft()], PATIENCE)
            else:
                await store.prepare(place.keys, ["new"])
        await store.pause(place.keys, "mail", paused=True)
        heard: list[bytes] = []
        async with asyncio.timeout(20):
            while b"paused" not in heard:
                message = await listener.get_message(timeout=1)
                heard += [message["data"]] if message is not None else []
    assert heard == [b"lane", b"paused"]

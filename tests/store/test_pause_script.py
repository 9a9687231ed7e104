"""pause.lua: which queues are paused is one set, and every change of it is told."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.errors import RedisConfigurationError
from tests.store.conftest import Place


async def test_a_pause_is_written_and_a_resume_takes_it_away(place: Place) -> None:
    store = await place.store()
    assert await store.pause(place.keys, "mail", paused=True)
    assert await place.client.smembers(place.keys.paused) == {b"mail"}
    assert await store.pause(place.keys, "mail", paused=False)
    assert not await place.client.exists(place.keys.paused)


async def test_to_pause_what_is_paused_changes_nothing(place: Place) -> None:
    store = await place.store()
    assert [await store.pause(place.keys, "mail", paused=True) for _ in range(2)] == [True, False]
    assert [await store.pause(place.keys, "mail", paused=False) for _ in range(2)] == [True, False]


async def test_to_resume_all_ends_the_pauses_of_single_queues_too(place: Place) -> None:
    store = await place.store()
    for name in ("mail", "images", "*"):
        await store.pause(place.keys, name, paused=True)
    await store.pause(place.keys, "*", paused=False)
    assert not await place.client.exists(place.keys.paused)


async def test_to_resume_a_queue_leaves_the_pause_of_all_alone(place: Place) -> None:
    store = await place.store()
    for name in ("mail", "*"):
        await store.pause(place.keys, name, paused=True)
    await store.pause(place.keys, "mail", paused=False)
    assert await place.client.smembers(place.keys.paused) == {b"*"}


@pytest.mark.parametrize("paused", [True, False])
async def test_each_change_is_told_on_the_wake_channel(place: Place, paused: bool) -> None:
    store = await place.store()
    async with place.client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(place.keys.wake)
        await store.pause(place.keys, "mail", paused=paused)
        async with asyncio.timeout(20):
            heard = None
            while heard is None:
                heard = await listener.get_message(timeout=1)
    assert heard["data"] == b"paused"


async def test_foreign_data_refuses_a_pause_and_stays(place: Place) -> None:
    store = await place.store()
    await place.client.set(place.keys.paused, "foreign")
    with pytest.raises(RedisConfigurationError, match="holds a string"):
        await store.pause(place.keys, "mail", paused=True)
    assert await place.client.get(place.keys.paused) == b"foreign"

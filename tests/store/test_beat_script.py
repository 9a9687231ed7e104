"""beat.lua: a worker renews what is still its own, and its place in the registry."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from taskrunner.errors import RedisUnavailable
from taskrunner.store.connect import connect
from taskrunner.store.heart import Heart
from tests.store.conftest import Place


async def beat(heart: Heart, held: list[Any], **facts: Any) -> list[Any]:
    return await asyncio.to_thread(heart.beat, held, facts)


async def idle(place: Place) -> dict[str, int]:
    rows = await place.client.xpending_range(place.names.stream, "group", "-", "+", 1000)
    return {row["message_id"].decode(): row["time_since_delivered"] for row in rows}


@pytest.mark.parametrize("count", [1, 2, 3, 450])
async def test_what_is_held_is_renewed_and_no_delivery_is_counted(place: Place, count: int) -> None:
    for start in range(0, count, 150):
        await place.dispatch(*(place.draft() for _ in range(start, min(start + 150, count))))
    arrivals = await place.fetch(count=1000)
    assert len(arrivals) == count
    await place.fall_silent(*arrivals)
    heart = place.heart()
    assert await beat(heart, arrivals) == []
    heart.close()
    assert max((await idle(place)).values()) < 600_000, "it had been silent for an hour"
    assert {row[2] for row in await place.pending()} == {1}


async def test_the_worker_stands_in_the_registry_with_its_facts(place: Place) -> None:
    heart = place.heart("me", reservation=10)
    before = await place.now()
    await beat(heart, [], slots=3, queues=["a"])
    heart.close()
    score = await place.client.zscore(place.keys.workers, "me")
    assert before + 20_000 <= score <= await place.now() + 20_000
    assert orjson.loads(await place.client.hget(place.keys.worker_facts, "me")) == {"slots": 3, "queues": ["a"]}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("thief", ["two", "one"])
async def test_what_was_taken_over_is_told_and_not_stolen_back(place: Place, count: int, thief: str) -> None:
    await place.dispatch(*(place.draft() for _ in range(count)))
    arrivals = await place.fetch()
    taken = arrivals[0]
    await place.client.execute_command("XCLAIM", place.names.stream, "group", thief, 0, taken.entry_id)
    await place.fall_silent(*arrivals[1:])
    await place.client.xclaim(place.names.stream, "group", thief, 0, [taken.entry_id], idle=5000, justid=True)
    heart = place.heart()
    assert await beat(heart, arrivals) == [taken]
    heart.close()
    assert (taken.entry_id.decode(), thief, 2) in await place.pending()
    assert (await idle(place))[taken.entry_id.decode()] >= 5000, "it was not renewed for the new holder either"


async def test_what_was_settled_or_deleted_is_told(place: Place) -> None:
    await place.dispatch(place.draft(), place.draft())
    arrivals = await place.fetch()
    await place.client.xack(place.names.stream, "group", arrivals[0].entry_id)
    heart = place.heart()
    assert await beat(heart, arrivals) == [arrivals[0]]
    heart.close()


async def test_on_an_emptied_server_all_is_lost_and_the_worker_registers_again(place: Place) -> None:
    await place.dispatch(place.draft())
    arrivals = await place.fetch()
    await place.client.delete(*[place.keys.prefix + name for name in await place.everything()])
    heart = place.heart()
    assert await beat(heart, arrivals) == arrivals
    heart.close()
    assert await place.client.zcard(place.keys.workers) == 1


async def test_a_long_silence_of_all_beats_is_followed_by_a_time_of_grace(place: Place) -> None:
    heart = place.heart(reservation=10)
    await beat(heart, [])
    first = int(await place.client.hget(place.keys.janitor, "grace"))
    await beat(heart, [])
    assert int(await place.client.hget(place.keys.janitor, "grace")) == first, "beats that follow each other leave it"
    await place.client.hset(place.keys.janitor, mapping={"last": await place.now() - 6_000, "grace": 0})
    await beat(heart, [])
    heart.close()
    assert int(await place.client.hget(place.keys.janitor, "grace")) > await place.now() + 5_000


async def test_a_server_that_is_away_is_an_error_of_ours() -> None:
    place = Place("redis://127.0.0.1:1", None)  # type: ignore[arg-type]
    heart = place.heart()
    with pytest.raises(RedisUnavailable):
        await beat(heart, [])
    heart.close()


async def test_a_connection_that_was_cut_is_made_again(place: Place, url: str) -> None:
    place.deployment = connect(url)
    heart = place.heart()
    await beat(heart, [])
    heart._links[0]._connection.disconnect()
    heart._links[0]._connection = None
    assert await beat(heart, []) == []
    heart.close()

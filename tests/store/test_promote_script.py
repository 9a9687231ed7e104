"""promote.lua: jobs that are due move into the stream, once each and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrunner.envelope import Extra
from taskrunner.errors import RedisConfigurationError
from taskrunner.store import wire
from taskrunner.store.graveyard import Graveyard
from tests.store.conftest import Place
from tests.waiting import eventually


async def due(place: Place, *ids: str, score: int = 1) -> None:
    """Puts jobs aside, and lets their time have come."""
    await place.dispatch(*(place.draft(id, delay=100) for id in ids))
    await place.client.zadd(place.names.due, dict.fromkeys(ids, score), xx=True)


async def test_what_is_due_moves_with_its_letter_and_what_is_not_stays(place: Place) -> None:
    store = await place.store()
    await due(place, "a", "b")
    await place.dispatch(place.draft("later", delay=100))
    moved, wait, _ = await store.promote(place.keys, "default")
    assert moved == 2
    assert wait == pytest.approx(100, abs=30)
    assert [wire.unseal(fields[b"t1"]).id for fields in await place.entries()] == ["a", "b"]
    assert await place.client.zrange(place.names.due, 0, -1) == [b"later"]
    assert await place.client.hkeys(place.names.letters) == [b"later"]
    assert await place.live() == {"a": "q default", "b": "q default", "later": "s default"}
    assert await place.client.hgetall(place.names.waiting) == {b"work": b"2"}
    ids = [id for id, _ in await place.client.xrange(place.names.stream)]
    assert await place.client.hget(place.keys.live, "b") == b"q default " + ids[1]


async def test_nothing_due_moves_nothing(place: Place) -> None:
    store = await place.store()
    assert await store.promote(place.keys, "default") == (0, None, 0)
    await place.dispatch(place.draft(delay=100))
    before = await place.everything()
    moved, *_ = await store.promote(place.keys, "default")
    assert moved == 0
    assert await place.everything() == before


async def test_equals_keep_the_order_of_their_ids_and_earlier_ones_go_first(place: Place) -> None:
    store = await place.store()
    await due(place, "c", "a", "b", score=5)
    await due(place, "z", score=4)
    await store.promote(place.keys, "default")
    assert [wire.unseal(fields[b"t1"]).id for fields in await place.entries()] == ["z", "a", "b", "c"]


async def test_a_call_moves_two_hundred_at_most_and_says_that_more_is_due(place: Place) -> None:
    store = await place.store()
    for start in range(0, 450, 150):
        await due(place, *(f"job{n:03}" for n in range(start, start + 150)))
    assert [await store.promote(place.keys, "default") for _ in range(3)] == [(200, 0, 0), (200, 0, 0), (50, None, 0)]


async def test_many_promoters_at_once_move_each_job_once(place: Place) -> None:
    stores = [await place.store(f"worker{n}") for n in range(8)]
    for start in range(0, 600, 200):
        await due(place, *(f"job{n:03}" for n in range(start, start + 200)))
    moved = await asyncio.gather(*(store.promote(place.keys, "default") for store in stores))
    assert sum(n for n, *_ in moved) == 600
    ids = [wire.unseal(fields[b"t1"]).id for fields in await place.entries()]
    assert ids == [f"job{n:03}" for n in range(600)]


async def test_a_job_without_a_record_gets_none(place: Place) -> None:
    store = await place.store()
    await place.dispatch(place.draft("quiet", flags=0, delay=100))
    await place.client.zadd(place.names.due, {"quiet": 1})
    await store.promote(place.keys, "default")
    assert await place.live() == {}
    assert len(await place.entries()) == 1


async def test_marks_stand_beside_the_letter_again(place: Place) -> None:
    store = await place.store()
    await place.dispatch(place.draft("job", delay=100, extras={Extra.RESERVATION: 700}))
    await place.client.zadd(place.names.due, {"job": 1})
    await store.promote(place.keys, "default")
    [fields] = await place.entries()
    assert fields[b"r"] == b"700"


async def test_a_payload_of_any_bytes_passes_unharmed(place: Place) -> None:
    store, payload = await place.store(), bytes(range(256)) * 3 + b"\n\n%s %d"
    await place.dispatch(place.draft("job", delay=100, payload=payload, task="n%m é"))
    await place.client.zadd(place.names.due, {"job": 1})
    await store.promote(place.keys, "default")
    [arrival] = await place.fetch()
    assert arrival.envelope.payload == payload
    assert arrival.envelope.task == "n%m é"


async def test_a_due_time_whose_letter_is_gone_is_dropped(place: Place) -> None:
    store = await place.store()
    await due(place, "a", "b")
    await place.client.hdel(place.names.letters, "a")
    assert await store.promote(place.keys, "default") == (2, None, 1)
    assert [wire.unseal(fields[b"t1"]).id for fields in await place.entries()] == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no lines",
        b"work\n\n\nno version",
        b"work\nr\nt1\nodd marks",
        b"work\nr 5 k\nt1\nodd marks",
        b"work\n" + b"m " * 10_000 + b"\nt1\ntoo many marks",
    ],
    ids=lambda text: text[:20].decode(),
)
async def test_a_job_whose_letter_is_damaged_ends_as_failed_with_what_is_left_and_holds_nothing_up(
    place: Place, text: bytes
) -> None:
    store = await place.store()
    await due(place, "a", "b")
    await place.client.hset(place.names.letters, "a", text)
    assert await store.promote(place.keys, "default") == (2, None, 1)
    [sound] = await place.fetch()
    assert sound.envelope.id == "b"
    assert await place.live() == {"b": "q default"}, "nobody waits for ever for what can't run"
    [letter] = [grave.letter() for grave in await Graveyard(store).newest(None, 10, None)]
    assert (letter.id, letter.reason, letter.raw) == ("a", "orphaned", [text])


async def test_who_waits_for_a_job_whose_letter_is_gone_is_told(place: Place) -> None:
    store = await place.store()
    await due(place, "a")
    await store.inspection.watch(place.keys, "a", "channel")
    await place.client.delete(place.names.letters)
    async with place.client.pubsub() as channel:
        await channel.subscribe("channel")
        await store.promote(place.keys, "default")
        told: Any = await eventually(lambda: channel.get_message(ignore_subscribe_messages=True))
    assert told["data"] == b"a"
    assert not await place.client.exists(place.keys.live, place.keys.watchers)
    ended = await store.inspection.watch(place.keys, "a", "channel")
    assert isinstance(ended, wire.Ended)
    assert ended.error is not None
    assert ended.error[3] == "orphaned"


@pytest.mark.parametrize("id", [b"\xff", b"\xed\xa0\x80", b"\xc2a", b"\xf5\x80\x80\x80", "é€😀".encode()])
async def test_a_strangers_due_time_of_any_name_leaves_the_dead_letters_readable(place: Place, id: bytes) -> None:
    store = await place.store()
    await place.client.zadd(place.names.due, {id: 1})
    assert await store.promote(place.keys, "default") == (1, None, 1)
    [letter] = [grave.letter() for grave in await Graveyard(store).newest(None, 10, None)]
    assert letter.id == id.decode(errors="ignore") or "?" in letter.id


async def test_a_due_time_of_a_stranger_for_a_job_that_is_queued_leaves_the_job_alone(place: Place) -> None:
    store = await place.store()
    await place.dispatch(place.draft("a"))
    await place.client.zadd(place.names.due, {"a": 1})
    assert await store.promote(place.keys, "default") == (1, None, 1)
    assert await place.live() == {"a": "q default"}


async def test_foreign_data_under_one_of_our_keys_refuses_the_call_before_the_first_write(place: Place) -> None:
    store = await place.store()
    await due(place, "a")
    await place.client.delete(place.names.rates)
    await place.client.set(place.names.rates, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError, match="holds a string"):
        await store.promote(place.keys, "default")
    assert await place.everything() == before

"""fetch.lua: entries of several streams in one call, each its share and the rest to the most urgent."""

from __future__ import annotations

import pytest

from taskrunner.errors import RedisConfigurationError
from taskrunner.store.reader import Reader
from taskrunner.store.translate import GroupMissing
from tests.store.conftest import PATIENCE, Place

LANES = ["mail/high", "mail", "mail/low"]


async def filled(place: Place, **jobs: int) -> Reader:
    """A reader of three lanes with so many jobs each, called like their lanes."""
    store = await place.store()
    await store.prepare(place.keys, LANES)
    for lane, number in zip(LANES, (jobs.get("high", 0), jobs.get("normal", 0), jobs.get("low", 0)), strict=True):
        if number:
            drafts = [place.draft(f"{lane} {n}") for n in range(number)]
            await store.dispatch(0, lane, drafts, PATIENCE)
    return store.reader(place.keys)


async def fetched(reader: Reader, shares: dict[str, int], count: int) -> list[str]:
    """The ids of what came, in order."""
    return [one.envelope.id for one in await reader.fetch_shares(LANES, shares, count)]


async def test_each_stream_gets_its_share_and_the_first_come_first(place: Place) -> None:
    reader = await filled(place, high=9, normal=9, low=9)
    ids = await fetched(reader, {"mail/high": 3, "mail": 2, "mail/low": 1}, 6)
    assert ids == ["mail/high 0", "mail/high 1", "mail/high 2", "mail 0", "mail 1", "mail/low 0"]


async def test_what_the_shares_leave_over_goes_to_the_first_that_has_more(place: Place) -> None:
    reader = await filled(place, normal=9, low=9)
    ids = await fetched(reader, {"mail/high": 7, "mail": 2, "mail/low": 1}, 10)
    assert ids == [*(f"mail {n}" for n in range(9)), "mail/low 0"]


async def test_a_stream_whose_share_is_nothing_still_gets_what_is_left_over(place: Place) -> None:
    reader = await filled(place, low=2)
    assert await fetched(reader, {"mail/high": 1}, 1) == ["mail/low 0"]
    assert await fetched(reader, {"mail": 1}, 1) == ["mail/low 1"]


async def test_no_more_than_the_room_comes_whatever_the_shares_say(place: Place) -> None:
    reader = await filled(place, high=9, normal=9)
    assert len(await fetched(reader, {"mail/high": 9, "mail": 9}, 4)) == 4


async def test_what_goes_before_others_takes_the_places_that_they_give_up_in_their_order(place: Place) -> None:
    reader = await filled(place, high=2, normal=9, low=9)
    shares, way = {"mail": 4, "mail/low": 2}, {"mail/high": ["mail", "mail/low", "mail"]}
    arrivals = await reader.fetch_shares(LANES, shares, 6, way)
    ids = [one.envelope.id for one in arrivals]
    assert ids == ["mail/high 0", "mail/high 1", "mail 0", "mail 1", "mail 2", "mail/low 0"]
    arrivals = await reader.fetch_shares(LANES, shares, 6, way)
    assert [one.queue for one in arrivals] == ["mail"] * 4 + ["mail/low"] * 2, "nothing went before them"


async def test_it_does_not_wait_for_what_is_not_there(place: Place) -> None:
    reader = await filled(place)
    assert await fetched(reader, {"mail": 10}, 10) == []


async def test_what_came_is_pending_for_the_caller_under_its_lane(place: Place) -> None:
    reader = await filled(place, high=1, low=1)
    arrivals = await reader.fetch_shares(LANES, {"mail/high": 1, "mail/low": 1}, 2)
    assert [(one.queue, one.deliveries) for one in arrivals] == [("mail/high", 1), ("mail/low", 1)]
    for one in arrivals:
        [row] = await place.client.xpending_range(place.keys.queue(one.queue).stream, "group", "-", "+", 10)
        assert (row["message_id"], row["consumer"]) == (one.entry_id, b"one")


async def test_a_stream_of_strangers_keeps_nobody_from_the_others(place: Place) -> None:
    reader = await filled(place, low=1)
    await place.client.delete(place.keys.queue("mail").stream)
    await place.client.set(place.keys.queue("mail").stream, "foreign")
    assert await fetched(reader, {"mail": 10}, 10) == ["mail/low 0"]
    with pytest.raises(RedisConfigurationError, match="foreign data under our keys"):
        await fetched(reader, {"mail": 10}, 10)


async def test_a_missing_group_is_told_when_nothing_else_is_there(place: Place) -> None:
    reader = await filled(place, high=1)
    await place.client.delete(place.keys.queue("mail").stream)
    assert await fetched(reader, {"mail": 10}, 10) == ["mail/high 0"]
    with pytest.raises(GroupMissing):
        await fetched(reader, {"mail": 10}, 10)

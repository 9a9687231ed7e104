"""Whichever jobs with locks and limits are deleted, and in whatever order the audit looks at the others: it ends none
of them, and each runs once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import STORIES
from tests.store.auditing import audit, end_grace
from tests.store.conftest import new_place
from tests.store.seating import (
    FIRST,
    LANES,
    LOW,
    check_books,
    drain,
    end,
    limit,
    lock,
    lose,
    needing,
    send,
    start,
)

NEEDS = (
    (lock("1"),),
    (limit(2, "2"),),
    (lock("1"), limit(2, "2")),
    (lock("3"), limit(2, "2")),
)
jobs = st.lists(st.tuples(st.sampled_from(NEEDS), st.sampled_from(("default", LOW))), min_size=4, max_size=12)


async def play(url: str, wanted: list[Any], starts: bool, chance: random.Random) -> None:
    async with new_place(url) as place:
        await (await place.store()).prepare(place.keys, (*LANES, FIRST))
        for n, (needs, lane) in enumerate(wanted):
            await send(place, needing(f"{n:02}", *needs, lane=lane))
        running = await start(place) if starts else []
        lost = set(chance.sample(sorted(await place.live()), 2))
        for id in lost:
            await lose(place, id)
        left = await place.client.hgetall(place.keys.live)
        for id in chance.sample(sorted(left), len(left)):  # a small hash is looked at in the order of its making
            await place.client.hdel(place.keys.live, id)
            await place.client.hset(place.keys.live, id, left[id])
        await end_grace(place)
        found = await audit(place)
        assert found.orphaned == set()
        assert not found.readded & lost
        for one in running:
            if one.envelope.id not in lost:
                assert await end(place, one) == b"1"
        ran = [one.envelope.id for one in running if one.envelope.id not in lost]
        while more := await drain(place):
            ran += more
            # Somebody may have come to stand behind a place of one that was lost, which nobody waited for before.
            assert (await audit(place)).orphaned == set()
        assert sorted(ran) == sorted(id.decode() for id in left)
        await audit(place)  # what was deleted from the streams is counted until they are empty
        await check_books(place)
        assert await place.live() == {}


@settings(max_examples=STORIES)
@given(jobs, st.booleans(), st.integers(0, 10**6))
def test_whoever_is_lost_the_others_run_once_and_none_is_ended_for_them(
    url: str, wanted: list[Any], starts: bool, seed: int
) -> None:
    asyncio.run(play(url, wanted, starts, random.Random(seed)))

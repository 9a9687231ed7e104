"""recount.lua: counts of unsettled jobs are corrected, and never from a count that is out of date."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.store.scripts import RECOUNT
from tests.store.conftest import Place


async def recount(place: Place, entries: int, last: bytes, *pairs: Any) -> int:
    store = await place.store()
    keys = [place.names.stream, place.names.waiting]
    return int(await store.control(place.keys).run(RECOUNT, keys, [entries, last, *pairs]))


async def last_id(place: Place) -> bytes:
    info = await place.client.xinfo_stream(place.names.stream)
    last: bytes = info["last-generated-id"]
    return last


async def test_wrong_counts_are_corrected_and_counted(place: Place) -> None:
    await place.dispatch(*(place.draft(task=task) for task in ("one", "one", "two")))
    await place.client.hset(place.names.waiting, mapping={"one": 7, "gone": 3})
    await place.client.hdel(place.names.waiting, "two")
    assert await recount(place, 3, await last_id(place), "one", 2, "two", 1) == 3
    assert await place.client.hgetall(place.names.waiting) == {b"one": b"2", b"two": b"1", b"gone": b"0"}
    assert await recount(place, 3, await last_id(place), "one", 2, "two", 1) == 0


@pytest.mark.parametrize("how", ["added", "deleted", "both"])
async def test_a_count_that_is_out_of_date_changes_nothing(place: Place, how: str) -> None:
    await place.dispatch(place.draft(), place.draft())
    last = await last_id(place)
    if how != "added":
        [first, _] = await place.client.xrange(place.names.stream)
        await place.client.xdel(place.names.stream, first[0])
    if how != "deleted":
        await place.dispatch(place.draft())
    before = await place.everything()
    assert await recount(place, 2, last, "work", 99) == -1
    assert await place.everything() == before

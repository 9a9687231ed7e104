"""Who never held a seat frees none, whatever its delivery comes to."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.outcome import Expired, Outcome, Released
from tests.store.conftest import Place
from tests.store.seating import (
    DONE,
    admit,
    check_books,
    drain,
    end,
    fetch,
    in_lease,
    limit,
    needing,
    parked,
    send,
    start,
)

OUTCOMES: dict[str, Outcome] = {"succeeded": DONE, "released": Released(), "expired": Expired()}


async def two_of_two(place: Place) -> tuple[list[Any], list[Any]]:
    """Of a limit of two: "a" runs, "b" has arrived at a worker and was not asked for, "c" and "d" wait."""
    await send(place, *(needing(id, limit(2)) for id in "abcd"))
    arrived = await fetch(place)
    assert [one.envelope.id for one in arrived] == ["a", "b"]
    assert await admit(place, arrived[:1]) != [0]
    return arrived[:1], arrived[1:]


async def test_who_is_handed_back_before_it_was_admitted_frees_no_seat_and_keeps_its_place(place: Place) -> None:
    _, arrived = await two_of_two(place)
    assert await end(place, *arrived, how=Released()) == b"1"
    assert await in_lease(place, limit(2)) == ({"a"}, ["b", "c", "d"])
    assert await parked(place) == ["c", "d"]
    await check_books(place)
    assert [one.envelope.id for one in await start(place)] == ["b"]


@pytest.mark.parametrize("how", ["succeeded", "expired"])
async def test_who_ends_without_having_been_admitted_leaves_the_line_and_frees_no_seat(place: Place, how: str) -> None:
    running, arrived = await two_of_two(place)
    assert await end(place, *arrived, how=OUTCOMES[how]) == b"1"
    assert await in_lease(place, limit(2)) == ({"a"}, ["c", "d"])
    assert [one.envelope.id for one in await start(place)] == ["c"], "one and no more could run beside the first"
    assert await in_lease(place, limit(2)) == ({"a", "c"}, ["d"])
    await check_books(place)
    await end(place, *running)


@pytest.mark.parametrize("how", list(OUTCOMES))
async def test_a_stale_worker_frees_neither_its_former_seat_nor_that_of_the_next_holder(place: Place, how: str) -> None:
    await send(place, *(needing(id, limit(1)) for id in "abc"))
    [a] = await start(place)
    assert await end(place, a) == b"1"
    [b] = await start(place)
    assert await end(place, a, how=OUTCOMES[how]) == b"0"
    assert await in_lease(place, limit(1)) == ({"b"}, ["c"])
    assert await parked(place) == ["c"]
    await end(place, b)
    assert await drain(place) == ["c"]
    assert await in_lease(place, limit(1)) == (set(), [])
    await check_books(place)

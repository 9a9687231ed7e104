"""admit.lua: a run begins with a whole reservation, however long its entry has been pending."""

from __future__ import annotations

import pytest

from taskrunner.envelope import Delivery, Extra
from taskrunner.needs import Seat, digest
from tests.store.conftest import PATIENCE, Place

BEAT = 60.0
"""Seconds: of ten before half a beat is over, no machine is late."""
HALF, LESS = 30_000, 20_000
"""ms of a beat"""


@pytest.mark.parametrize(("idle", "renewed"), [(5 * HALF, True), (LESS, False)])
async def test_what_has_been_pending_for_half_a_beat_is_renewed(idle: int, renewed: bool, place: Place) -> None:
    store = await place.store(reservation=4 * BEAT, beat=BEAT)
    extras = {Extra.LOCK: "a", Extra.NEEDS: str(Seat(digest("lock", "a"), 1))}
    await store.dispatch(0, "default", [place.draft("job", extras=extras)], PATIENCE)
    [arrival] = await store.reader(place.keys).fetch(["default"], 1, None)
    assert isinstance(arrival, Delivery)
    await place.client.xclaim(place.names.stream, "group", "one", 0, [arrival.entry_id], idle=idle, justid=True)
    [grant] = await store.seating.admit(place.keys, "default", [arrival])
    assert grant
    [row] = await place.client.xpending_range(place.names.stream, "group", "-", "+", 10)
    assert (row["time_since_delivered"] < LESS) is renewed
    assert row["times_delivered"] == 1, "its token must go on fitting"

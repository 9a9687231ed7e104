"""cancel.lua after a lost reply, between any two steps of a job's life, and in what is seen of the job afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.outcome import Succeeded
from taskrunner.store.inspect import Sight
from taskrunner.store.scripts import CANCEL
from tests.store.auditing import audit
from tests.store.cancelling import AGAIN, DEBOUNCE, RUNNING, STATES, cancel, leased, record, running, scheduled
from tests.store.conftest import Place, delivery


@pytest.mark.parametrize("state", STATES)
async def test_asked_again_after_a_lost_reply_it_answers_as_before(place: Place, state: str) -> None:
    await STATES[state](place)
    store = await place.store()
    [link] = store.cancellation._links
    keys = [place.keys.batch("lost"), place.keys.live, place.keys.watchers, *place.names.all]
    arguments = [1, 600, "default", place.keys.wake, place.keys.prefix, 60_000, 1, 30_000, "job", 1]
    first = await link.run(CANCEL, keys, arguments)
    before = await place.everything()
    assert await link.run(CANCEL, keys, arguments) == first
    assert first[:1] == (b"2" if state in RUNNING else b"1")
    assert await place.everything() == before


async def test_a_job_that_was_dispatched_anew_elsewhere_is_found_there(place: Place) -> None:
    """A debounced job gets another priority between the look and the deed."""
    await place.dispatch(leased(place, lease=DEBOUNCE, delay=100))
    store, moves = await place.store(), iter([True])
    find = store.cancellation._find

    async def find_and_move(*arguments: Any, **options: Any) -> list[str]:
        found = await find(*arguments, **options)
        if next(moves, False):
            await store.dispatch(0, "default/high", [leased(place, "new", DEBOUNCE, delay=100)], 5.0)
        return found

    store.cancellation._find = find_and_move  # type: ignore[method-assign]
    removed = await cancel(place)
    assert removed is not None
    assert removed.waiting is not None
    assert removed.waiting.queue == "default/high"
    assert await place.live() == {}
    assert not await place.client.exists(place.keys.unique("digest"), place.keys.queue("default/high").due)


STEPS = ("promote", "fetch", "take over", "retry", "promote", "fetch", "beat", "settle")


class Story:
    """A job that is promoted, fetched, taken over, retried and done; each step does what there is to do."""

    def __init__(self, place: Place, **options: Any) -> None:
        self.place = place
        self.options = options
        self.holder = "one"
        self.held: list[Any] = []
        self.verdicts: list[bytes] = []

    async def begin(self) -> None:
        for worker in ("one", "two"):
            await self.place.store(worker, **self.options)
        await self.place.dispatch(leased(self.place, delay=100))

    async def step(self, name: str) -> None:
        place = self.place
        if name == "promote":
            await place.client.zadd(place.names.due, {"job": 1}, xx=True)
            await (await place.store()).promote(place.keys, "default")
        elif name == "fetch":
            self.held = await place.fetch(self.holder)
        elif name == "take over" and self.held:
            if await place.pending():
                await place.fall_silent(*self.held, worker=self.holder)
            self.holder = "two"
            _, taken = await (await place.store("two")).reclaim(place.keys, "default", 10)
            self.held = taken or self.held
        elif name == "beat" and self.held:
            place.heart(self.holder).beat(self.held, {})
        elif name == "retry" and self.held:
            self.verdicts.append(await place.settle(self.holder, *((one, AGAIN) for one in self.held)))
            self.held = []
        elif name == "settle" and self.held:
            self.verdicts.append(await place.settle(self.holder, *((one, Succeeded(b"1")) for one in self.held)))


@pytest.mark.parametrize("keeps", [False, True], ids=["entries leave", "entries stay"])
@pytest.mark.parametrize("when", range(len(STEPS) + 1))
async def test_between_any_two_steps_it_ends_once_and_what_comes_after_changes_nothing(
    place: Place, when: int, keeps: bool
) -> None:
    story = Story(place, delete_on_ack=not keeps)
    await story.begin()
    for name in STEPS[:when]:
        await story.step(name)
    removed = await cancel(place)
    after = await place.everything()
    accepted = list(story.verdicts)
    for name in STEPS[when:]:
        await story.step(name)
    ended = await record(place)
    if when == len(STEPS):
        assert removed is None
        assert ended.state == "s"
        return
    assert removed is not None
    assert ended.state == "c"
    assert [b"0"] * (len(story.verdicts) - len(accepted)) == story.verdicts[len(accepted) :]
    now = await place.everything()
    changing = ("batch:", "janitor", "workers", "worker-facts", "rates:")
    assert {k: v for k, v in now.items() if not k.startswith(changing)} == {
        k: v for k, v in after.items() if not k.startswith(changing)
    }
    found = await audit(place, worker="two")
    assert (found.readded, found.orphaned) == (set(), set())
    assert await place.dispatch(leased(place, "next")) == {}, "its key is free"


async def test_a_heartbeat_says_that_it_is_held_no_more(place: Place) -> None:
    await place.dispatch(leased(place), place.draft("other"))
    held = await place.fetch()
    await cancel(place)
    assert [delivery(one).envelope.id for one in place.heart().beat(held, {})] == ["job"]


async def test_a_cancelled_job_is_listed_as_such_and_waits_no_more(place: Place) -> None:
    await scheduled(place)
    await cancel(place)
    listing = (await place.store()).inspection.listing
    [one] = await listing.jobs("cancelled", "default", 10)
    assert one.id == "job"
    assert one.ended is not None
    assert one.ended.state == "c"
    assert await listing.count("cancelled", None, None) == 1
    assert await listing.count("scheduled", None, None) == 0


async def test_what_is_cancelled_is_no_sight_any_more(place: Place) -> None:
    await running(place)
    assert isinstance(await (await place.store()).inspection.look(place.keys, "job"), Sight)
    await cancel(place)
    assert (await record(place)).state == "c"

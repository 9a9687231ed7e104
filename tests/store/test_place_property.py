"""Whatever order dispatches, promotions, starts and ends come in: per key at most one job waits and one is alive
besides, and the newest arguments are not lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskrunner.envelope import Delivery
from taskrunner.outcome import Again, Failed, Failure, Released, Settlement, Succeeded
from tests.properties import STORIES
from tests.store.conftest import NO_LOAD, PATIENCE, Place, new_place
from tests.store.test_place_script import debounced, latest, send

OUTCOMES = (Succeeded(b"null"), Failed(Failure("E", ""), "no retries"), Again(0, Failure("E", "")), Released(0))
LANES = ("default", "default/high")

deeds = st.lists(
    st.one_of(
        st.tuples(st.just("dispatch"), st.sampled_from(LANES)),
        st.tuples(st.just("due"), st.none()),
        st.tuples(st.just("start"), st.none()),
        st.tuples(st.just("end"), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("lose"), st.none()),
        st.tuples(st.just("audit"), st.none()),
    ),
    max_size=25,
)


class Play:
    """One key, one worker, and what a reader of the story would remember of it."""

    def __init__(self, place: Place, make: Callable[..., Any]) -> None:
        self.place, self.make = place, make
        self.dispatched = 0
        self.held: deque[Delivery] = deque()
        self.started: list[int] = []
        self.lost = self.unseen = False  # a job was lost with its arguments; nobody has noticed yet

    async def act(self, deed: str, detail: Any) -> None:
        if deed == "dispatch":
            self.dispatched += 1
            self.lost = self.unseen = False
            await send(self.place, self.make(self.place, f"job{self.dispatched}", self.dispatched, lane=detail))
        elif deed == "due":
            await self.make_all_due()
        elif deed == "start":
            await self.start()
        elif deed == "end" and self.held:
            await self.settle(self.held.popleft(), detail)
        elif deed == "lose" and self.make is latest and not self.held:
            await self.lose_the_holder()
        elif deed == "audit":
            await self.audit()

    async def lose_the_holder(self) -> None:
        """As an eviction does it: entry and live record of who holds the key are gone."""
        id = await self.place.client.get(self.place.keys.unique("digest"))
        record = id and await self.place.client.hget(self.place.keys.live, id)
        if not record or not record.startswith(b"q "):
            return
        _, lane, entry = record.decode().split()
        await self.place.client.xdel(self.place.keys.queue(lane).stream, entry)
        await self.place.client.hdel(self.place.keys.live, id)
        self.unseen = True
        self.lost = not await self.place.client.exists(self.place.keys.next("digest"))

    async def audit(self) -> None:
        self.unseen = False
        auditor, cursor = (await self.place.store()).auditor(self.place.keys), None
        while cursor != "":
            cursor = (await auditor.page("mend", cursor or "")).cursor

    async def make_all_due(self) -> None:
        store = await self.place.store()
        for lane in LANES:
            due = self.place.keys.queue(lane).due
            for id in await self.place.client.zrange(due, 0, -1):
                await self.place.client.zadd(due, {id: 1})
            await store.promote(self.place.keys, lane)

    async def start(self) -> None:
        reader = (await self.place.store()).reader(self.place.keys)
        for lane in LANES:
            for arrival in await reader.fetch([lane], 100, block=None):
                assert isinstance(arrival, Delivery)
                self.held.append(arrival)
                self.started.append(int(arrival.envelope.payload.strip(b"[]")))

    async def settle(self, delivery: Delivery, outcome: Any) -> None:
        store = await self.place.store()
        settled = [Settlement(delivery, outcome, 0.1)]
        assert await store.settle(0, delivery.queue, settled, 1, NO_LOAD, PATIENCE) == b"1"

    async def check(self) -> None:
        records = [one.decode() for one in await self.place.client.hvals(self.place.keys.live)]
        parked = [one for one in records if one.startswith("b ")]
        wait = [one for one in records if one.endswith(" debounce")]
        assert len(parked) <= 1
        assert len(wait) <= 1
        if self.make is latest:
            assert len(records) - len(parked) <= 1
            assert self.unseen or not parked or len(records) == 2, "nobody will wake it"

    async def drain(self) -> None:
        await self.audit()
        for _ in range(100):
            if not await self.place.client.exists(self.place.keys.live):
                break
            await self.make_all_due()
            await self.start()
            while self.held:
                await self.settle(self.held.popleft(), Succeeded(b"null"))
                await self.check()
        names = [self.place.keys.queue(lane) for lane in LANES]
        waits = [key for one in names for key in (one.due, one.letters, one.retrying, one.tallies)]
        waits += [self.place.keys.prefix + "parked:" + lane for lane in LANES]
        assert not await self.place.client.exists(self.place.keys.live, self.place.keys.next("digest"), *waits)
        if not self.lost:
            assert not await self.place.client.exists(self.place.keys.unique("digest"))
            assert self.dispatched == 0 or self.dispatched in self.started
            assert self.make is not latest or self.dispatched == 0 or self.started[-1] == self.dispatched
        await self.audit()  # what was deleted from the streams is counted until they are empty
        for one in names:
            assert all(int(n) == 0 for n in await self.place.client.hvals(one.waiting))


async def play(url: str, make: Callable[..., Any], story: Sequence[tuple[str, Any]]) -> None:
    async with new_place(url) as place:
        await (await place.store()).prepare(place.keys, LANES)
        acting = Play(place, make)
        for deed, detail in story:
            await acting.act(deed, detail)
            await acting.check()
        await acting.drain()


@settings(max_examples=STORIES)
@given(deeds)
def test_of_latest_one_is_alive_one_is_parked_and_the_newest_arguments_run_last(
    url: str, story: list[tuple[str, Any]]
) -> None:
    asyncio.run(play(url, latest, story))


@settings(max_examples=STORIES)
@given(deeds)
def test_of_debounced_jobs_one_waits_and_the_newest_arguments_run(url: str, story: list[tuple[str, Any]]) -> None:
    asyncio.run(play(url, debounced, story))

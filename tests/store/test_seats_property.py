"""Whatever order dispatches, starts, ends, cancellations and deaths come in: no key has more runs than its capacity,
jobs of a lock key start in their order, and when all is drained every job has ended once and nothing is left."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskrunner.envelope import Delivery
from taskrunner.outcome import Again, Failed, Failure, Outcome, Released, Succeeded
from tests.properties import STORIES
from tests.store.cancelling import left
from tests.store.conftest import Place, new_place
from tests.store.seating import (
    FIRST,
    LANES,
    LOW,
    admit,
    check_books,
    end,
    fetch,
    in_lease,
    lease_of,
    limit,
    lock,
    needing,
    promote,
    send,
)

NEEDS = {
    "lock": (lock("1"),),
    "other lock": (lock("2"),),
    "two": (limit(2, "2"),),
    "three": (limit(3, "3"),),
    "lock and two": (lock("1"), limit(2, "2")),
    "other lock and two": (lock("2"), limit(2, "2")),
}
CAPACITY = {lock("1"): 1, lock("2"): 1, limit(2, "2"): 2, limit(3, "3"): 3}
OUTCOMES: tuple[Outcome, ...] = (
    Succeeded(b"null"),
    Failed(Failure("E", ""), "no retries"),
    Again(0, Failure("E", "")),
    Released(0),
    Released(5.0),
)
WORKERS = ("one", "two")
worker, number = st.sampled_from(WORKERS), st.integers(0, 9)

deeds = st.lists(
    st.one_of(
        st.tuples(
            st.just("dispatch"), st.sampled_from(sorted(NEEDS)), st.sampled_from(("default", LOW)), st.integers(1, 4)
        ),
        st.tuples(st.just("fetch"), worker, st.sampled_from(LANES), st.integers(1, 3)),
        st.tuples(st.just("admit"), worker, number, number),
        st.tuples(st.just("work"), worker, number, number),
        st.tuples(st.just("end"), worker, number, st.sampled_from(OUTCOMES)),
        st.tuples(st.just("cancel"), number, number, number),
        st.tuples(st.just("over"), worker, number, number),
        st.tuples(st.just("promote"), number, number, number),
        st.tuples(st.just("kill"), worker, number, number),
    ),
    min_size=5,
    max_size=40,
)


class Play:
    """Two workers, and what a reader of the story would remember of them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lanes: dict[str, str] = {}  # job -> its lane
        self.arrived: dict[str, list[Delivery]] = {worker: [] for worker in WORKERS}  # not admitted yet
        self.running: dict[str, list[Delivery]] = {worker: [] for worker in WORKERS}
        self.outlived: dict[str, list[Delivery]] = {worker: [] for worker in WORKERS}  # cancelled, and still going on
        self.began: dict[tuple[str, str], list[str]] = defaultdict(list)  # lock and lane -> first runs, in order
        self.sent: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.ended: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.bereaved: set[str] = set()  # those whose worker died while they ran
        self.ghosts: set[str] = set()  # cancelled before another worker had them: the dead one's run may still go on

    async def act(self, deed: str, one: Any, two: Any, three: Any) -> None:
        await getattr(self, deed)(one, two, three)

    async def dispatch(self, needs: str, lane: str, count: int) -> None:
        drafts = [needing(f"{len(self.lanes) + n:03}", *NEEDS[needs], lane=lane) for n in range(count)]
        await send(self.place, *drafts)
        for draft in drafts:
            self.lanes[draft.envelope.id] = lane
            for need in NEEDS[needs]:
                self.sent[need, lane].append(draft.envelope.id)

    async def fetch(self, worker: str, lane: str, count: int) -> None:
        self.arrived[worker] += await fetch(self.place, lane, worker, count)

    async def admit(self, worker: str, _: int, __: int) -> None:
        """All that has arrived, lane by lane; what is not granted is forgotten."""
        for lane in LANES:
            some = [one for one in self.arrived[worker] if one.queue == lane]
            await admit(self.place, some, worker)
            for one in some:
                if one.grant:
                    self.running[worker].append(one)
                    self.begin(one)
        self.arrived[worker] = []

    async def work(self, worker: str, _: int, __: int) -> None:
        for lane in LANES:
            await self.fetch(worker, lane, 100)
        await self.admit(worker, 0, 0)

    def begin(self, one: Delivery) -> None:
        id = one.envelope.id
        assert id not in self.cancelled
        for need in one.envelope.extras["n"].split(","):
            if CAPACITY[need] == 1 and id not in self.began[need, self.lanes[id]]:
                self.began[need, self.lanes[id]].append(id)

    async def end(self, worker: str, number: int, outcome: Outcome) -> None:
        held = [*self.running[worker], *self.arrived[worker]]
        if not held:
            return
        one = held[number % len(held)]
        if not one.grant and not (isinstance(outcome, Released) and not outcome.delay):
            return  # what has not started can only go back
        for some in (self.running[worker], self.arrived[worker]):
            if one in some:
                some.remove(one)
        expected = b"0" if one.envelope.id in self.cancelled else b"1"
        assert await end(self.place, one, how=outcome, worker=worker) == expected
        if isinstance(outcome, Succeeded | Failed) and expected == b"1":
            self.ended[one.envelope.id] += 1

    async def cancel(self, number: int, _: int, __: int) -> None:
        live = sorted(await self.place.live())
        if not live:
            return
        id = live[number % len(live)]
        assert await (await self.place.store()).cancellation.cancel(id, 0, 5.0) is not None
        self.cancelled.add(id)
        self.ended[id] += 1
        for worker in WORKERS:
            if id in self.bereaved and any(one.envelope.id == id for one in self.arrived[worker]):
                self.ghosts.add(id)
            for one in [one for one in self.running[worker] if one.envelope.id == id]:
                self.running[worker].remove(one)
                self.outlived[worker].append(one)

    async def over(self, worker: str, number: int, _: int) -> None:
        """A cancelled run has really ended."""
        if self.outlived[worker]:
            one = self.outlived[worker].pop(number % len(self.outlived[worker]))
            run = (one.envelope.id, one.grant, one.envelope.extras["n"])
            assert await (await self.place.store()).seating.tend(self.place.keys, "free", [run]) == 1

    async def promote(self, *_: int) -> None:
        await promote(self.place)

    async def kill(self, worker: str, *_: int) -> None:
        """It dies with all that it holds; the other one takes it over and admits it again."""
        place, other = self.place, WORKERS[1 - WORKERS.index(worker)]
        self.bereaved |= {one.envelope.id for one in self.running[worker]}
        for one in [*self.running[worker], *self.arrived[worker]]:
            stream = place.keys.queue(one.queue).stream
            hour = 3_600_000
            await place.client.xclaim(stream, "group", worker, 0, [one.entry_id], idle=hour, justid=True)
        for one in self.outlived[worker]:
            for need in one.envelope.extras["n"].split(","):
                run = f"{need} {one.envelope.id}\n{one.grant}"
                await place.client.zadd(place.keys.outlived, {run: 1}, xx=True)
        self.running[worker], self.arrived[worker], self.outlived[worker] = [], [], []
        store = await place.store(other)
        await store.promote(place.keys, "default")
        for lane in LANES:
            await place.client.hset(place.keys.janitor, mapping={"last": await place.now(), "grace": 0})
            await place.client.hdel(place.keys.janitor, f"next:{lane}")
            await store.prepare(place.keys, [lane])
            _, taken = await store.reclaim(place.keys, lane, 100)
            self.arrived[other] += [one for one in taken if isinstance(one, Delivery)]

    async def check(self) -> None:
        for need, capacity in CAPACITY.items():
            runs, _ = await in_lease(self.place, need)
            everybody = [*self.running.values(), *self.outlived.values()]
            ours = {
                one.envelope.id for some in everybody for one in some if need in one.envelope.extras["n"].split(",")
            }
            held = {run.partition("\n")[0] for run in runs}
            assert len(runs) <= capacity, (need, held)
            taken_over = {one.envelope.id for some in self.arrived.values() for one in some} & self.bereaved
            assert ours <= held <= ours | taken_over | self.ghosts
        for (need, lane), began in self.began.items():
            order = [id for id in self.sent[need, lane] if id in set(began)]
            assert began == order, (need, lane)
        await check_books(self.place)

    async def drain(self) -> None:
        """Without an audit: nobody may wait for a wake-up that never comes."""
        for run in await self.place.client.zrange(self.place.keys.outlived, 0, -1):
            if run.split(b" ")[1].split(b"\n")[0].decode() in self.ghosts:
                await self.place.client.zadd(self.place.keys.outlived, {run: 1})
        for _ in range(200):
            if not await self.place.client.exists(self.place.keys.live):
                break
            await self.promote()
            for worker in WORKERS:
                while self.outlived[worker]:
                    await self.over(worker, 0, 0)
                for lane in LANES:
                    await self.fetch(worker, lane, 100)
                await self.admit(worker, 0, 0)
                await self.check()
                while self.running[worker]:
                    await self.end(worker, 0, OUTCOMES[0])
        for worker in WORKERS:
            while self.outlived[worker]:
                await self.over(worker, 0, 0)
        assert await self.place.live() == {}
        assert self.ended == Counter(dict.fromkeys(self.lanes, 1)), "each job has ended exactly once"
        assert not await self.place.client.exists(
            self.place.keys.outlived, *(lease_of(self.place, one) for one in CAPACITY)
        )
        kept = ("job:", "succeeded:", "cancelled:", "dead")
        assert {name for name in await left(self.place) if not name.startswith(kept)} == set()


async def play(url: str, story: Sequence[tuple[Any, ...]]) -> None:
    async with new_place(url) as place:
        for worker in WORKERS:
            await (await place.store(worker)).prepare(place.keys, (*LANES, FIRST))
        acting = Play(place)
        for deed in story:
            await acting.act(*deed)
            await acting.check()
        await acting.drain()


@settings(max_examples=STORIES)
@given(deeds)
def test_seats_are_never_exceeded_nor_lost_and_lock_keys_keep_their_order(url: str, story: list[Any]) -> None:
    asyncio.run(play(url, story))

"""No run outlives its seats, and no seat its run: what a worker does when its heartbeats don't arrive, when a job is
cancelled, and when a run would not end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobCancelled, JobContext, JobStatus, JobTimeout, Limit, TaskRunner
from taskrunner.envelope import KEPT, TRACKED, Arrival, Delivery, Envelope, Extra
from taskrunner.errors import RedisUnavailable
from taskrunner.feature import Recipe
from taskrunner.needs import Permit, Seat, digest
from taskrunner.options import Options
from taskrunner.outcome import Failed, Failure, Released, Settlement, Succeeded
from taskrunner.store.keys import Keyspace
from taskrunner.worker.canceller import Canceller
from taskrunner.worker.executor import Executor
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.keeper import Keeper
from taskrunner.worker.runs import CANCELLED
from taskrunner.worker.settler import Settler
from taskrunner.worker.warden import Warden
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
RESERVATION = 100.0
LOCK, RATE = str(Seat(digest("lock", "a"), 1)), str(Permit(digest("rate", "a"), 1000.0, 1))


class Server:
    """Notes what it is told of seats."""

    def __init__(self, beat: float) -> None:
        self.options = SimpleNamespace(beat=beat, reservation=RESERVATION)
        self.partitions = Keyspace("taskrunner", "test", 1).partitions
        self.seating = self
        self.told: list[tuple[str, list[tuple[str, int, str]]]] = []
        self.away = False
        self.verdict = b"0"

    async def tend(self, partition: Any, how: str, runs: Sequence[tuple[str, int, str]]) -> int:
        if self.away:
            raise RedisUnavailable("away")
        self.told.append((how, list(runs)))
        return len(runs)

    async def settle(self, partition: int, queue: str, batch: Sequence[Settlement], *rest: Any) -> bytes:
        return self.verdict * len(batch)


class Room:
    """A worker's inner roles without a server. Its jobs run until they are cut, or until ``done`` is set."""

    def __init__(self, beat: float = RESERVATION / 4) -> None:
        self.server: Any = Server(beat)
        self.inventory = Inventory(4)
        self.started: list[str] = []
        self.cut: list[str] = []
        self.done = asyncio.Event()
        self.beat_ago = 0.0
        recipe = Recipe("work", Options({}), self._run, lambda *_: Failed(Failure("", ""), ""), lambda _: b"", None)
        confirmed = lambda: time.monotonic() - self.beat_ago  # noqa: E731
        self.executor = Executor(
            self.inventory, {"work": recipe}, lambda _: recipe, None, lambda: 0, confirmed, RESERVATION, 4
        )
        self.warden = Warden(self.server, self.inventory, self.executor)

    async def _run(self, delivery: Delivery) -> None:
        self.started.append(delivery.envelope.id)
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cut.append(delivery.envelope.id)
            raise

    async def runs(self, *jobs: Delivery) -> None:
        self.inventory.take(jobs)
        await eventually(lambda: len(self.started) == len(jobs))


def job(id: str, needs: str = LOCK, fetched_ago: float = 0.0, **extras: Any) -> Delivery:
    extras = {**({Extra.NEEDS: needs} if needs else {}), **extras}
    envelope = Envelope(id, "work", 1, TRACKED | KEPT, 1, extras, b"[]")
    delivery = Delivery(envelope, "default", 0, id.encode(), 1, time.monotonic() - fetched_ago)
    delivery.grant = 7 if needs else 0
    return delivery


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    made.executor.open(4)
    yield made
    await made.executor.close()


# -- no run outlives its seats -----------------------------------------------------------------------------------------


async def looked(room: Room) -> None:
    """The warden has looked, at least once."""
    room.warden._pause = 0.01
    watching = asyncio.create_task(room.warden.watch())
    await asyncio.sleep(0.1)
    await ended(watching)


async def test_of_what_was_not_renewed_in_time_only_runs_that_hold_seats_are_cut(room: Room) -> None:
    old = RESERVATION * 0.8
    await room.runs(job("locked", LOCK), job("rated", RATE), job("plain", ""), job("fresh", LOCK))
    for one in room.inventory.held:
        if isinstance(one, Delivery) and one.envelope.id != "fresh":
            one.fetched_at -= old
    await looked(room)
    assert room.cut == ["locked"]
    [back] = room.inventory.outbox
    assert isinstance(back.outcome, Released), "it is not to blame, and goes back"
    assert back.delivery in room.inventory.held, "a heartbeat that arrives after all must keep it until it is back"
    assert room.inventory.lost == 0


async def test_a_reservation_of_the_tasks_own_counts_for_its_runs(room: Room) -> None:
    own = {Extra.RESERVATION: round(RESERVATION * 100)}
    await room.runs(job("short", LOCK, **own), job("long", LOCK, **{Extra.RESERVATION: round(RESERVATION * 2000)}))
    for one in room.inventory.held:
        one.fetched_at -= RESERVATION * 0.1
    await looked(room)
    assert room.cut == ["short"]


async def test_a_job_whose_reservation_may_be_over_is_not_started_but_goes_back(room: Room) -> None:
    # Others were renewed a moment ago; of this one nobody knows.
    late = job("late", LOCK, fetched_ago=RESERVATION * 0.8)
    room.inventory.take([late])
    await eventually(room.inventory.idle.is_set)
    assert room.started == []
    [back] = room.inventory.outbox
    assert isinstance(back.outcome, Released)


class Heart:
    """Confirms beats, and says what of it is lost."""

    def __init__(self) -> None:
        self.beats: list[set[Arrival]] = []

    def beat(self, held: Sequence[Arrival], facts: Any) -> list[Arrival]:
        self.beats.append(set(held))
        return [one for one in held if isinstance(one, Delivery) and one.envelope.id == "lost"]

    def close(self) -> None: ...


async def test_a_confirmed_beat_renews_what_was_in_it_and_nothing_else(room: Room) -> None:
    old, new, plain = job("old", fetched_ago=30), job("new", fetched_ago=1), job("plain", "", fetched_ago=30)
    lost, told = job("lost", fetched_ago=30), list[Arrival]()
    before = {one: one.fetched_at for one in (old, new, plain, lost)}
    room.inventory.held.update(before)
    heart: Any = Heart()
    keeper = Keeper(heart, room.inventory, dict, told.extend, 10.0, 60.0)
    keeper.start()
    try:
        await keeper.beat_now(20)
    finally:
        await keeper.stop()
    assert heart.beats[-1] == {old, plain, lost}
    assert old.fetched_at == keeper.confirmed
    assert [one.fetched_at for one in (new, plain, lost)] == [before[one] for one in (new, plain, lost)]
    assert set(told) == {lost}


# -- no seat outlives its run ------------------------------------------------------------------------------------------


async def test_the_seats_of_a_cancelled_run_are_renewed_while_it_goes_on_and_freed_when_it_has_ended(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.server.options.beat = 0.02
    refusing, go = asyncio.Event(), asyncio.Event()

    async def stubborn(delivery: Delivery) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refusing.set()
            await go.wait()

    recipe = Recipe("work", Options({}), stubborn, lambda *_: Failed(Failure("", ""), ""), lambda _: b"", None)
    monkeypatch.setitem(room.executor._recipes, "work", recipe)  # type: ignore[arg-type]
    monkeypatch.setattr(room.executor, "_lookup", lambda _: recipe)
    lookup: Any = lambda _: None  # noqa: E731
    canceller = Canceller(room.inventory, room.executor, lookup, {"wake": 0}, ["default"])
    tending = asyncio.create_task(room.warden.tend())
    one = job("a")
    room.inventory.take([one])
    await eventually(lambda: room.executor.running() == [one])
    canceller.heard("wake", "default", b"a")
    run = ("a", 7, LOCK)
    await eventually(lambda: room.server.told.count(("renew", [run])) >= 3)
    assert refusing.is_set()
    assert not any(how == "free" for how, _ in room.server.told)
    go.set()
    await eventually(lambda: ("free", [run]) in room.server.told)
    assert room.inventory.outliving == set()
    assert await room.warden.freed(20)
    count = len(room.server.told)
    await asyncio.sleep(0.1)
    assert len(room.server.told) == count, "of what has ended nobody is told again"
    await ended(tending)


async def test_the_seats_of_what_was_cancelled_and_never_started_are_freed(room: Room) -> None:
    waiting = [job(f"{n}") for n in range(6)]
    room.inventory.take(waiting)
    await eventually(lambda: len(room.started) == 4)
    room.inventory.revoke(waiting[5:])
    assert room.inventory.vacated == waiting[5:]
    assert room.inventory.outliving == set()
    room.inventory.forfeit(waiting[4:5])
    assert room.inventory.vacated == [waiting[5], waiting[4]]


async def test_a_refused_outcome_frees_the_seats_and_an_accepted_one_needs_nothing(room: Room) -> None:
    settler = Settler(room.server, room.inventory)
    one, other = job("a"), job("b")
    for delivery, verdict in ((one, b"0"), (other, b"1")):
        room.inventory.held.add(delivery)  # its outcome is on the way
        room.inventory.revoke([delivery])
        assert room.inventory.outliving == {delivery}
        room.server.verdict = verdict
        await settler._record([Settlement(delivery, Succeeded(b"1"), 0.1)])
    assert room.inventory.vacated == [one]
    assert room.inventory.outliving == set()


async def test_what_needs_only_permits_has_nothing_to_free(room: Room) -> None:
    one = job("a", RATE)
    await room.runs(one)
    room.inventory.revoke([one])
    room.executor.interrupt([one], CANCELLED)
    await eventually(room.inventory.idle.is_set)
    assert (room.inventory.outliving, room.inventory.vacated) == (set(), [])


async def test_seats_that_could_not_be_freed_are_freed_later(room: Room) -> None:
    room.server.away = True
    one = job("a")
    await room.runs(one)
    room.inventory.revoke([one])
    room.executor.interrupt([one], CANCELLED)
    await eventually(lambda: room.inventory.vacated == [one])
    with pytest.raises(RedisUnavailable):
        await room.warden.tend()
    assert not await room.warden.freed(0.05)
    room.server.away = False
    tending = asyncio.create_task(room.warden.tend())
    assert await room.warden.freed(20)
    assert room.server.told[-1] == ("free", [("a", 7, LOCK)])
    await ended(tending)


# -- in a runner -------------------------------------------------------------------------------------------------------


async def test_a_lock_is_free_only_when_the_run_of_its_cancelled_job_has_ended(make_runner: MakeRunner) -> None:
    runner, seen, go = make_runner(), list[str](), asyncio.Event()

    @runner.task(lock_key="one")
    async def work(name: str) -> str:
        seen.append(f"start {name}")
        try:
            if name == "first":
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cut")
            await go.wait()
            seen.append("end")
        return name

    async with runner.start():
        first = await work.dispatch("first")
        await eventually(lambda: seen == ["start first"])
        second = await work.dispatch("second")
        assert await first.cancel()
        with pytest.raises(JobCancelled):
            await first.result(timeout=20)
        await eventually(lambda: "cut" in seen)
        # Longer than a reservation: it is renewed all the time.
        await asyncio.sleep(5)
        assert seen == ["start first", "cut"]
        assert await second.status() is JobStatus.BLOCKED
        go.set()
        assert await second.result(timeout=20) == "second"
    assert seen == ["start first", "cut", "end", "start second"]


async def test_a_worker_that_did_not_hear_of_a_cancellation_frees_the_lock_all_the_same(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canceller, "heard", lambda *_: None)
    runner, seen = make_runner(), list[str]()

    @runner.task(lock_key="one")
    async def work(name: str) -> str:
        seen.append(name)
        if name == "first":
            await asyncio.sleep(60)
        return name

    async with runner.start():
        first = await work.dispatch("first")
        await eventually(lambda: seen == ["first"])
        second = await work.dispatch("second")
        assert await first.cancel()
        assert await second.result(timeout=20) == "second"


@pytest.mark.leaves("dead:", "dead-letters:", "dead-tasks:")
async def test_after_a_timeout_a_lock_is_free_only_when_the_thread_has_ended(make_runner: MakeRunner) -> None:
    runner, go, seen = make_runner(), threading.Event(), list[str]()

    @runner.task(lock_key="one", timeout=0.2, max_retry=0)
    def work(ctx: JobContext, name: str) -> str:
        seen.append(f"start {name}")
        if name == "first":
            while not ctx.cancelled:
                time.sleep(0.01)
            seen.append("told")
            assert go.wait(20)
        seen.append(f"end {name}")
        return name

    async with runner.start():
        first = await work.dispatch("first")
        second = await work.dispatch("second")
        await eventually(lambda: "told" in seen)
        await asyncio.sleep(0.5)
        assert await second.status() is JobStatus.BLOCKED
        assert seen == ["start first", "told"]
        go.set()
        assert await second.result(timeout=20) == "second"
        with pytest.raises(Exception, match=JobTimeout.__name__):
            await first.result(timeout=20)
    assert seen == ["start first", "told", "end first", "start second", "end second"]


async def test_a_run_that_would_not_end_at_a_stop_keeps_its_lock_until_its_reservation_is_over(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.worker.worker.CANCEL_GRACE", 0.1)
    runner = make_runner(shutdown_timeout=0)
    other, seen = make_runner(), list[str]()
    never = asyncio.Event()

    @runner.task(name="work", limit=Limit(1, key="all"))
    async def stuck() -> None:
        seen.append("stuck")
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                seen.append("ignored")

    @other.task(name="work", limit=Limit(1, key="all"))
    async def work() -> str:
        seen.append("again")
        return "done"

    async with runner.start():
        one = await stuck.dispatch()
        await eventually(lambda: seen == ["stuck"])
        two = await stuck.dispatch()
        began = time.monotonic()
    async with other.start():
        assert await other.job(one.id).result(timeout=30) == "done"
        assert time.monotonic() - began > 3, "it was handed back although it still ran"
        assert await other.job(two.id).result(timeout=30) == "done"
    never.set()
    assert "ignored" in seen

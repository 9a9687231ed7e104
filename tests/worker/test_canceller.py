"""What a worker does when it hears that a job of its was cancelled, when it hears too early, and when it never does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskrunner import JobCancelled, JobStatus, TaskRunner
from taskrunner.envelope import KEPT, TRACKED, Delivery, Envelope
from taskrunner.outcome import Settlement, Succeeded
from taskrunner.store.reader import Reader
from taskrunner.worker import canceller
from taskrunner.worker.canceller import Canceller
from taskrunner.worker.executor import Executor
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.worker import Worker
from tests.features import process_tasks
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


def worker_of(runner: TaskRunner) -> Worker:
    assert runner._consumer is not None
    return runner._consumer._worker


def arrival(entry: bytes = b"1-1", lane: str = "default") -> Delivery:
    envelope = Envelope("job " + entry.decode(), "work", 1, TRACKED | KEPT, 1, {}, b"[]")
    return Delivery(envelope, lane, 0, entry, 1, time.monotonic())


class Room:
    """A canceller with its surroundings, and what the hooks are told."""

    def __init__(self) -> None:
        self.inventory = Inventory(2)
        self.told: list[str] = []
        room = self

        class Heard:
            async def announce(self, kind: str, delivery: Delivery, outcome: Any, seconds: float) -> None:
                room.told.append(f"{kind} {delivery.envelope.id}")

        lookup: Any = lambda delivery: Heard()  # noqa: E731
        executor = Executor(self.inventory, {}, lookup, None, lambda: 0, lambda: 0.0, 10.0, 4)
        self.canceller = Canceller(self.inventory, executor, lookup, {"wake": 0}, ["default"])


@pytest.fixture
async def room() -> Room:
    return Room()


async def test_what_has_not_started_is_dropped_and_is_no_loss(room: Room) -> None:
    first, second = arrival(b"1-1"), arrival(b"1-2")
    room.inventory.take([first, second])
    room.canceller.heard("wake", "default", b"1-1")
    await room.canceller.told(20)
    assert room.told == ["cancel job 1-1"]
    assert (room.inventory.in_hand, room.inventory.lost, room.inventory.held) == (1, 0, {second})
    assert await room.inventory.inbox.get() is second
    assert room.inventory.revoked == set()


async def test_a_notice_that_comes_before_its_job_is_remembered(room: Room) -> None:
    room.canceller.heard("wake", "default", b"1-1")
    first, second = arrival(b"1-1"), arrival(b"1-2")
    room.inventory.take([first, second])
    await room.canceller.told(20)
    assert room.told == ["cancel job 1-1"]
    assert (room.inventory.in_hand, room.inventory.lost, room.inventory.held) == (1, 0, {second})
    assert room.inventory.sieve is None, "nothing more is looked for"


async def test_what_was_cancelled_on_its_way_is_not_handed_back(room: Room) -> None:
    room.canceller.heard("wake", "default", b"1-1")
    room.inventory.hand_back([arrival(b"1-1"), arrival(b"1-2")])
    assert [one.delivery.entry_id for one in room.inventory.outbox] == [b"1-2"]


async def test_a_notice_is_not_remembered_for_ever(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canceller, "REMEMBERED", -1.0)
    room.canceller.heard("wake", "default", b"1-1")
    room.canceller.heard("wake", "default", b"1-2")
    assert list(room.canceller._expected) == [(0, "default", b"1-2")]
    room.inventory.take([arrival(b"1-3")])
    assert room.canceller._expected == {}
    assert room.inventory.sieve is None


async def test_it_remembers_so_many_and_no_more(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canceller, "MOST_REMEMBERED", 3)
    for n in range(5):
        room.canceller.heard("wake", "default", b"1-%d" % n)
    assert [entry for _, _, entry in room.canceller._expected] == [b"1-2", b"1-3", b"1-4"]


@pytest.mark.parametrize(("channel", "lane"), [("wake", "other"), ("elsewhere", "default"), ("wake", "other/high")])
async def test_what_concerns_others_is_none_of_its_business(room: Room, channel: str, lane: str) -> None:
    room.canceller.heard(channel, lane, b"1-1")
    assert room.inventory.sieve is None


async def test_an_outcome_that_is_on_its_way_is_left_to_be_refused(room: Room) -> None:
    one = arrival()
    room.inventory.take([one])
    await room.inventory.inbox.get()
    room.inventory.finish(Settlement(one, Succeeded(b"1"), 0.1))
    room.canceller.heard("wake", "default", b"1-1")
    await room.canceller.told(20)
    assert room.told == ["cancel job 1-1"]
    assert len(room.inventory.outbox) == 1
    assert room.inventory.revoked == {one}


# -- in a runner -----------------------------------------------------------------------------------------------------


def sleeper(runner: TaskRunner) -> tuple[Any, list[str]]:
    """A task that sleeps, and what is known of its runs and of the hooks."""
    seen = list[str]()
    for kind in ("success", "cancel"):
        getattr(runner, f"on_{kind}")(lambda event, kind=kind: seen.append(kind))

    @runner.task
    async def work() -> None:
        seen.append("started")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cut")
            raise

    return work, seen


async def cancelled(job: Any) -> None:
    assert await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(timeout=20)


async def test_a_job_that_was_cancelled_before_the_reply_to_its_fetch_never_starts(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = sleeper(runner)
    armed, fetched, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    fetch = Reader.fetch

    async def slow(*arguments: Any, **options: Any) -> Any:
        found = await fetch(*arguments, **options)
        if found and armed.is_set():
            fetched.set()
            await go.wait()
        return found

    monkeypatch.setattr(Reader, "fetch", slow)
    async with runner.start():
        await (await warm(runner)).result(timeout=20)
        seen.clear()
        armed.set()
        job = await work.dispatch()
        await asyncio.wait_for(fetched.wait(), 20)
        await cancelled(job)
        inventory = worker_of(runner).inventory
        await eventually(lambda: inventory.sieve is not None)
        go.set()
        await eventually(lambda: seen)
        assert inventory.lost == 0
    assert seen == ["cancel"]


async def warm(runner: TaskRunner) -> Any:
    @runner.task
    async def other() -> None: ...

    return await other.dispatch()


async def test_a_worker_that_never_heard_of_it_learns_by_its_heartbeat(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(reservation_timeout=1)
    work, seen = sleeper(runner)
    async with runner.start():
        worker = worker_of(runner)
        worker.canceller.heard = lambda *notice: None  # type: ignore[method-assign]
        job = await work.dispatch()
        await eventually(lambda: seen)
        await cancelled(job)
        await eventually(lambda: "cut" in seen)
        await eventually(lambda: worker.inventory.in_hand == 0)
    assert await job.status() is JobStatus.CANCELLED
    assert "success" not in seen


async def test_who_heard_counts_no_loss_and_warns_of_none(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(reservation_timeout=1)
    work, seen = sleeper(runner)

    @runner.task
    async def stubborn() -> None:
        seen.append("started")
        deadline = time.monotonic() + 0.8  # three heartbeats
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                seen.append("ignored")

    async with runner.start():
        jobs = [await work.dispatch(), await stubborn.dispatch()]
        await eventually(lambda: seen.count("started") == 2)
        for job in jobs:
            await cancelled(job)
        await eventually(lambda: seen.count("cancel") == 2)
        worker = worker_of(runner)
        assert (worker.inventory.lost, worker.inventory.in_hand, worker.inventory.revoked) == (0, 0, set())
    assert {"cut", "ignored"} <= set(seen)
    assert [one.getMessage() for one in caplog.records if one.levelname in ("WARNING", "ERROR")] == []


async def test_a_stubborn_run_keeps_its_slot_until_it_ends(make_runner: MakeRunner) -> None:
    runner, seen, go = make_runner(num_workers=1), list[str](), asyncio.Event()

    @runner.task
    async def stubborn() -> None:
        seen.append("started")
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                seen.append("ignored")

    @runner.task
    async def other() -> None:
        seen.append("other")

    async with runner.start():
        job = await stubborn.dispatch()
        await eventually(lambda: seen)
        following = await other.dispatch()
        await cancelled(job)
        await eventually(lambda: "ignored" in seen)
        assert await following.status() is JobStatus.QUEUED
        assert worker_of(runner).inventory.in_hand == 1
        go.set()
        await following.result(timeout=20)
    assert seen == ["started", "ignored", "other"]


async def test_a_stop_does_not_wait_for_a_stubborn_run_and_hands_nothing_back(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner, seen, go = make_runner(shutdown_timeout=0.1), list[str](), asyncio.Event()

    @runner.task
    async def stubborn() -> None:
        seen.append("started")
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                seen.append("ignored")
                if seen.count("ignored") == 3:
                    raise

    async with runner.start():
        job = await stubborn.dispatch()
        await eventually(lambda: seen)
        await cancelled(job)
        await eventually(lambda: "ignored" in seen)
    go.set()
    assert await job.status() is JobStatus.CANCELLED
    assert not [one for one in caplog.records if "refused" in one.getMessage()]


async def test_the_process_that_computes_is_killed(runner: TaskRunner, tmp_path: Path) -> None:
    hold = runner.task(pool="process")(process_tasks.hold)
    pid_file = tmp_path / "pid"
    async with runner.start():
        job = await hold.dispatch(str(pid_file), str(tmp_path / "go"))
        pid = int(await eventually(lambda: pid_file.exists() and pid_file.read_text()))
        await cancelled(job)
        await eventually(lambda: not psutil.pid_exists(pid))
        await eventually(lambda: worker_of(runner).inventory.in_hand == 0)

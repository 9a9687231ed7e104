"""Graceful stops: nothing new is taken, what runs gets its time, and what is not done goes back as it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner, current_job
from taskrunner.store.store import BLOCK, Store
from taskrunner.worker import inventory
from tests.waiting import eventually

NEVER = 300
"""A reservation in seconds that no test waits for: what comes back within the test was handed back."""


class Held:
    """Registers ``hold``, a task that runs until it is released, and ``quick``; and tells what ran."""

    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner
        self.runs: list[tuple[str, int, int]] = []
        self.running = asyncio.Event()
        self.release = asyncio.Event()

        @runner.task
        async def hold() -> str:
            self._note("hold")
            self.running.set()
            await self.release.wait()
            return "done"

        @runner.task
        async def quick(n: int = 0) -> int:
            self._note("quick")
            return n

        self.hold, self.quick = hold, quick

    def _note(self, name: str) -> None:
        job = current_job()
        self.runs.append((name, job.attempt, job.deliveries))


async def stopping(runner: TaskRunner, begin: asyncio.Event) -> float:
    """Runs until ``begin`` is set, then stops. Returns the seconds that the stop took."""
    async with runner.start():
        await begin.wait()
        began = time.monotonic()
    return time.monotonic() - began


async def test_a_running_job_gets_its_time_and_nothing_new_is_taken(make_runner: Callable[..., TaskRunner]) -> None:
    first = Held(make_runner(reservation_timeout=NEVER, shutdown_timeout=20))
    stop = asyncio.Event()
    ending = asyncio.create_task(stopping(first.runner, stop))
    job = await first.hold.dispatch()
    await first.running.wait()
    stop.set()
    await eventually(lambda: not first.runner.ready)
    late = [await first.quick.dispatch(n) for n in range(5)]
    await asyncio.sleep(0.1)  # time enough to take them, for one that does
    first.release.set()
    await ending
    assert first.runs == [("hold", 1, 1)]
    second = Held(make_runner(reservation_timeout=NEVER))
    async with second.runner.start():
        assert await second.runner.job(job.id).result(10) == "done"
        assert [await second.runner.job(one.id).result(10) for one in late] == list(range(5))
    assert second.runs == [("quick", 1, 1)] * 5


async def test_a_job_that_outlasts_the_shutdown_timeout_is_handed_back_and_has_spent_nothing(
    make_runner: Callable[..., TaskRunner],
) -> None:
    first = Held(make_runner(reservation_timeout=NEVER, shutdown_timeout=0.2))
    async with first.runner.start():
        job = await first.hold.dispatch()
        await first.running.wait()
    second = Held(make_runner(reservation_timeout=NEVER))
    second.release.set()
    async with second.runner.start():
        assert await second.runner.job(job.id).result(10) == "done"
    assert first.runs + second.runs == [("hold", 1, 1), ("hold", 1, 1)]


async def test_a_job_that_is_handed_back_keeps_the_count_of_its_crashes(
    make_runner: Callable[..., TaskRunner], make_hand: Any
) -> None:
    crashed = await make_hand("crashed")
    first = Held(make_runner(reservation_timeout=0.5, shutdown_timeout=0.2))
    job = await first.hold.dispatch()
    await crashed.fetch()
    async with first.runner.start():
        await first.running.wait()
    second = Held(make_runner(reservation_timeout=NEVER))
    second.release.set()
    async with second.runner.start():
        assert await second.runner.job(job.id).result(10) == "done"
    assert first.runs + second.runs == [("hold", 1, 2), ("hold", 1, 2)]


async def test_what_was_fetched_and_has_not_started_goes_back_at_once(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "READ_AHEAD", 10.0)
    first = Held(make_runner(reservation_timeout=NEVER, shutdown_timeout=20, num_workers=1))
    stop = asyncio.Event()
    ending = asyncio.create_task(stopping(first.runner, stop))
    for job in [await first.quick.dispatch() for _ in range(50)]:
        await job.wait(10)  # so that it knows that it is fast, and reads ahead
    held = await first.hold.dispatch()
    fetched = await first.runner.dispatch_many([first.quick.job(n) for n in range(20)])
    await first.running.wait()
    await eventually(lambda: _all_running(fetched))
    stop.set()
    second = Held(make_runner(reservation_timeout=NEVER))
    async with second.runner.start():
        assert [await job.result(10) for job in fetched] == list(range(20))
        assert not ending.done()
        first.release.set()
        assert await held.result(10) == "done"
    await ending
    assert second.runs == [("quick", 1, 1)] * 20


async def _all_running(jobs: list[Any]) -> bool:
    return {str(await job.status()) for job in jobs} == {"running"}


@pytest.mark.parametrize("error", [RuntimeError, TimeoutError], ids=lambda kind: kind.__name__)
async def test_a_run_that_fails_because_it_is_cancelled_has_spent_nothing_either(
    error: type[Exception], make_runner: Callable[..., TaskRunner]
) -> None:
    runner = make_runner(reservation_timeout=NEVER, shutdown_timeout=0.1)
    runs: list[tuple[int, int]] = []
    running = asyncio.Event()

    @runner.task(max_retry=0)
    async def fragile() -> str:
        runs.append((current_job().attempt, current_job().deliveries))
        if len(runs) == 2:
            return "done"
        running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise error("the connection that I was waiting for is broken now") from None
        return "not cancelled"

    async with runner.start():
        job = await fragile.dispatch()
        await running.wait()
    async with runner.start():
        assert await job.result(10) == "done"
    assert runs == [(1, 1), (1, 1)]


async def test_a_run_that_ignores_its_cancellation_is_written_off_and_its_job_runs_elsewhere(
    make_runner: Callable[..., TaskRunner],
) -> None:
    first, second = make_runner(reservation_timeout=NEVER, shutdown_timeout=0.1), make_runner()
    running, release = asyncio.Event(), asyncio.Event()

    @first.task(name="stubborn")
    async def stubborn() -> str:
        running.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "first"

    @second.task(name="stubborn")
    async def obedient() -> str:
        return "second"

    async with first.start():
        job = await stubborn.dispatch()
        await running.wait()
    async with second.start():
        assert await second.job(job.id).result(10) == "second"
        release.set()
        await asyncio.sleep(0.1)
        assert await second.job(job.id).result(10) == "second"


async def test_a_job_is_kept_alive_until_its_worker_has_stopped(make_runner: Callable[..., TaskRunner]) -> None:
    first = Held(make_runner(reservation_timeout=0.7, shutdown_timeout=20))
    second = Held(make_runner(reservation_timeout=0.7))
    stop = asyncio.Event()
    ending = asyncio.create_task(stopping(first.runner, stop))
    await first.hold.dispatch()
    await first.running.wait()
    async with second.runner.start():
        stop.set()
        await asyncio.sleep(3 * 0.7)
        first.release.set()
        await ending
    assert first.runs == [("hold", 1, 1)]
    assert second.runs == []


@pytest.mark.parametrize("reconnected", [False, True], ids=["first connection", "after a reconnect"])
async def test_a_stop_does_not_wait_for_a_fetch_that_is_blocked_on_the_server(
    reconnected: bool, make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    runner = make_runner()
    async with runner.start():
        reader = await eventually(lambda: _blocked(redis_client, runner))
        if reconnected:
            await redis_client.client_kill_filter(_id=reader)
            await eventually(lambda: _blocked(redis_client, runner, other_than=reader))
        began = time.monotonic()
    assert time.monotonic() - began < BLOCK / 2


async def _blocked(client: redis.asyncio.Redis, runner: TaskRunner, other_than: str = "") -> str | None:
    """The id of the connection on which this runner's worker waits in XREADGROUP."""
    stream = runner.session().store.partitions[0].queue("default").stream
    if not await client.exists(stream):
        return None
    blocked = [one["id"] for one in await client.client_list() if "b" in one["flags"] and one["cmd"] == "xreadgroup"]
    return blocked[0] if len(blocked) == 1 and blocked[0] != other_than else None


async def test_stops_that_race_with_arrivals_strand_nothing(make_runner: Callable[..., TaskRunner]) -> None:
    producer = Held(make_runner(reservation_timeout=NEVER))
    jobs: list[Any] = []
    ended = False

    async def produce() -> None:
        while not ended:
            jobs.append(await producer.quick.dispatch(len(jobs)))

    producing = asyncio.create_task(produce())
    consumer = Held(make_runner(reservation_timeout=NEVER, num_workers=3))
    for n in range(40):
        async with consumer.runner.start():
            await asyncio.sleep(n % 8 * 0.003)
    ended = True
    await producing
    async with consumer.runner.start():
        assert [await job.result(20) for job in jobs] == list(range(len(jobs)))
    assert consumer.runs == [("quick", 1, 1)] * len(jobs)


@pytest.mark.parametrize("queues", [1, 3], ids=lambda n: f"{n} queues")
@pytest.mark.parametrize("partitions", [1, 3], ids=lambda n: f"{n} partitions")
async def test_a_stop_hands_back_what_was_being_taken_over_in_that_instant(
    queues: int, partitions: int, make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.asyncio.Redis,
) -> None:  # fmt: skip
    runner, silent = (make_runner(reservation_timeout=0.5, partitions=partitions) for _ in range(2))
    runs: list[int] = []
    names = [f"queue-{n}" for n in range(queues)]
    for name in names:

        @runner.task(name=name, queue=name)
        async def task() -> None:
            runs.append(current_job().deliveries)

    jobs = [await runner.dispatch(name) for name in names for _ in range(10)]
    await swallow(silent, names)
    taken: list[Any] = []
    real = Store.reclaim

    async def reclaim(self: Store, *args: Any, **kwargs: Any) -> Any:
        """Takes over, and doesn't come back with it before the stop."""
        more, arrivals = await real(self, *args, **kwargs)
        if arrivals:
            taken.extend(arrivals)
            await asyncio.sleep(NEVER)
        return more, arrivals

    with monkeypatch.context() as patch:
        patch.setattr(Store, "reclaim", reclaim)
        async with runner.start():
            worker = runner.session().store.options.worker_id
            await eventually(lambda: len(taken) >= partitions)
    assert runs == []
    for partition in silent.session().store.partitions:
        for name in names:
            consumers = await redis_client.xinfo_consumers(partition.queue(name).stream, "taskrunner")
            assert worker.encode() not in [one["name"] for one in consumers], "it left jobs pending"
    async with runner.start():
        for job in jobs:
            await job.wait(20)
        await eventually(lambda: _alone(redis_client, runner))
    assert len(runs) == len(jobs)


async def swallow(runner: TaskRunner, queues: list[str]) -> None:
    """Has all jobs fetched by a worker that is never heard of again."""
    store = (await runner.opened()).store
    for partition in store.partitions:
        await store.prepare(partition, queues)
        assert await store.reader(partition).fetch(queues, 100, None)


async def _alone(client: redis.asyncio.Redis, runner: TaskRunner) -> bool:
    """Whether no consumer is left but this runner's own."""
    counts = [
        len(await client.xinfo_consumers(partition.queue(name).stream, "taskrunner"))
        for partition in runner.session().store.partitions
        for name in await runner.session().store.inspection.queues()
    ]
    return set(counts) <= {1}

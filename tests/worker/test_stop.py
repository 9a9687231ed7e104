"""Graceful stops: nothing new is taken, what runs gets its time, and what is not done goes back as it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import TaskRunner, current_job
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


async def test_a_worker_whose_slots_are_all_taken_stops_as_well(make_runner: Callable[..., TaskRunner]) -> None:
    first = Held(make_runner(reservation_timeout=NEVER, shutdown_timeout=0.2, num_workers=1))
    async with asyncio.timeout(20), first.runner.start():
        held = await first.hold.dispatch()
        await first.running.wait()
        waiting = await first.hold.dispatch()
    second = Held(make_runner(reservation_timeout=NEVER))
    second.release.set()
    async with second.runner.start():
        for job in (held, waiting):
            assert await second.runner.job(job.id).result(10) == "done"
    assert first.runs == [("hold", 1, 1)]


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
    monkeypatch.setattr(inventory.Meter, "rate", lambda self, now: 20 / inventory.READ_AHEAD)
    first = Held(make_runner(reservation_timeout=NEVER, shutdown_timeout=20, num_workers=1))
    stop = asyncio.Event()
    ending = asyncio.create_task(stopping(first.runner, stop))
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

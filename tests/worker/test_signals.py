"""Stops that come from outside: signals, cancellation, and a stop before the work could begin."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.servers import Server, free_port
from tests.waiting import eventually


@pytest.fixture
def patient_fleet(own_server: Server, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet that gives its jobs more time to finish, and to be silent, than any test waits."""
    return make_fleet(own_server.url, shutdown_timeout=300, reservation_timeout=300)


async def test_a_signal_drains_and_a_second_one_ends_the_drain(patient_fleet: Fleet, own_server: Server) -> None:
    fleet = patient_fleet
    worker = await fleet.worker()
    held = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start")
    worker.signal(signal.SIGTERM)
    async with own_server.client() as client:
        # The fetch that waited on the server has been ended.
        await eventually(lambda: _nobody_waits(client))
        late = await fleet.tasks.quick.dispatch("late")
        assert worker.process.poll() is None
        assert not fleet.journal.lines("cancelled")
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert fleet.journal.lines("cancelled", job=held.id)
        assert await client.xinfo_consumers(fleet.stream, "taskrunner") == []
        fleet.tasks.open_gate("gate")
        async with fleet.runner.start():
            assert await late.result(20) == "late"
            assert await held.result(20) == os.getpid()
        assert not await leftovers(client, fleet.namespace)
    runs = fleet.journal.lines("start", job=held.id)
    assert [(run.attempt, run.deliveries) for run in runs] == [(1, 1), (1, 1)]


async def _nobody_waits(client: redis.asyncio.Redis) -> bool:
    return not any("b" in one["flags"] for one in await client.client_list())


async def test_a_signal_that_finds_nothing_running_ends_it_at_once(patient_fleet: Fleet, own_server: Server) -> None:
    worker = await patient_fleet.worker()
    await (await patient_fleet.tasks.quick.dispatch()).wait(20)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    async with own_server.client() as client:
        assert not await leftovers(client, patient_fleet.namespace)


async def test_a_runner_that_is_cancelled_hands_its_jobs_back_before_it_ends(patient_fleet: Fleet) -> None:
    fleet = patient_fleet

    async def serve() -> None:
        async with fleet.runner.start():
            await asyncio.sleep(300)

    serving = asyncio.create_task(serve())
    job = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start")
    serving.cancel()  # leaves the block, which begins to drain
    await eventually(lambda: not fleet.runner.ready)
    serving.cancel()  # in a hurry
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving, 20)
    assert fleet.journal.lines("cancelled", job=job.id)
    fleet.tasks.open_gate("gate")
    async with fleet.runner.start():
        await job.wait(20)
    runs = fleet.journal.lines("start", job=job.id)
    assert [(run.attempt, run.deliveries) for run in runs] == [(1, 1), (1, 1)]


async def test_a_runner_that_never_found_its_server_stops_at_once(make_runner: Callable[..., TaskRunner]) -> None:
    runner = make_runner(f"redis://127.0.0.1:{free_port()}/0", shutdown_timeout=300)
    async with runner.start():
        await asyncio.sleep(0.2)
        assert not runner.ready
        began = time.monotonic()
    assert time.monotonic() - began < 10

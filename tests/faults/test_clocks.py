"""Clocks that are set: the server's, by which everything is measured, and a worker's, by which nothing is."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobStatus
from tests.faults.clock import Clock
from tests.faults.mixture import Mixture
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

HELD = 6


@pytest.fixture
async def client(clocked_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with clocked_server.client() as client:
        yield client


@pytest.fixture
def clocked_fleet(clocked_server: Server, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet on a server whose clock the test sets."""
    return make_fleet(clocked_server.url)


async def has_judged(fleet: Fleet, client: redis.asyncio.Redis, clock: Clock) -> bool:
    """Whether the workers have looked for abandoned jobs by the clock as it stands, after the time that all get to
    show that they live."""
    figures = await client.hmget(fleet.keys.janitor, "last", "grace", "next:default")
    last, grace, following = (float(figure or 0) / 1000 for figure in figures)
    now = time.time() + clock.offset
    return abs(last - now) < 5 and abs(following - now) < 5 and following > grace


async def held_jobs(fleet: Fleet) -> list[Job[Any]]:
    jobs = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(HELD)])
    await fleet.tasks.seen(HELD, "start")
    return jobs


@pytest.mark.parametrize("steps", [[60], [-60], [60, -60], [-60, 60], [0.1] * 20 + [-0.1] * 20], ids=str)
async def test_a_server_clock_that_is_set_takes_no_job_from_a_worker_that_lives(
    steps: list[float], clock: Clock, clocked_fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    fleet = clocked_fleet
    busy = await fleet.worker()
    held = await held_jobs(fleet)
    idle = await fleet.worker()
    for step in steps:
        clock.step(step)
        if abs(step) > 1:
            await eventually(partial(has_judged, fleet, client, clock))
        else:
            await asyncio.sleep(0.05)  # it is being slewed: twice as fast or not at all
    await eventually(partial(has_judged, fleet, client, clock))
    fleet.tasks.open_gate("gate")
    for job in held:
        await job.wait(20)
    assert len(fleet.journal.lines("start")) == HELD
    assert not fleet.journal.lines("cancelled")
    for worker in (busy, idle):
        await fleet.end(worker)
    assert (await fleet.figures("hold")).succeeded == HELD


@pytest.mark.parametrize("step", [60, -60])
async def test_the_jobs_of_a_worker_that_dies_after_the_server_clock_was_set_are_taken_over(
    step: float, clock: Clock, clocked_fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    fleet = clocked_fleet
    victim = await fleet.worker()
    held = await held_jobs(fleet)
    other = await fleet.worker()
    clock.step(step)
    await eventually(partial(has_judged, fleet, client, clock))
    victim.signal(signal.SIGKILL)
    fleet.tasks.open_gate("gate", other.pid)
    assert [await job.result(20) for job in held] == [other.pid] * HELD
    await fleet.end(other)


async def test_a_delayed_job_comes_by_the_clock_of_the_server(
    clock: Clock, clocked_fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    fleet = clocked_fleet
    quick = fleet.tasks.quick
    await fleet.worker()
    soon, late = await quick.with_options(delay=30).dispatch(1), await quick.with_options(delay=100).dispatch(2)
    clock.step(60)
    assert await soon.result(20) == 1, "it is due by the clock that counts"
    assert await late.status() is JobStatus.SCHEDULED
    clock.step(-60)
    await eventually(partial(has_judged, fleet, client, clock))
    assert await (await quick.with_options(delay=0.1).dispatch(3)).result(20) == 3
    assert await late.status() is JobStatus.SCHEDULED
    clock.step(100)
    assert await late.result(20) == 2
    clock.step(-100)
    await eventually(partial(has_judged, fleet, client, clock))
    assert len(fleet.journal.lines("start")) == 3


async def test_no_job_is_lost_or_recorded_twice_while_the_server_clock_jumps(
    clock: Clock, clocked_fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    fleet = clocked_fleet
    workers = [await fleet.worker(num_workers=2) for _ in range(2)]
    mixture = Mixture(fleet)
    dispatching = asyncio.create_task(mixture.dispatch())
    for step in [60, -60, -60, 60] * 4:
        clock.step(step)
        await asyncio.sleep(0.1)
    await dispatching
    clock.step(60)  # what was put aside while the clock was ahead is late by no more than that
    await mixture.end()
    for worker in workers:
        await fleet.end(worker)
    await mixture.check(client)


async def test_a_job_that_expires_is_measured_by_the_server_clock_soon_after_it_was_set(
    clock: Clock, clocked_fleet: Fleet, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.clock.FRESH", 500.0)
    fleet = clocked_fleet
    await fleet.worker()
    brief = fleet.tasks.quick.with_options(expires=30)
    assert await (await brief.dispatch("before")).result(20) == "before"
    clock.step(60)
    await eventually(partial(has_judged, fleet, client, clock))

    async def runs() -> bool:
        job = await brief.dispatch("after")
        await job.wait(20)
        return await job.status() is JobStatus.SUCCEEDED

    await eventually(runs)  # the clock is looked at once in a while


@pytest.mark.parametrize("step", [300, -300])
async def test_nothing_is_measured_by_the_clock_of_a_worker(
    step: float, clock: Clock, fleet: Fleet, own_server: Server
) -> None:
    worker = await fleet.worker(environment=clock.environment)
    held = await held_jobs(fleet)
    for _ in range(2):
        clock.step(step)
        # It dispatches by a clock that is wrong, and runs what it has dispatched.
        relay = await fleet.tasks.relay.dispatch("value", delay=1.0, expires=30.0)
        following = fleet.runner.job(await relay.result(20))
        assert await following.result(20) == "value"
        [dispatched] = fleet.journal.lines("start", job=relay.id)
        [run] = fleet.journal.lines("start", job=following.id)
        assert run.at - dispatched.at > 0.9
        enqueued = (await following.info()).enqueued_at
        assert enqueued is not None
        assert abs(enqueued.timestamp() - time.time()) < 60
        assert await (await fleet.tasks.flaky.dispatch("again")).result(20) == "again"
    async with own_server.client() as client:
        await eventually(partial(has_judged, fleet, client, Still()))
    fleet.tasks.open_gate("gate")
    assert [await job.result(20) for job in held] == [worker.pid] * HELD
    assert len(fleet.journal.lines("end")) == HELD + 2 * 3
    await fleet.end(worker)


class Still:
    """A clock that nobody has set."""

    offset = 0.0

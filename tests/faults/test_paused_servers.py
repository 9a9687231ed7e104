"""Servers that stand still for longer than a reservation: nobody's jobs are taken because nobody could beat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.servers import Server
from tests.faults.workshop import Fleet

pytestmark = pytest.mark.crash

RESERVATION = 1.0
PAUSE = 2.5 * RESERVATION


async def stop(server: Server) -> None:
    server.pause()
    await asyncio.sleep(PAUSE)
    server.resume()


async def client_pause(server: Server) -> None:
    """The server's own way, which holds up writes; a client that was held up goes on with what it had asked."""
    async with server.client() as client:
        await client.client_pause(round(PAUSE * 1000), all=True)
        await client.ping()


@pytest.mark.parametrize("pause", [stop, client_pause])
async def test_after_a_pause_longer_than_the_reservation_each_job_runs_once(
    pause: Callable[[Server], Awaitable[None]], fleet: Fleet, own_server: Server
) -> None:
    workers = [await fleet.worker(num_workers=5) for _ in range(2)]
    running = [await fleet.tasks.hold.dispatch("gate") for _ in range(10)]
    await fleet.tasks.seen(10, "start")
    await pause(own_server)
    # Long enough for somebody who goes by idle time alone: every job looks abandoned now.
    await asyncio.sleep(RESERVATION)
    fleet.tasks.open_gate("gate")
    for job in running:
        await job.wait(20)
    assert len(fleet.journal.lines("start")) == 10
    assert not fleet.journal.lines("cancelled")
    for worker in workers:
        assert "took over" not in fleet.log(worker)
        await fleet.end(worker)


async def test_after_a_pause_the_jobs_of_a_worker_that_died_in_it_are_taken_over(
    fleet: Fleet, own_server: Server
) -> None:
    dead = await fleet.worker(num_workers=3)
    held = [await fleet.tasks.hold.dispatch("gate") for _ in range(3)]
    await fleet.tasks.seen(3, "start")
    living = await fleet.worker(num_workers=3)
    busy = [await fleet.tasks.hold.dispatch("gate") for _ in range(3)]
    await fleet.tasks.seen(6, "start")
    own_server.pause()
    dead.signal(9)
    await asyncio.sleep(PAUSE)
    own_server.resume()
    await fleet.tasks.seen(6, "start")
    fleet.tasks.open_gate("gate")
    for job in busy + held:
        assert await job.result(20) == living.pid
    assert len(fleet.journal.lines("start", pid=living.pid)) == 6

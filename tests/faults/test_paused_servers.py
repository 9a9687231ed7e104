"""Servers that stand still for longer than a reservation: nobody's jobs are taken because nobody could beat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from taskrunner.store.store import Reader
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

RESERVATION = 1.0
PAUSE = 2.5 * RESERVATION


async def stop(server: Server) -> None:
    server.pause()
    await asyncio.sleep(PAUSE)
    server.resume()


async def client_pause(server: Server) -> None:
    """The server's own way, which holds up everything; a client that was held up goes on with what it had asked."""
    async with server.client() as client:
        await client.client_pause(round(PAUSE * 1000), all=True)
        await client.ping()


async def client_pause_writes(server: Server) -> None:
    """The same for writes: fetches and scripts are held up, and what only reads is not."""
    async with server.client() as client:
        await client.client_pause(round(PAUSE * 1000), all=False)
        await client.set("foreign", "data")


@pytest.mark.parametrize("pause", [stop, client_pause, client_pause_writes])
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


async def test_a_job_whose_reservation_may_be_over_is_not_started(fleet: Fleet, own_server: Server) -> None:
    worker = await fleet.worker(num_workers=1, prefetch=5)
    running = await fleet.tasks.hold.dispatch("gate")
    fetched = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(5)])
    await fleet.tasks.seen(1, "start", job=running.id)
    async with own_server.client() as client:
        await eventually(lambda: _pending(fleet, client, 6))
    own_server.pause()
    await asyncio.sleep(1.5 * RESERVATION)
    fleet.tasks.open_gate("gate")
    await fleet.tasks.seen(1, "end", job=running.id)
    await asyncio.sleep(0.1)  # time enough to start what it has, for one that does
    assert len(fleet.journal.lines("start")) == 1
    own_server.resume()
    for job in [running, *fetched]:
        await job.wait(20)
    assert len(fleet.journal.lines("start")) == 6
    await fleet.end(worker)


async def test_jobs_that_a_paused_server_gives_to_a_connection_that_was_given_up_are_found_again(
    make_fleet: Callable[..., Fleet], own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader.fetch, "__defaults__", (0.1,))  # seconds that a fetch waits; it is given up 3 s later
    fleet = make_fleet(own_server.url, reservation_timeout=300, num_workers=1)
    async with fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        waiting = [await fleet.tasks.quick.dispatch(n) for n in range(3)]
        own_server.pause()
        fleet.tasks.open_gate("gate")  # which makes room for a fetch
        await eventually(lambda: not fleet.runner.ready)
        own_server.resume()
        assert [await job.result(20) for job in waiting] == list(range(3))
        await running.wait(20)
    lines = fleet.journal.lines("start")
    assert [line.deliveries for line in lines] == [1] * 4


async def _pending(fleet: Fleet, client: redis.asyncio.Redis, count: int) -> bool:
    return await fleet.pending(client) == count

"""Servers whose data are deleted under the workers: groups are made again, nobody crashes or spins, new jobs run."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from taskrunner import Job, JobNotFound
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

Deed = Callable[[Server, Fleet], Awaitable[None]]


async def flush(server: Server, fleet: Fleet) -> None:
    async with server.client() as client:
        await client.flushall()


async def delete_stream(server: Server, fleet: Fleet) -> None:
    async with server.client() as client:
        await client.delete(fleet.stream)


async def destroy_group(server: Server, fleet: Fleet) -> None:
    async with server.client() as client:
        await client.xgroup_destroy(fleet.stream, "taskrunner")


async def restart_empty(server: Server, fleet: Fleet) -> None:
    server.kill()
    await server.start()


DEEDS = [flush, delete_stream, destroy_group, restart_empty]


@pytest.mark.parametrize("deed", DEEDS)
async def test_idle_workers_make_the_group_again_and_run_new_jobs(
    deed: Deed, own_server: Server, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await fleet.worker()
    async with fleet.runner.start():
        await (await fleet.tasks.quick.dispatch()).wait(20)
        await deed(own_server, fleet)
        jobs = [await fleet.tasks.quick.dispatch(n) for n in range(20)]
        assert [await job.result(20) for job in jobs] == list(range(20))
    await fleet.end(worker)
    assert "Traceback" not in fleet.log(worker) + caplog.text


@pytest.mark.parametrize("deed", DEEDS)
async def test_workers_with_jobs_in_hand_survive_it_and_run_new_jobs(
    deed: Deed, own_server: Server, fleet: Fleet
) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker(num_workers=2)
    async with fleet.runner.start():
        for job in await fleet.runner.dispatch_many([tasks.hold.job("gate") for _ in range(4)]):
            await tasks.seen(1, "start", job=job.id)
        await deed(own_server, fleet)
        tasks.open_gate("gate")
        new = [await tasks.quick.dispatch(n) for n in range(20)]
        assert [await job.result(20) for job in new] == list(range(20))
        async with own_server.client() as client:
            await eventually(lambda: _none_pending(client, fleet))
    await fleet.end(worker)


async def held_and_emptied(fleet: Fleet, deed: Deed, server: Server) -> list[Job[int]]:
    """Jobs that ran while the deed was done, and may end now; what has come after them has ended."""
    held = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(4)])
    await fleet.tasks.seen(4, "start")
    await deed(server, fleet)
    fleet.tasks.open_gate("gate")
    await (await fleet.tasks.quick.dispatch()).wait(20)
    return held


@pytest.mark.parametrize("deed", [flush, delete_stream, restart_empty])
async def test_runs_whose_jobs_were_lost_record_nothing(deed: Deed, own_server: Server, fleet: Fleet) -> None:
    async with fleet.runner.start():
        held = await held_and_emptied(fleet, deed, own_server)
        await eventually(lambda: len(fleet.journal.lines("end", "cancelled")) >= 5)
    counted = (await fleet.runner.stats("default")).per_task.get("hold")
    assert counted is None or counted.succeeded == 0
    async with own_server.client() as client:
        outcomes = [await client.get(fleet.keys.job(job.id)) or b"" for job in held]
        assert not [text for text in outcomes if text.startswith(b'["s"')], "at most, that they have lost their entry"


async def test_jobs_whose_group_was_destroyed_run_again_and_are_recorded_once(own_server: Server, fleet: Fleet) -> None:
    async with fleet.runner.start():
        held = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(4)])
        await fleet.tasks.seen(4, "start")
        await destroy_group(own_server, fleet)
        await fleet.tasks.seen(8, "start")
        fleet.tasks.open_gate("gate")
        assert [await job.result(20) for job in held] == [os.getpid()] * 4
        await fleet.tasks.seen(8, "end", "cancelled")
    figures = await fleet.figures("hold")
    assert (figures.succeeded, figures.waiting) == (4, 0)


@pytest.mark.parametrize("deed", [flush, restart_empty])
async def test_whoever_waits_for_a_job_that_was_lost_is_told(deed: Deed, own_server: Server, fleet: Fleet) -> None:
    async with fleet.runner.start():
        job = await fleet.tasks.hold.dispatch("never")
        await fleet.tasks.seen(1, "start")
        waiting = asyncio.create_task(job.result())
        async with own_server.client() as client:
            await eventually(lambda: client.exists(fleet.keys.watchers))
        await deed(own_server, fleet)
        with pytest.raises(JobNotFound):
            await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("deed", DEEDS)
async def test_nobody_spins_afterwards(
    deed: Deed, own_server: Server, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet.runner.start(), own_server.client() as client:
        await (await fleet.tasks.quick.dispatch()).wait(20)
        with caplog.at_level(logging.DEBUG, "taskrunner"):
            await deed(own_server, fleet)
            before = await _commands(client)
            await asyncio.sleep(1.5)
            sent = await _commands(client) - before
    # In 1.5 s an idle worker with a reservation of 1 s sends 6 heartbeats, 12 looks for silent workers, a read and a
    # promotion; a few more are for making the group again. One that spins sends thousands.
    assert sent < 60
    assert len(caplog.records) < 30


async def _commands(client: redis.asyncio.Redis) -> int:
    """How many scripts and reads clients have sent so far."""
    figures = await client.info("commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_xreadgroup", "cmdstat_xgroup|create", "cmdstat_ping")
    return sum(figures[name]["calls"] for name in names if name in figures)


async def _none_pending(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return await fleet.pending(client) == 0

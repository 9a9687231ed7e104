"""Workers that are stopped for longer than their reservation and then go on: they change nothing."""

from __future__ import annotations

import os
import signal
from typing import Any

import orjson
import pytest
import redis.asyncio

from taskrunner import Job
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash


async def stopped_with(fleet: Fleet, job: Job[Any]) -> Program:
    """A worker that runs this job, and is stopped."""
    worker = await fleet.worker(num_workers=1)
    await fleet.tasks.seen(1, "start", job=job.id, pid=worker.pid)
    worker.signal(signal.SIGSTOP)
    return worker


async def has_lost(client: redis.asyncio.Redis, fleet: Fleet, worker: Program, count: int) -> bool:
    """Whether the worker tells that so many of its reservations ended before their outcome was recorded."""
    told = [orjson.loads(text) for text in await client.hvals(fleet.keys.worker_facts)]
    return any(one["pid"] == worker.pid and one["lost"] == count for one in told)


async def test_the_late_result_of_a_stopped_worker_is_refused_and_counted(fleet: Fleet, own_server: Server) -> None:
    tasks = fleet.tasks
    # It keeps the event loop to itself, so that nothing but the settle can tell the worker that it has lost the job.
    job = await tasks.block.dispatch("gate")
    worker = await stopped_with(fleet, job)
    tasks.open_gate("gate")
    async with fleet.runner.start():
        assert await job.result(20) == os.getpid()
    async with own_server.client() as client:
        worker.signal(signal.SIGCONT)
        await eventually(lambda: has_lost(client, fleet, worker, 1))
        assert "1 outcomes were refused" in fleet.log(worker)
        assert len(tasks.journal.lines("end", job=job.id, pid=worker.pid)) == 1, "it had no result that could be late"
        assert await job.result(20) == os.getpid(), "the late result replaced the recorded one"
        figures = await fleet.figures("block")
        assert (figures.succeeded, figures.waiting) == (1, 0)
        another = await tasks.quick.dispatch("more")
        assert await another.result(20) == "more", "the worker does not go on"
        assert await fleet.pending(client) == 0


async def test_a_stopped_worker_ends_the_run_of_a_job_that_it_has_lost(fleet: Fleet, own_server: Server) -> None:
    tasks = fleet.tasks
    job = await tasks.hold.dispatch("gate")
    worker = await stopped_with(fleet, job)
    async with fleet.runner.start():
        await tasks.seen(1, "start", job=job.id, pid=os.getpid())
        worker.signal(signal.SIGCONT)
        await tasks.seen(1, "cancelled", job=job.id, pid=worker.pid)
        assert not tasks.journal.lines("cancelled", pid=os.getpid()), "the worker stole the job back"
        tasks.open_gate("gate")
        assert await job.result(20) == os.getpid()
    async with own_server.client() as client:
        await eventually(lambda: has_lost(client, fleet, worker, 1))
    assert (await fleet.figures("hold")).succeeded == 1


async def test_a_stopped_worker_does_not_start_what_it_had_fetched_and_lost(fleet: Fleet) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker(num_workers=1, prefetch=5)
    held = await tasks.hold.dispatch("gate")
    fetched = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(5)])
    await tasks.seen(1, "start", job=held.id)
    async with fleet.runner.start():

        async def all_fetched() -> bool:
            return [(await job.info()).worker for job in fetched].count(None) == 0

        await eventually(all_fetched)
        worker.signal(signal.SIGSTOP)
        tasks.open_gate("gate", os.getpid())
        assert [await job.result(20) for job in fetched] == list(range(5))
        worker.signal(signal.SIGCONT)
        await tasks.seen(1, "cancelled", job=held.id, pid=worker.pid)
        await (await tasks.quick.dispatch("a sign of life")).wait(20)
    last = await tasks.quick.dispatch("a sign of life")
    await last.wait(20)
    again = [job.id for job in fetched if tasks.journal.lines("start", job=job.id, pid=worker.pid)]
    assert not again


async def test_jobs_that_the_server_gives_to_a_stopped_idle_worker_run_elsewhere(fleet: Fleet) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker()
    await (await tasks.quick.dispatch("warm")).wait(20)
    worker.signal(signal.SIGSTOP)  # while it waits for jobs on the server
    swallowed = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(3)])
    assert [str(await job.status()) for job in swallowed] == ["running"] * 3, "it was not given them"
    async with fleet.runner.start():
        assert [await job.result(20) for job in swallowed] == list(range(3))
        worker.signal(signal.SIGCONT)
        await (await tasks.quick.dispatch("after")).wait(20)
    await fleet.end(worker)
    figures = await fleet.figures("quick")
    assert (figures.succeeded, figures.waiting) == (5, 0)

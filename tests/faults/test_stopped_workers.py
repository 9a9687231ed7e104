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


async def test_the_late_result_of_a_stopped_worker_does_not_free_the_unique_key(fleet: Fleet) -> None:
    tasks = fleet.tasks
    unique = tasks.rude.block_once.with_options(unique=True)
    job = await unique.dispatch("gate")
    worker = await stopped_with(fleet, job)
    async with fleet.runner.start():
        await tasks.seen(1, "start", job=job.id, pid=os.getpid())
        tasks.open_gate("gate", worker.pid)
        worker.signal(signal.SIGCONT)
        await eventually(lambda: "1 outcomes were refused" in fleet.log(worker))
        again = await unique.dispatch("gate")
        assert (again.id, again.deduplicated) == (job.id, True), "the key was freed while its job runs"
        tasks.open_gate("gate")
        assert await job.result(20) == os.getpid()
        assert not (await unique.dispatch("gate")).deduplicated


async def fetching(client: redis.asyncio.Redis) -> bool:
    """Whether a worker waits for jobs on the server."""
    return any("b" in one["flags"] and one["cmd"] == "xreadgroup" for one in await client.client_list())


async def test_a_stopped_idle_worker_swallows_no_more_than_its_slots_and_that_runs_elsewhere(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker(num_workers=2)
    await fleet.runner.opened()
    rounds, jobs = 0, list[Job[Any]]()
    async with own_server.client() as client:
        await eventually(lambda: fetching(client))
        while not await fleet.pending(client):  # its wait on the server is short, and may have been over just then
            worker.signal(signal.SIGCONT)
            await eventually(lambda: idle(client, fleet))
            worker.signal(signal.SIGSTOP)
            jobs = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(10)])
            rounds += 1
        assert await fleet.pending(client) == 2
        async with fleet.runner.start():
            assert [await job.result(20) for job in jobs] == list(range(10))
            worker.signal(signal.SIGCONT)
            await (await tasks.quick.dispatch("after")).wait(20)
    await fleet.end(worker)
    deliveries = [line.deliveries for line in tasks.journal.lines("start", pid=os.getpid()) if line.job in ids(jobs)]
    assert sorted(deliveries) == [1] * 8 + [2] * 2
    figures = await fleet.figures("quick")
    assert (figures.succeeded, figures.waiting) == (10 * rounds + 1, 0)


async def test_a_worker_that_is_stopped_for_longer_than_its_fetch_waits_swallows_nothing(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker()
    async with own_server.client() as client:
        await eventually(lambda: fetching(client))
        worker.signal(signal.SIGSTOP)
        await eventually(lambda: nobody_fetches(client))
        jobs = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(3)])
        assert await fleet.pending(client) == 0
        worker.signal(signal.SIGCONT)
        assert [await job.result(20) for job in jobs] == list(range(3))
    assert [line.deliveries for line in tasks.journal.lines("start")] == [1] * 3


async def idle(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return await fetching(client) and not await fleet.pending(client)


async def nobody_fetches(client: redis.asyncio.Redis) -> bool:
    return not await fetching(client)


def ids(jobs: list[Job[Any]]) -> set[str]:
    return {job.id for job in jobs}

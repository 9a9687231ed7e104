"""Networks that are slow, silent, or silent for some: jobs are late, and neither lost nor recorded twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import orjson
import pytest
import redis.asyncio

from taskrunner import JobStatus
from taskrunner.store.scripts import BEAT, DISPATCH, SETTLE
from tests.cleanliness import leftovers
from tests.faults.proxy import Proxy
from tests.faults.rules import REPLIES, REQUESTS
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

HERE = os.getpid()


@pytest.fixture
async def client(own_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """One that sees the server as it is."""
    async with own_server.client() as client:
        yield client


@pytest.fixture
async def fleet(proxy: Proxy, make_fleet: Callable[..., Fleet], short_timeouts: None) -> Fleet:
    """A fleet whose runner in this process reaches the server through the proxy."""
    return make_fleet(proxy.url)


@pytest.mark.slow
async def test_a_slow_network_costs_no_worker_its_jobs(
    proxy: Proxy, own_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=4)
    workers = [await fleet.worker(url=proxy.url, num_workers=20) for _ in range(2)]
    slow = proxy.slow(0.1, jitter=0.05, rate=64_000, seed=48)
    long = await fleet.runner.dispatch_many([fleet.tasks.nap.job(6) for _ in range(8)])
    short = await fleet.runner.dispatch_many([fleet.tasks.quick.job("x" * 1_000) for _ in range(200)])
    await asyncio.gather(*(job.wait(50) for job in (*short, *long)))
    assert slow.taken > 200 * 1_000
    assert len(fleet.journal.lines("start")) == 208, "a job ran twice"
    slow.end()
    for worker in workers:
        assert "lost" not in fleet.log(worker)
        assert "took over" not in fleet.log(worker)
        await fleet.end(worker)


async def lost_here(client: redis.asyncio.Redis, fleet: Fleet) -> int:
    """How many reservations this process has lost, as its heartbeats tell."""
    told = [orjson.loads(text) for text in await client.hvals(fleet.keys.worker_facts)]
    return sum(one["lost"] for one in told if one["pid"] == HERE)


async def has_lost(client: redis.asyncio.Redis, fleet: Fleet, count: int) -> bool:
    return await lost_here(client, fleet) == count


async def test_a_worker_behind_a_black_hole_loses_its_jobs_and_changes_nothing_when_it_is_back(
    proxy: Proxy, fleet: Fleet, own_server: Server, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    async with fleet.runner.start():
        await (await tasks.quick.dispatch("warm")).wait(20)
        jobs = [await tasks.hold.dispatch("gate") for _ in range(3)]
        await tasks.seen(3, "start", pid=HERE)
        other = await fleet.worker(url=own_server.url)
        settles, dispatches = proxy.slow(role=SETTLE.sha), proxy.slow(role=DISPATCH.sha)
        hole = proxy.swallow()
        await tasks.seen(3, "start", pid=other.pid)
        await eventually(lambda: not fleet.runner.ready)
        dispatching = asyncio.create_task(tasks.quick.dispatch("from the other side"))
        tasks.open_gate("gate", HERE)
        await tasks.seen(3, "end", pid=HERE)
        await eventually(lambda: settles.taken and dispatches.taken)
        await asyncio.sleep(2.5)  # longer than any of these calls waits; so long the fault lasts
        hole.end()  # now the requests arrive that were given up, and then those that replace them
        assert await (await dispatching).result(20) == "from the other side"
        await eventually(lambda: fleet.runner.ready)
        await eventually(lambda: has_lost(client, fleet, 3))
        assert not tasks.journal.lines("cancelled", pid=other.pid)
        tasks.open_gate("gate")
        assert [await job.result(20) for job in jobs] == [other.pid] * 3
        await fleet.end(other)
        assert await (await tasks.quick.dispatch("alone again")).result(20) == "alone again"
        assert (await fleet.figures("hold")).succeeded == 3
        assert (await fleet.figures("quick")).succeeded == 3
    assert not await leftovers(client, fleet.namespace)


async def test_a_worker_whose_heartbeats_do_not_arrive_goes_on_and_what_it_has_lost_is_refused(
    proxy: Proxy, fleet: Fleet, own_server: Server, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    async with fleet.runner.start():
        await (await tasks.quick.dispatch("warm")).wait(20)
        job = await tasks.hold.dispatch("gate")
        await tasks.seen(1, "start", pid=HERE)
        other = await fleet.worker(url=own_server.url)
        hole = proxy.swallow(BEAT.sha, REQUESTS)
        await tasks.seen(1, "start", job=job.id, pid=other.pid)
        assert not tasks.journal.lines("cancelled"), "nobody has told it that it lost the job"
        short = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(100)])
        assert [await one.result(20) for one in short] == list(range(100))
        tasks.open_gate("gate", HERE)
        await tasks.seen(1, "end", job=job.id, pid=HERE)
        hole.end()
        await eventually(lambda: has_lost(client, fleet, 1))
        assert await job.status() is JobStatus.RUNNING, "the one that has lost the job has ended it"
        tasks.open_gate("gate")
        assert await job.result(20) == other.pid
        await fleet.end(other)
        assert (await fleet.figures("hold")).succeeded == 1
        assert (await fleet.figures("quick")).succeeded == 101
    assert not await leftovers(client, fleet.namespace)


async def test_a_worker_whose_heartbeats_do_not_arrive_does_not_take_its_own_jobs_for_a_dead_workers(
    proxy: Proxy, fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    async with fleet.runner.start():
        job = await tasks.hold.dispatch("gate")
        await tasks.seen(1, "start")
        hole = proxy.swallow(BEAT.sha, REQUESTS)

        async def abandoned() -> bool:
            [row] = await client.xpending_range(fleet.stream, "taskrunner", "-", "+", 10)
            return row["time_since_delivered"] > 4_000

        await eventually(abandoned)  # for four reservations
        tasks.open_gate("gate")
        assert await job.result(20) == HERE
        hole.end()
    assert [line.deliveries for line in tasks.journal.lines("start")] == [1]


async def test_heartbeats_whose_replies_do_not_arrive_keep_what_runs(
    proxy: Proxy, fleet: Fleet, own_server: Server, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    async with fleet.runner.start():
        await (await tasks.quick.dispatch("warm")).wait(20)
        job = await tasks.hold.dispatch("gate")
        await tasks.seen(1, "start", pid=HERE)
        other = await fleet.worker(url=own_server.url)
        hole = proxy.swallow(BEAT.sha, REPLIES)
        await eventually(lambda: hole.taken)
        await has_passed(client, fleet, 4.0)  # four reservations
        tasks.open_gate("gate")
        assert await job.result(20) == HERE
        hole.end()
        await fleet.end(other)
    assert len(tasks.journal.lines("start", job=job.id)) == 1


async def has_passed(client: redis.asyncio.Redis, fleet: Fleet, seconds: float) -> None:
    """Waits until those who look for abandoned jobs have done so for so long, by their own notes."""

    async def turn() -> float:
        return float(await client.hget(fleet.keys.janitor, "next:default") or 0) / 1000

    began = await eventually(turn)

    async def later() -> bool:
        return await turn() >= began + seconds

    await eventually(later)

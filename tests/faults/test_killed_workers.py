"""Workers that are killed: what they held runs elsewhere, and what they had finished does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobFailed
from tests.cleanliness import leftovers
from tests.faults.rude import DEATHS
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

SLOTS = 5
HELD = 4 * SLOTS
RESERVATION = 1.0


async def test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again(
    fleet: Fleet, own_server: Server
) -> None:
    tasks, journal = fleet.tasks, fleet.journal
    victim = await fleet.worker(num_workers=SLOTS, prefetch=HELD - SLOTS)
    finished = await fleet.runner.dispatch_many([tasks.quick.job(n) for n in range(100)])
    assert [await job.result(10) for job in finished] == list(range(100))
    held = await fleet.runner.dispatch_many([tasks.hold.job("gate") for _ in range(HELD)])
    await tasks.seen(100 + SLOTS, "start")

    async with own_server.client() as client, fleet.runner.start():
        await eventually(lambda: _pending(fleet, client, HELD))  # but only SLOTS of them run
        killed = time.monotonic()
        victim.signal(signal.SIGKILL)
        tasks.open_gate("gate")
        assert [await job.result(20) for job in held] == [os.getpid()] * HELD
        taken = [line.at - killed for line in journal.lines("start", pid=os.getpid())]
        assert min(taken) > RESERVATION / 4, "taken before its reservation could be over"
        # One reservation and two heartbeats are a reservation and a half. The rest is for a busy machine: should it
        # hold up the heartbeats themselves, then nothing is claimed for two heartbeats and a second more.
        assert max(taken) < 5 * RESERVATION
        assert len(journal.lines("start", pid=victim.pid)) == 100 + SLOTS
        assert len(journal.lines("end")) == 100 + HELD
        for name, count in (("quick", 100), ("hold", HELD)):
            figures = await fleet.figures(name)
            assert (figures.succeeded, figures.waiting) == (count, 0)


async def _pending(fleet: Fleet, client: redis.asyncio.Redis, count: int) -> bool:
    return await fleet.pending(client) == count


async def test_a_killed_worker_is_tidied_away_by_the_others(fleet: Fleet, own_server: Server) -> None:
    victim = await fleet.worker()
    job = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start")
    async with own_server.client() as client:
        async with fleet.runner.start():
            victim.signal(signal.SIGKILL)
            fleet.tasks.open_gate("gate")
            await job.wait(20)

            async def alone() -> bool:
                return await client.hlen(fleet.keys.worker_facts) == 1 and await fleet.alone(client)

            await eventually(alone)
        assert not await leftovers(client, fleet.namespace)


@pytest.mark.parametrize("way", DEATHS)
async def test_a_job_that_kills_its_workers_ends_as_a_dead_letter_and_its_neighbours_finish(
    way: str, own_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, max_deliveries=2)
    poison = await fleet.tasks.rude.perish.dispatch(way)
    neighbours = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(20)])
    workers = [await fleet.worker() for _ in range(2)]
    for worker in workers:
        assert await worker.ended() == DEATHS[way][1]
    async with fleet.runner.start():
        assert [await job.result(20) for job in neighbours] == list(range(20))
        with pytest.raises(JobFailed) as failed:
            await poison.result(20)
        assert failed.value.reason == "delivery limit"
        assert len(fleet.journal.lines("start", job=poison.id)) == 2
        [letter] = await fleet.runner.dead_letters.list()
        assert (letter.id, letter.reason) == (poison.id, "delivery limit")

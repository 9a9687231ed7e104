"""What went wrong in other queues, and what no test of a single fault tells: see the last table of docs/faults.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskrunner import Backoff, JobContext, JobFailed, TaskRunner
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_heartbeats_survive_cut_connections_and_keep_their_jobs(fleet: Fleet, own_server: Server) -> None:
    tasks, worker = fleet.tasks, await fleet.worker()
    job = await tasks.hold.dispatch("gate")
    await tasks.seen(1, "start")
    async with own_server.client() as client, fleet.runner.start():  # which would take it
        await eventually(lambda: fleet.runner.ready)
        for _ in range(4):
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.3)
        await asyncio.sleep(4)  # four reservations, in which a worker that beats no more loses it
        tasks.open_gate("gate")
        assert await job.result(20) == worker.pid
    assert len(tasks.journal.lines("start", job=job.id)) == 1
    await fleet.end(worker)


async def test_the_unique_key_of_a_killed_workers_job_is_held_until_the_job_ends_elsewhere(fleet: Fleet) -> None:
    tasks, unique = fleet.tasks, fleet.tasks.hold.with_options(unique=True)
    worker = await fleet.worker()
    job = await unique.dispatch("gate")
    await tasks.seen(1, "start")
    worker.process.kill()
    await worker.ended()
    assert (await unique.dispatch("gate")).id == job.id
    async with fleet.runner.start():
        await tasks.seen(2, "start")
        assert (await unique.dispatch("gate")).id == job.id
        tasks.open_gate("gate")
        await job.wait(20)
        second = await unique.dispatch("gate")
        assert not second.deduplicated
        await second.wait(20)


async def test_the_unique_key_of_a_job_that_kills_its_workers_is_free_when_it_is_a_dead_letter(
    own_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, max_deliveries=1)
    unique = fleet.tasks.die.with_options(unique=True)
    worker = await fleet.worker()
    job = await unique.dispatch()
    await worker.ended()
    assert (await unique.dispatch()).id == job.id
    async with fleet.runner.start():  # whose first delivery would be one too many
        with pytest.raises(JobFailed) as failed:
            await job.result(20)
        assert failed.value.reason == "delivery limit"
        second = await fleet.tasks.die.with_options(unique=True, delay=60).dispatch()
        assert not second.deduplicated


async def test_a_job_that_waits_for_longer_than_a_reservation_runs_once(
    make_runner: MakeRunner, own_server: Server
) -> None:
    runners, runs = [make_runner(own_server.url, reservation_timeout=0.2) for _ in range(3)], list[str]()
    for runner in runners:

        @runner.task(name="work")
        async def work(ctx: JobContext) -> None:
            runs.append(ctx.job_id)

    async with runners[0].start(), runners[1].start(), runners[2].start():
        bound = runners[0].tasks["work"].with_options(delay=2)
        jobs = await runners[0].dispatch_many([bound.job() for _ in range(50)])
        await asyncio.gather(*(job.wait(20) for job in jobs))
    assert sorted(runs) == sorted(job.id for job in jobs)


async def test_what_fails_while_the_server_is_away_is_retried_and_dead_lettered_when_it_is_back(
    persistent_server: Server, make_runner: MakeRunner
) -> None:
    runner, go, attempts = make_runner(persistent_server.url), asyncio.Event(), list[str]()

    @runner.task(max_retry=1, backoff=Backoff.constant(0.01))
    async def fail(name: str) -> None:
        attempts.append(name)
        await go.wait()
        raise ValueError(name)

    @runner.task(max_retry=1, backoff=Backoff.constant(0.01))
    async def recover(name: str) -> str:
        attempts.append(name)
        await go.wait()
        if attempts.count(name) == 1:
            raise ValueError(name)
        return name

    async with runner.start():
        bad, good = await fail.dispatch("bad"), await recover.dispatch("good")
        await eventually(lambda: len(attempts) == 2)
        persistent_server.kill()
        go.set()
        await eventually(lambda: not runner.ready)
        await persistent_server.start()
        assert await good.result(30) == "good"
        with pytest.raises(JobFailed, match="bad"):
            await bad.result(30)
        assert await runner.dead_letters.get(bad.id) is not None
    assert sorted(attempts) == ["bad", "bad", "good", "good"]


async def test_jobs_that_wait_for_their_time_are_not_late_after_a_restart_of_the_server(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(persistent_server.url)
    tasks, worker = fleet.tasks, await fleet.worker()
    async with fleet.runner.start(consume=False):
        soon = await tasks.quick.with_options(delay=1).dispatch("soon")
        later = await tasks.quick.with_options(delay=3).dispatch("later")
        await asyncio.sleep(0.3)  # now the promoter knows when to look, and that will be in the outage
        persistent_server.kill()
        await asyncio.sleep(1.5)
        await persistent_server.start()
        assert await soon.result(30) == "soon", "its time came while nobody was there"
        assert await later.result(30) == "later"
        info = await later.info()
    assert info.ended_at is not None
    assert info.enqueued_at is not None
    assert 3 <= (info.ended_at - info.enqueued_at).total_seconds() < 20, "and not when a day-long sleep is over"
    assert len(tasks.journal.lines("start")) == 2
    await fleet.end(worker)

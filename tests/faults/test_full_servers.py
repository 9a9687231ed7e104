"""Servers whose memory is full, and servers that would rather delete than be full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Backoff, JobContext, JobFailed, JobNotFound, QueueFull, QueueStats, Task, TaskRunner
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
LETTER = "x" * 50_000


async def fill(client: redis.asyncio.Redis) -> None:
    """Whatever it holds is too much from now on."""
    await client.config_set("maxmemory", 1)


async def test_a_server_that_was_full_before_its_first_worker_came_is_drained(
    own_server: Server, make_runner: MakeRunner
) -> None:
    runner, attempts = make_runner(own_server.url, reservation_timeout=1), list[int]()

    @runner.task(max_retry=1, backoff=Backoff.constant(0.05))
    async def work(ctx: JobContext, n: int) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError
        return n

    jobs = [await work.dispatch(n) for n in range(5)]
    jobs += [await work.with_options(delay=0.05).dispatch(n) for n in range(5)]
    async with own_server.client() as client:
        await fill(client)
        async with runner.start():
            assert [await job.result(20) for job in jobs] == [*range(5), *range(5)]
            with pytest.raises(QueueFull):
                await work.dispatch(0)
    assert sorted(attempts) == [1] * 10 + [2] * 10


async def test_a_job_that_fails_for_good_on_a_full_server_is_a_dead_letter(
    own_server: Server, make_runner: MakeRunner
) -> None:
    runner = make_runner(own_server.url)

    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError

    job = await work.dispatch()
    async with own_server.client() as client:
        await fill(client)
        async with runner.start():
            await job.wait(20)
            assert await runner.dead_letters.get(job.id) is not None


async def test_a_server_that_its_jobs_have_filled_takes_new_ones_again_when_workers_have_drained_it(
    own_server: Server, make_runner: MakeRunner
) -> None:
    producer, consumer, ran = make_runner(own_server.url), make_runner(own_server.url), list[int]()
    work = producer.declare("work", ignore_result=True)

    @consumer.task(name="work")
    async def take(text: str) -> None:
        ran.append(len(text))

    async with own_server.client() as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + 4_000_000)
        accepted = 0
        while await taken(work):
            accepted += 1
            assert accepted < 1_000
        assert accepted > 10
        async with consumer.start():
            await eventually(lambda: len(ran) == accepted)
            await eventually(lambda: taken(work))
            await eventually(lambda: len(ran) == accepted + 1)


async def taken(work: Task[..., Any]) -> bool:
    try:
        await work.dispatch(LETTER)
    except QueueFull:
        return False
    return True


async def test_a_full_server_costs_no_reservation(fleet: Fleet, own_server: Server) -> None:
    tasks, worker = fleet.tasks, await fleet.worker()
    job = await tasks.hold.dispatch("gate")
    [start] = await tasks.seen(1, "start")
    async with own_server.client() as client, fleet.runner.start():
        await eventually(lambda: fleet.runner.ready)
        await fill(client)
        await asyncio.sleep(3)  # three reservations, in which the runner here would take it
        tasks.open_gate("gate")
        assert await job.result(20) == start.pid
    assert len(tasks.journal.lines("start")) == 1
    assert "heartbeat failed" not in fleet.log(worker)
    await fleet.end(worker)


async def test_a_long_queue_is_told_of_on_a_full_server_too(own_server: Server, make_runner: MakeRunner) -> None:
    told = list[QueueStats]()
    runner = make_runner(own_server.url, num_workers=1, long_queue_threshold=0.4, long_queue_hook=told.append)

    @runner.task
    async def work() -> None:
        await asyncio.sleep(0.2)

    for _ in range(50):
        await work.dispatch()
    async with own_server.client() as client:
        await fill(client)
        async with runner.start():
            await eventually(lambda: told)
            await client.flushall()  # the rest of the queue is of no interest


# -- servers that evict ----------------------------------------------------------------------------------------------


@pytest.fixture
async def evicting_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that deletes any key when its memory is full."""
    async with Server(tmp_path / "evicting", "--maxmemory-policy", "allkeys-lru") as server:
        yield server


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "maxmemory-policy" in record.getMessage()]


async def test_a_server_that_evicts_is_told_of_loudly_once_per_start(
    evicting_server: Server, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(evicting_server.url)
    for starts in (1, 2):
        async with runner.start():
            await eventually(lambda: runner.ready)
        assert len(warnings(caplog)) == starts
    assert "allkeys-lru" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


async def test_a_server_that_never_evicts_or_must_not_be_asked_is_not_told_of(
    own_server: Server, evicting_server: Server, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    async with evicting_server.client() as client:
        await client.execute_command("ACL", "SETUSER", "worker", "on", ">horse", "~*", "&*", "+@all", "-@dangerous")
    limited = evicting_server.url.replace("//", "//worker:horse@")
    for url in (own_server.url, limited):
        runner = make_runner(url)
        async with runner.start():
            await eventually(lambda runner=runner: runner.ready)
    assert warnings(caplog) == []


async def test_a_job_whose_record_was_evicted_runs_and_whoever_waits_for_it_is_told_that_it_is_unknown(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    async with own_server.client() as client, fleet.runner.start():
        job = await tasks.hold.dispatch("gate")
        await tasks.seen(1, "start")
        waiting = asyncio.create_task(job.wait(20))
        await client.delete(fleet.keys.live)
        with pytest.raises(JobNotFound):
            await waiting
        tasks.open_gate("gate")
        assert await eventually(lambda: client.exists(fleet.keys.job(job.id)))


async def test_delayed_jobs_whose_letters_were_evicted_have_failed_and_whoever_waits_for_them_is_told(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    async with own_server.client() as client, fleet.runner.start():
        jobs = [await tasks.quick.with_options(delay=60).dispatch(n) for n in range(3)]
        waiting = [asyncio.create_task(job.wait(20)) for job in jobs]
        names = fleet.keys.queue("default")
        await client.delete(names.letters)
        await client.zadd(names.due, {job.id: 1 for job in jobs})  # the minute is over
        await client.publish(fleet.keys.wake, "due")
        for one in waiting:
            await one
        for job in jobs:
            with pytest.raises(JobFailed) as told:
                await job.result(20)
            assert told.value.reason == "orphaned"
        assert await client.hlen(fleet.keys.live) == 0
        assert await client.hlen(fleet.keys.watchers) == 0
    assert {letter.id for letter in await fleet.runner.dead_letters.list()} == {job.id for job in jobs}
    await fleet.runner.aclose()
    assert tasks.journal.lines("start") == []

"""What a workflow and a job of it in another partition lose of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobFailed, JobStatus, TaskRunner, chain
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually
from tests.workflows.auditing import audit, deliver

MakeRunner = Callable[..., TaskRunner]
LEFT = pytest.mark.leaves("stream:", "live", "followers", "unique:", "dead", "due:", "letters:", "tallies:")


@dataclass
class Afar:
    """``there`` is the partition of the job, ``keys`` that of its workflow."""

    runner: TaskRunner
    job: Any
    keys: PartitionKeys
    there: PartitionKeys
    calls: list[int]


@pytest.fixture
async def afar(make_runner: MakeRunner) -> Afar:
    """A runner of two partitions, and a chain whose first job is in the other one than the workflow."""
    runner = make_runner(partitions=2, reservation_timeout=60)
    calls: list[int] = []

    @runner.task(unique=True)
    async def alone(n: int) -> int:
        calls.append(n)
        return n

    store = (await runner.opened()).store
    for n in range(100):
        part = chain(alone.job(n), alone.job(n + 1000))
        job = await runner.dispatch(part)
        keys = store.keyspace.partitions[store.keyspace.partition_of(job.id)]
        there = store.keyspace.partitions[1 - keys.number]
        if await store.control(keys).call(b"XLEN", keys.outbox(there.number)):
            return Afar(runner, job, keys, there, calls)
        await job.cancel()
        calls.clear()
    raise AssertionError("none was in the other partition")


@LEFT
async def test_a_job_that_never_reached_its_partition_has_failed(afar: Afar, redis_client: redis.asyncio.Redis) -> None:
    runner, job, keys, there = afar.runner, afar.job, afar.keys, afar.there
    assert await audit(runner, "look") == [], "it is on its way"
    await redis_client.delete(keys.outbox(there.number))
    assert await audit(runner, "look") == ["ended"]
    assert await audit(runner) == []
    await deliver(runner)
    await audit(runner)
    assert await job.status() is JobStatus.FAILED
    with pytest.raises(JobFailed, match="Orphaned"):
        await job.result(5)


async def test_a_job_in_another_partition_that_is_only_slow_is_left_alone(
    afar: Afar, redis_client: redis.asyncio.Redis
) -> None:
    runner, job, keys, there = afar.runner, afar.job, afar.keys, afar.there
    assert await audit(runner) == []
    await deliver(runner)
    assert await audit(runner) == []
    assert await job.status() is JobStatus.RUNNING
    assert not await redis_client.xlen(keys.outbox(there.number)), "it is there, so nobody was asked"
    async with runner.start():
        await job.wait(timeout=20)
    assert await job.status() is JobStatus.SUCCEEDED


async def test_what_a_job_in_another_partition_came_to_is_told_again(
    afar: Afar, redis_client: redis.asyncio.Redis
) -> None:
    runner, job, there, calls = afar.runner, afar.job, afar.there, afar.calls
    await deliver(runner)
    await redis_client.delete(there.followers)
    assert await audit(runner, "look") == ["ended"]
    async with runner.start():
        await eventually(lambda: redis_client.exists(there.job(f"{job.id}.0")))
        await eventually(lambda: ended(runner, job))
    assert await job.status() is JobStatus.FAILED, "who follows stood in its link"
    assert len(calls) == 1


async def ended(runner: TaskRunner, job: Any) -> bool:
    await audit(runner)
    return await job.status() is not JobStatus.RUNNING


@LEFT
async def test_a_job_in_another_partition_that_was_deleted_there_is_told_of(
    afar: Afar, redis_client: redis.asyncio.Redis
) -> None:
    runner, job, keys, there = afar.runner, afar.job, afar.keys, afar.there
    await deliver(runner)
    await redis_client.delete(there.live, there.queue("default").stream, there.queue("default").waiting)
    await audit(runner)
    await deliver(runner)
    await audit(runner)
    assert await job.status() is JobStatus.FAILED
    assert not await redis_client.exists(there.followers, keys.workflows)


async def test_an_end_that_can_not_be_told_to_another_partition_is_told_later(
    afar: Afar, redis_client: redis.asyncio.Redis
) -> None:
    runner, job, keys, there, calls = afar.runner, afar.job, afar.keys, afar.there, afar.calls
    await deliver(runner)
    outbox = there.outbox(keys.number)
    await redis_client.delete(outbox)
    await redis_client.rpush(outbox, "a stranger's")
    async with runner.start():
        await eventually(lambda: redis_client.exists(there.job(f"{job.id}.0")))
        assert len(calls) == 1
        await redis_client.delete(outbox)
        await eventually(lambda: ended(runner, job))
    assert await job.status() is JobStatus.SUCCEEDED, "who follows it was not forgotten"
    assert len(calls) == 2

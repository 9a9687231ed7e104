"""delete_on_ack=False keeps finished entries in the stream, as an audit trail that is trimmed by age."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import Backoff, JobContext, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves("stream:default")


@pytest.fixture
def runner(make_runner: MakeRunner) -> TaskRunner:
    return make_runner(delete_on_ack=False)


async def work(ctx: JobContext, n: int) -> int:
    if n == 2 and ctx.attempt == 1:
        raise ValueError
    return n


async def test_finished_entries_stay_and_are_not_counted_as_waiting(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    task = runner.task(backoff=Backoff.constant(0))(work)
    async with runner.start():
        for n in range(5):
            assert await (await task.dispatch(n)).result(timeout=10) == n
        figures = await runner.stats("default")
    assert await redis_client.xlen(keys.queue("default").stream) == 6, "five jobs, one of which ran twice"
    assert (figures.waiting, figures.running) == (0, 0)
    assert figures.drain_time == 0


async def test_nothing_in_the_trail_is_run_again_by_the_next_worker(runner: TaskRunner) -> None:
    runs = list[int]()

    @runner.task
    async def once(n: int) -> None:
        runs.append(n)

    async with runner.start():
        await (await once.dispatch(1)).wait(timeout=10)
    async with runner.start():
        await (await once.dispatch(2)).wait(timeout=10)
    assert runs == [1, 2]


async def test_a_unique_key_is_free_though_the_entry_of_its_job_is_still_there(runner: TaskRunner) -> None:
    task = runner.task(unique=True)(work)
    async with runner.start():
        for _ in range(3):
            job = await task.dispatch(1)
            assert not job.deduplicated
            await job.result(timeout=10)


async def trim(runner: TaskRunner, age: float) -> int:
    store = (await runner.opened()).store
    store.options = dataclasses.replace(store.options, audit_age=age)
    return await store.trim(store.partitions[0], "default")


async def test_trimming_takes_what_is_old_and_nothing_that_has_not_finished(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    go, started, stream = asyncio.Event(), asyncio.Event(), keys.queue("default").stream

    @runner.task
    async def hold() -> None:
        started.set()
        await go.wait()

    task = runner.task(work)
    async with runner.start():
        for n in (0, 1):
            await (await task.dispatch(n)).wait(timeout=10)
        assert await trim(runner, 3600) == 0
        held = await hold.dispatch()
        await started.wait()
        for n in (3, 4):
            await (await task.dispatch(n)).wait(timeout=10)
        await eventually(lambda: is_older(redis_client, stream))
        assert await trim(runner, 0.001) == 2, "the two before the one that runs"
        assert await redis_client.xlen(stream) == 3
        assert (await runner.stats("default")).waiting == 0
        go.set()
        await held.wait(timeout=10)
    waiting = await task.dispatch(5)
    await eventually(lambda: is_older(redis_client, stream))
    await trim(runner, 0.001)
    rows = await redis_client.xrange(stream)
    assert rows[-1][1][b"t1"].endswith(b"[[5]]"), "what nobody has read yet stays"
    async with runner.start():
        assert await waiting.result(timeout=10) == 5
        await eventually(lambda: is_older(redis_client, stream))
        await trim(runner, 0.001)
        assert (await runner.stats("default")).waiting == 0
    assert await redis_client.xlen(stream) <= 1, "the last entry may stay as the border of what was delivered"


async def is_older(client: redis.asyncio.Redis, stream: str) -> bool:
    """Whether the newest entry of the stream is some milliseconds old by the server's clock."""
    seconds, micros = await client.time()
    [(id, _)] = await client.xrevrange(stream, count=1)
    return seconds * 1000 + micros // 1000 > int(id.partition(b"-")[0]) + 5

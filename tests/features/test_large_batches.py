"""One script call takes at most about a megabyte of letters, so that the server answers others meanwhile."""

from __future__ import annotations

import asyncio

import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.store.store import BATCH_BYTES

TEXT = "x" * 100_000


async def _scripts(client: redis.asyncio.Redis) -> int:
    info = await client.info("commandstats")
    return int(info.get("cmdstat_evalsha", {}).get("calls", 0)) + int(info.get("cmdstat_eval", {}).get("calls", 0))


async def test_large_jobs_go_out_in_batches_of_bytes(runner: TaskRunner, redis_client: redis.asyncio.Redis) -> None:
    @runner.task
    async def measure(text: str) -> int:
        return len(text)

    before = await _scripts(redis_client)
    jobs = await runner.dispatch_many([measure.job(TEXT) for _ in range(30)])
    jobs += await asyncio.gather(*(measure.dispatch(TEXT) for _ in range(30)))
    assert await _scripts(redis_client) - before >= 60 * len(TEXT) // BATCH_BYTES
    async with runner.start():
        assert [await job.result(10) for job in jobs] == [len(TEXT)] * 60


async def test_large_jobs_that_are_due_together_all_run(runner: TaskRunner) -> None:
    @runner.task
    async def measure(text: str) -> int:
        return len(text)

    bound = measure.with_options(delay=0.2)
    jobs = await asyncio.gather(*(bound.dispatch(TEXT) for _ in range(30)))
    async with runner.start():
        assert [await job.result(10) for job in jobs] == [len(TEXT)] * 30


async def test_large_results_are_recorded(runner: TaskRunner) -> None:
    @runner.task
    async def blow_up(n: int) -> str:
        return "x" * n

    async with runner.start():
        jobs = await runner.dispatch_many([blow_up.job(200_000) for _ in range(20)])
        assert {len(await job.result(10)) for job in jobs} == {200_000}

"""Figures are worth less than jobs: rubbish under their keys must not cost an outcome."""

from __future__ import annotations

import redis.asyncio

from taskrunner import TaskRunner


async def test_rubbish_under_the_figures_costs_no_job_its_outcome(
    runner: TaskRunner, redis_client: redis.asyncio.Redis
) -> None:
    @runner.task
    async def double(n: int) -> int:
        return 2 * n

    keys = runner._new_session().store.partitions[0].queue("default")
    await redis_client.hset(keys.runs, "double", "rubbish")
    await redis_client.hset(keys.waiting, "double", "rubbish")
    for field in ("arrived", "completed", "slots", "loop"):
        await redis_client.hset(keys.rates, field, "rubbish")
    async with runner.start():
        jobs = [await double.dispatch(n) for n in range(20)]
        assert [await job.result(10) for job in jobs] == [2 * n for n in range(20)]
    await redis_client.hdel(keys.waiting, "double")
    await redis_client.hdel(keys.rates, "slots", "loop")  # nobody has reported these yet
    assert (await runner.stats("default")).per_task["double"].succeeded == 20


async def test_run_times_of_an_older_release_are_begun_anew(
    runner: TaskRunner, redis_client: redis.asyncio.Redis
) -> None:
    @runner.task
    async def noop() -> None: ...

    keys = runner._new_session().store.partitions[0].queue("default")
    await redis_client.hset(keys.runs, "noop", '{"ok": 5, "failed": 0, "retried": 0, "n": 5, "sum": 1}')
    async with runner.start():
        await (await noop.dispatch()).result(10)
    assert (await runner.stats("default")).per_task["noop"].succeeded == 1

"""``ctx.cancelled``: how code that can't be interrupted learns that it should end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobContext, JobFailed, TaskRunner, current_job
from taskrunner.store.keys import Keyspace
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")


async def test_it_is_false_in_a_run_that_nobody_stops(runner: TaskRunner) -> None:
    @runner.task(timeout=60)
    async def work(ctx: JobContext) -> bool:
        return ctx.cancelled

    @runner.task
    def plain() -> bool:
        return current_job().cancelled

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) is False
        assert await (await plain.dispatch()).result(timeout=10) is False


@end_in_dead_letters
async def test_a_thread_sees_its_timeout_and_can_end(runner: TaskRunner) -> None:
    ended = threading.Event()

    @runner.task(timeout=0.05, max_retry=0)
    def work(ctx: JobContext) -> None:
        while not ctx.cancelled:
            pass
        ended.set()

    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await work.dispatch()).result(timeout=20)
    assert failed.value.error_type == "JobTimeout"
    assert ended.is_set()


@end_in_dead_letters
async def test_a_coroutine_that_cleans_up_after_its_timeout_sees_it(runner: TaskRunner) -> None:
    seen = list[bool]()

    @runner.task(timeout=0.05, max_retry=0)
    async def work(ctx: JobContext) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(ctx.cancelled)

    async with runner.start():
        await (await work.dispatch()).wait(timeout=20)
    assert seen == [True]


async def test_a_thread_sees_the_deadline_of_a_stop(make_runner: MakeRunner) -> None:
    runner, started, ended = make_runner(shutdown_timeout=0.1), threading.Event(), threading.Event()
    last = False

    @runner.task
    def work(ctx: JobContext) -> str:
        started.set()
        while not ctx.cancelled and not last:
            pass
        ended.set()
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await eventually(started.is_set)
    assert ended.wait(20)
    last = True
    async with runner.start():
        assert await job.result(timeout=20) == "done"


async def test_a_thread_sees_that_another_worker_has_its_job(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    runner, told = make_runner(reservation_timeout=0.8), threading.Event()
    started, runs = threading.Event(), 0
    stream = Keyspace("taskrunner", runner.settings.namespace, 1).partitions[0].queue("default").stream

    @runner.task
    def work(ctx: JobContext) -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            started.set()
            while not ctx.cancelled:
                pass
            told.set()
        return f"run {runs}"

    async with runner.start():
        job = await work.dispatch()
        await eventually(started.is_set)
        [pending] = await redis_client.xpending_range(stream, "taskrunner", "-", "+", 1)
        await redis_client.xclaim(stream, "taskrunner", "thief", 0, [pending["message_id"]])
        await eventually(told.is_set)
        assert await job.result(timeout=30) == "run 2"
        await eventually(lambda: alone(redis_client, stream))


async def alone(client: redis.asyncio.Redis, stream: str) -> bool:
    return len(await client.xinfo_consumers(stream, "taskrunner")) == 1

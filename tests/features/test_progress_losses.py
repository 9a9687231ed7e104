"""ctx.progress() of a job that was lost or deleted meanwhile, and while no report can be written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobContext, JobStatus, TaskRunner
from taskrunner.errors import RedisUnavailable
from taskrunner.store import progress as store_progress
from taskrunner.store.keys import PartitionKeys
from tests.features.reports import amounts, of
from tests.waiting import eventually


async def test_a_run_that_has_lost_its_job_does_not_replace_what_the_new_owner_told(
    make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(reservation_timeout=1)
    lost, told, late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> None:
        if ctx.deliveries > 1:
            await ctx.progress(2)
            told.set()
            await late.wait()
            return
        try:
            lost.set()
            await asyncio.sleep(600)
        finally:
            await told.wait()
            await ctx.progress(1)
            late.set()

    async with runner.start():
        job = await work.dispatch()
        await lost.wait()
        name = keys.queue("default").stream
        [entry] = await redis_client.xpending_range(name, "taskrunner", "-", "+", 1)
        await redis_client.xclaim(name, "taskrunner", "somebody-else", 0, [entry["message_id"]])
        await job.result(timeout=20)
        assert await amounts(job) == (2, None, None)


async def test_of_a_job_that_was_deleted_no_report_is_left(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    deleted, ended = asyncio.Event(), asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1)
        try:
            await asyncio.sleep(600)
        finally:
            await deleted.wait()
            await ctx.progress(2)
            ended.set()

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: amounts(job))
        assert await runner.delete(job.id)
        deleted.set()
        await asyncio.wait_for(ended.wait(), 20)
    assert [key async for key in redis_client.scan_iter(match=f"*{namespace}*progress:*")] == []


async def test_a_job_goes_on_and_ends_while_no_report_can_be_written(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def write(*_: Any) -> None:
        raise RedisUnavailable("gone")

    monkeypatch.setattr(store_progress, "write", write)

    @runner.task
    async def work(ctx: JobContext) -> str:
        for n in range(10):
            await ctx.progress(n)
        return "done"

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=20) == "done"
        assert await of(job) is None
    assert "could not be written, trying again: gone" in caplog.text


async def test_a_report_that_could_not_be_written_is_written_when_it_can_be(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures, go = store_progress.write, 0, asyncio.Event()

    async def write(*arguments: Any) -> None:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise RedisUnavailable("gone")
        await original(*arguments)

    monkeypatch.setattr(store_progress, "write", write)

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1)
        await go.wait()

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: amounts(job))
        assert (failures, await job.status()) == (3, JobStatus.RUNNING)
        go.set()
        await job.result(timeout=20)

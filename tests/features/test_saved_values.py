"""Interim values: kept while a job works, seen by its next attempt and from outside, gone with its outcome."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    JobContext,
    JobEvent,
    JobFailed,
    JobStatus,
    PayloadError,
    PayloadTooLarge,
    Retry,
    Snooze,
    TaskRunner,
    UsageError,
    current_job,
)
from taskrunner.store.keys import Keyspace
from tests.features import process_tasks
from tests.programs import Program
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
AT_ONCE = Backoff.constant(0)


async def test_the_last_value_counts_and_is_seen_from_outside(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> str:
        assert await ctx.saved() is None
        await ctx.save({"row": 1})
        await current_job().save({"row": 2})
        await go.wait()
        return "done"

    async def seen() -> bool:
        return bool((await job.info()).saved == {"row": 2})

    async with runner.start():
        job = await work.dispatch()
        await eventually(seen)
        go.set()
        assert await job.result(timeout=10) == "done"
        assert (await job.info()).saved == {"row": 2}


async def test_a_run_that_returns_nothing_has_the_saved_value_as_its_result(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext, values: list[int]) -> Any:
        for value in values:
            await ctx.save(value)

    async with runner.start():
        assert await (await work.dispatch([1, 2])).result(timeout=10) == 2
        assert await (await work.dispatch([])).result(timeout=10) is None
        assert await (await work.dispatch([0])).result(timeout=10) == 0


@pytest.mark.parametrize("again", [ValueError("no"), Retry(0), Snooze(0)], ids=lambda error: type(error).__name__)
async def test_the_next_run_sees_what_the_one_before_has_saved(runner: TaskRunner, again: Exception) -> None:
    seen = list[Any]()

    @runner.task(backoff=AT_ONCE)
    async def work(ctx: JobContext) -> None:
        seen.append(await ctx.saved())
        if len(seen) < 3:
            await ctx.save(len(seen))
            raise again

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == 2, "what it read is what it goes on with"
    assert seen == [None, 1, 2]


@end_in_dead_letters
async def test_what_a_failed_job_saved_can_be_read(runner: TaskRunner) -> None:
    @runner.task(max_retry=1, backoff=AT_ONCE)
    async def work(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            await ctx.save("as far as this")
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        with pytest.raises(JobFailed):
            await job.result(timeout=10)
        info = await runner.job(job.id).info()
    assert (info.status, info.saved) == (JobStatus.FAILED, "as far as this")


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_value_is_known_as_long_as_the_outcome(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)
    keyspace = Keyspace("taskrunner", runner.settings.namespace, partitions)
    lives = list[int]()

    async def lifetime(job_id: str) -> int:
        key = keyspace.partitions[keyspace.partition_of(job_id)].saved(job_id)
        return int(await redis_client.pttl(key))

    @runner.task(result_ttl=100, backoff=AT_ONCE)
    async def work(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            await ctx.save(1)
            lives.append(await lifetime(ctx.job_id))
            raise ValueError

    async def short() -> bool:
        return 0 < await lifetime(job.id) <= 100_000

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=10)
        await eventually(short)
    assert lives[0] > 6 * 86_400_000, "while the job lives it waits for any retry"


@end_in_dead_letters
async def test_what_can_not_be_kept_is_refused_in_the_task_and_the_last_value_stays(make_runner: MakeRunner) -> None:
    runner, refused = make_runner(max_payload=1000), list[type]()

    @runner.task(max_retry=0)
    async def work(ctx: JobContext) -> None:
        await ctx.save("fine")
        for value in (object(), float("nan"), "x" * 1001):
            with pytest.raises(PayloadError, match="the value that task 'work' saved") as caught:
                await ctx.save(value)
            refused.append(caught.type)

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "fine"
    assert refused == [PayloadError, PayloadError, PayloadTooLarge]


async def test_a_thread_saves_by_way_of_the_event_loop(runner: TaskRunner) -> None:
    @runner.task
    def work(ctx: JobContext) -> None:
        anyio.from_thread.run(ctx.save, "from a thread")

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == "from a thread"


@end_in_dead_letters
async def test_a_process_can_not_save_and_is_told_so(runner: TaskRunner) -> None:
    save = runner.task(pool="process", max_retry=0)(process_tasks.save)
    async with runner.start():
        with pytest.raises(JobFailed, match="no way to the server") as failed:
            await (await save.dispatch()).result(timeout=30)
    assert failed.value.error_type == UsageError.__name__


@end_in_dead_letters
async def test_a_hook_saves_too(runner: TaskRunner) -> None:
    @runner.on_failure
    async def on_failure(event: JobEvent) -> None:
        assert event.error is not None
        await event.save(f"failed with {event.error.error_type}")

    @runner.task(max_retry=0)
    async def work() -> None:
        raise KeyError

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=10)
        assert (await job.info()).saved == "failed with KeyError"


@pytest.mark.crash
async def test_a_value_outlives_a_worker_that_is_killed(
    make_runner: MakeRunner,
    program: Callable[..., Program],
    redis_client: redis.asyncio.Redis,
    url: str,
    namespace: str,
) -> None:
    runner, found = make_runner(reservation_timeout=1), list[Any]()

    @runner.task(queue="kill")
    async def work(ctx: JobContext) -> None:
        found.append(await ctx.saved())

    worker = program(
        """
        import asyncio, os
        from taskrunner import JobContext, TaskRunner

        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=1)

        @runner.task(queue="kill")
        async def work(ctx: JobContext) -> None:
            await ctx.save([1, 2])
            print("saved")
            await asyncio.sleep(600)

        asyncio.run(runner.run())
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    job = await work.dispatch()
    assert await worker.line() == "saved"
    os.kill(worker.pid, signal.SIGKILL)
    keys = Keyspace("taskrunner", namespace, 1).partitions[0]

    async def tidied_up() -> bool:
        streams = [keys.queue(queue).stream for queue in ("default", "kill")]
        consumers = {
            one["name"] for stream in streams for one in await redis_client.xinfo_consumers(stream, "taskrunner")
        }
        alive = set(await redis_client.zrange(keys.workers, 0, -1))
        return len(alive) == 1 and consumers <= alive  # older servers make a consumer with its first job only

    async with runner.start():
        assert await job.result(timeout=40) == [1, 2]
        await eventually(tidied_up)
    assert found == [[1, 2]]


async def test_a_run_whose_job_was_deleted_leaves_no_value_behind(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    running, deleted, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.save("before")
        running.set()
        try:
            await asyncio.sleep(600)
        finally:
            await deleted.wait()
            await ctx.save("after")
            ended.set()

    async with runner.start():
        job = await work.dispatch()
        await running.wait()
        assert await runner.delete(job.id)
        deleted.set()
        await asyncio.wait_for(ended.wait(), 20)
    assert [key async for key in redis_client.scan_iter(match=f"*{namespace}*saved:*")] == []


async def test_a_job_that_leaves_no_record_leaves_no_value_when_it_is_cancelled(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    running = asyncio.Event()

    @runner.task(ignore_result=True)
    async def work(ctx: JobContext) -> None:
        await ctx.save("half")
        running.set()
        await asyncio.sleep(600)

    async with runner.start():
        job = await work.with_options(id="mine").dispatch()
        await running.wait()
        assert await job.cancel()
    assert [key async for key in redis_client.scan_iter(match=f"*{namespace}*saved:*")] == []


async def test_a_run_that_has_lost_its_job_does_not_replace_what_the_new_owner_saved(
    make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner, stream = make_runner(reservation_timeout=1), Keyspace("taskrunner", namespace, 1).partitions[0]
    lost, saved, late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> None:
        if ctx.deliveries > 1:
            await ctx.save("new")
            saved.set()
            await late.wait()
            return
        try:
            lost.set()
            await asyncio.sleep(600)
        finally:
            await saved.wait()
            await ctx.save("old")
            late.set()

    async with runner.start():
        job = await work.dispatch()
        await lost.wait()
        name = stream.queue("default").stream
        [entry] = await redis_client.xpending_range(name, "taskrunner", "-", "+", 1)
        await redis_client.xclaim(name, "taskrunner", "somebody-else", 0, [entry["message_id"]])
        assert await job.result(timeout=20) == "new"
        assert (await job.info()).saved == "new"


async def test_a_value_of_a_run_that_was_lost_is_known_no_longer_than_the_outcome_either(
    make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner, keys = make_runner(reservation_timeout=1), Keyspace("taskrunner", namespace, 1).partitions[0]
    saved = asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> str:
        if ctx.deliveries == 1:
            await ctx.save("half")
            saved.set()
            await asyncio.sleep(600)
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await saved.wait()
        name = keys.queue("default").stream
        [entry] = await redis_client.xpending_range(name, "taskrunner", "-", "+", 1)
        await redis_client.xclaim(name, "taskrunner", "somebody-else", 0, [entry["message_id"]])
        assert await job.result(timeout=20) == "done"
        await eventually(lambda: ends_with_the_outcome(redis_client, keys.saved(job.id)))


async def ends_with_the_outcome(client: redis.asyncio.Redis, key: str) -> bool:
    return 0 <= await client.pttl(key) <= 300_000

"""runner.delete_result(): what is known of a job that has ended goes; live jobs and dead letters are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobCancelled, JobContext, JobFailed, JobNotFound, JobStatus, TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.store.scripts import FORGET
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def remains(client: redis.asyncio.Redis, namespace: str, id: str) -> set[str]:
    """The keys that are named after a job."""
    return {
        key.decode().partition("}:")[2]
        async for key in client.scan_iter(match=f"*{{{namespace}.*}}:*", count=1000)
        if key.decode().endswith(f":{id}")
    }


async def listed(runner: TaskRunner, state: str) -> set[str]:
    return {info.id for info in await runner.jobs(state)}


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_outcome_of_a_job_is_unknown_afterwards_and_nothing_of_it_is_left(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.save("half")
        await ctx.progress(1, 2)

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        assert await remains(redis_client, namespace, job.id) == {
            f"{kind}:{job.id}" for kind in ("job", "saved", "progress")
        }
        assert await runner.delete_result(job.id) is True
        assert await remains(redis_client, namespace, job.id) == set()
        for question in (job.status, job.info, job.result, job.wait):
            with pytest.raises(JobNotFound):
                await question()


async def test_it_goes_off_the_list_and_only_it(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    @runner.task
    async def work() -> None: ...

    async with runner.start():
        jobs = [await work.with_options(id=id).dispatch() for id in ("1", "11", "2")]
        high = await work.with_options(id="high", priority="high").dispatch()
        for job in (*jobs, high):
            await job.wait(timeout=20)
        assert await runner.delete_result("1")
        assert await runner.delete_result("high")
        assert await listed(runner, "succeeded") == {"11", "2"}
    keys = Keyspace("taskrunner", namespace, 1).partitions[0]
    assert set(await redis_client.lrange(keys.queue("default").succeeded, 0, -1)) == {b"11", b"2"}
    assert await redis_client.lrange(keys.queue("default/high").succeeded, 0, -1) == []


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_that_of_a_job_that_never_ran_goes_too(runner: TaskRunner, how: str) -> None:
    @runner.task
    async def work() -> None: ...

    options: dict[str, Any] = {"delay": 600} if how == "cancelled" else {"delay": 0.05, "expires": 0.01}
    job = await work.with_options(**options).dispatch()
    if how == "cancelled":
        assert await job.cancel()
    async with runner.start():
        await job.wait(timeout=20)
        assert await job.status() == how
        assert await listed(runner, how) == {job.id}
        assert await runner.delete_result(job.id)
        assert await listed(runner, how) == set()


async def test_a_second_time_there_is_nothing(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> None: ...

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        assert [await runner.delete_result(job.id) for _ in range(3)] == [True, False, False]
        assert not await runner.delete_result("nobody")


@pytest.mark.parametrize("state", ["scheduled", "running"])
async def test_a_live_job_is_left_alone(runner: TaskRunner, state: str) -> None:
    go, started = asyncio.Event(), asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> str:
        await ctx.save("half")
        started.set()
        await go.wait()
        return str(await ctx.saved())

    job = await work.with_options(delay=0.5 if state == "scheduled" else 0).dispatch()
    async with runner.start():
        if state == "running":
            await started.wait()
        assert await job.status() == state
        assert await runner.delete_result(job.id) is False
        go.set()
        assert await job.result(timeout=20) == "half"


async def test_what_an_untracked_job_has_saved_is_left_alone_while_it_runs(runner: TaskRunner) -> None:
    saved, go, found = asyncio.Event(), asyncio.Event(), list[Any]()

    @runner.task(ignore_result=True)
    async def work(ctx: JobContext) -> None:
        await ctx.save("half")
        saved.set()
        await go.wait()
        found.append(await ctx.saved())

    async with runner.start():
        job = await work.dispatch()
        await saved.wait()
        assert await runner.delete_result(job.id) is False
        go.set()
        await eventually(lambda: found)
    assert found == ["half"]


@pytest.mark.leaves("dead")
async def test_the_dead_letter_of_a_failed_job_stays(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        with pytest.raises(JobFailed):
            await job.result(timeout=20)
        assert await runner.delete_result(job.id)
        with pytest.raises(JobNotFound):
            await job.result()
        assert await listed(runner, "failed") == {job.id}
        assert [letter.id for letter in await runner.dead_letters.list()] == [job.id]


async def test_a_dead_letter_that_runs_again_is_a_live_job(runner: TaskRunner) -> None:
    go, runs = asyncio.Event(), 0

    @runner.task(max_retry=0)
    async def work() -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError
        await go.wait()
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        await runner.dead_letters.retry(job.id)
        await eventually(lambda: runs == 2)
        assert await runner.delete_result(job.id) is False
        go.set()
        assert await job.result(timeout=20) == "done"


async def test_an_id_of_the_callers_is_free_again(runner: TaskRunner) -> None:
    @runner.task
    async def work(n: int) -> int:
        return n

    async with runner.start():
        daily = work.with_options(id="daily")
        assert await (await daily.dispatch(1)).result(timeout=20) == 1
        assert (await daily.dispatch(2)).deduplicated
        assert await runner.delete_result("daily")
        again = await daily.dispatch(3)
        assert not again.deduplicated
        assert await again.result(timeout=20) == 3


async def test_a_cancelled_job_is_unknown_to_who_asks_later(runner: TaskRunner) -> None:
    job: Job[Any] = await runner.declare("work").with_options(delay=600).dispatch()
    assert await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(timeout=20)
    assert await runner.delete_result(job.id)
    with pytest.raises(JobNotFound):
        await job.result()
    assert JobStatus.CANCELLED not in {info.status for info in await runner.jobs("cancelled")}


async def test_asked_again_after_a_lost_reply_it_answers_as_it_did(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task
    async def work() -> None: ...

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        names = [keys.batch("me"), keys.live, keys.job(job.id), keys.saved(job.id), keys.progress(job.id)]
        arguments = [1, 600, job.id, keys.prefix]
        replies = [await redis_client.eval(FORGET.text.decode(), len(names), *names, *arguments) for _ in range(2)]
    assert replies == [b"1", b"1"]


@pytest.mark.parametrize("record", [b"no json\n", b"[]\n", b'["s",1,{}]\n', b""])
async def test_a_damaged_record_goes_too(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, record: bytes
) -> None:
    await redis_client.set(keys.job("odd"), record, px=60_000)
    assert await runner.delete_result("odd")
    assert not await redis_client.exists(keys.job("odd"))

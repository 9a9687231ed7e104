"""unique="debounce": a job waits, and each further dispatch replaces it where it waits and begins the wait anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobContext, JobStatus, Snooze, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

LONG = 1000.0
"""Seconds of a wait that a test ends by hand."""


async def due_now(client: redis.asyncio.Redis, keys: PartitionKeys, job: Job[Any], lane: str = "default") -> None:
    """As if its wait were over."""
    assert await client.zadd(keys.queue(lane).due, {job.id: 1}, xx=True, ch=True) == 1
    await client.publish(keys.wake, "due")


async def test_a_further_dispatch_replaces_the_arguments_and_restarts_the_wait_of_the_same_job(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runs = list[int]()

    @runner.task(unique="debounce", unique_for=LONG, unique_key="same")
    async def work(n: int) -> int:
        runs.append(n)
        return n

    first = await work.dispatch(1)
    due = (await first.info()).due_at
    further = [await work.dispatch(n) for n in (2, 3)]
    assert [job.id for job in further] == [first.id, first.id]
    assert (first.deduplicated, *(job.deduplicated for job in further)) == (False, True, True)
    info = await first.info()
    assert info.status is JobStatus.SCHEDULED
    assert info.due_at is not None
    assert due is not None
    assert info.due_at >= due
    async with runner.start():
        await due_now(redis_client, keys, first)
        assert await first.result(timeout=20) == 3
    assert runs == [3]


async def test_a_job_runs_by_itself_when_its_wait_is_over(runner: TaskRunner) -> None:
    @runner.task(unique="debounce", unique_for=0.2, unique_key="same")
    async def work(n: int) -> int:
        return n

    async with runner.start():
        jobs = [await work.dispatch(n) for n in range(5)]
        assert await jobs[-1].result(timeout=20) == 4
    assert len({job.id for job in jobs}) == 1


async def test_other_keys_wait_on_their_own(runner: TaskRunner) -> None:
    @runner.task(unique="debounce", unique_for=0.1)
    async def work(n: int) -> int:
        return n

    async with runner.start():
        jobs = [await work.dispatch(n) for n in (1, 2, 1)]
        assert [job.deduplicated for job in jobs] == [False, False, True]
        assert [await job.result(timeout=20) for job in jobs] == [1, 2, 1]


async def test_a_dispatch_after_the_wait_begins_a_new_one_while_the_first_job_runs(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    started, go, runs = asyncio.Event(), asyncio.Event(), list[int]()

    @runner.task(unique="debounce", unique_for=LONG, unique_key="same")
    async def work(n: int) -> None:
        runs.append(n)
        started.set()
        await go.wait()

    first = await work.dispatch(1)
    async with runner.start():
        await due_now(redis_client, keys, first)
        await started.wait()
        second = await work.dispatch(2)
        assert not second.deduplicated
        go.set()
        await first.result(timeout=20)
        third = await work.dispatch(3)
        assert third.id == second.id, "the job that ended has not freed the key of the one that waits"
        await due_now(redis_client, keys, second)
        await third.result(timeout=20)
    assert runs == [1, 3]


async def test_a_job_that_snoozes_is_not_replaced(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runs = list[int]()

    @runner.task(unique="debounce", unique_for=LONG, unique_key="same")
    async def work(ctx: JobContext, n: int) -> None:
        runs.append(n)
        if runs.count(1) == 1 and n == 1:
            raise Snooze(LONG)

    first = await work.dispatch(1)
    async with runner.start():
        await due_now(redis_client, keys, first)
        await eventually(lambda: runs == [1])
        await eventually(lambda: is_in(first, JobStatus.SCHEDULED))
        second = await work.dispatch(2)
        assert second.id != first.id
        for job in (first, second):
            await due_now(redis_client, keys, job)
            await job.result(timeout=20)
    assert sorted(runs) == [1, 1, 2]


@pytest.mark.leaves("tallies:")  # of what was deleted, until the next audit
async def test_a_lost_job_is_taken_over_by_the_next_dispatch(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(unique="debounce", unique_for=LONG, unique_key="same")
    async def work(n: int) -> int:
        return n

    first = await work.dispatch(1)
    await redis_client.delete(keys.queue("default").due, keys.queue("default").letters)
    second = await work.dispatch(2)
    assert not second.deduplicated
    async with runner.start():
        await due_now(redis_client, keys, second)
        assert await second.result(timeout=20) == 2
        await redis_client.hdel(keys.live, first.id)


async def test_priority_and_queue_are_those_of_the_last_dispatch(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(unique="debounce", unique_for=LONG, unique_key="same")
    async def work(ctx: JobContext, n: int) -> tuple[int, str]:
        return n, ctx.queue

    runner.task(name="other", queue="mail")(answer)
    first = await work.dispatch(1)
    second = await work.with_options(queue="mail", priority="high").dispatch(2)
    assert second.id == first.id
    info = await first.info()
    assert (info.queue, info.status) == ("mail", JobStatus.SCHEDULED)
    async with runner.start():
        await due_now(redis_client, keys, first, "mail/high")
        assert await first.result(timeout=20) == [2, "mail"]


async def test_a_job_without_a_result_is_replaced_just_so(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runs = list[int]()

    @runner.task(unique="debounce", unique_for=LONG, unique_key="same", ignore_result=True)
    async def work(n: int) -> None:
        runs.append(n)

    jobs = [await work.dispatch(n) for n in range(3)]
    assert len({job.id for job in jobs}) == 1
    async with runner.start():
        await due_now(redis_client, keys, jobs[0])
        await eventually(lambda: runs == [2])
        await eventually(lambda: no_key(redis_client, keys.live))
    assert not await redis_client.keys(keys.unique("*").replace("{", "\\{"))


@pytest.mark.parametrize("partitions", [1, 3])
async def test_fifty_producers_at_once_make_one_job_per_key(make_runner: MakeRunner, partitions: int) -> None:
    runs = dict[int, int]()

    async def work(key: int, n: int) -> None:
        assert key not in runs
        runs[key] = n

    runners = [make_runner(partitions=partitions) for _ in range(50)]
    for runner in runners:
        runner.task(
            name="work", unique="debounce", unique_for=2.0, unique_key=lambda key, n: str(key), ignore_result=True
        )(work)
    await asyncio.gather(*(runner.dispatch("work", key, n) for n, runner in enumerate(runners) for key in range(4)))
    last = [await runners[0].dispatch("work", key, 99) for key in range(4)]
    assert all(job.deduplicated for job in last), "or the machine has slept for two seconds"
    async with runners[1].start():
        await eventually(lambda: len(runs) == 4)
    assert runs == dict.fromkeys(range(4), 99)


async def test_dispatch_many_replaces_in_the_order_of_the_jobs(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(unique="debounce", unique_for=LONG, unique_key=lambda n: str(n % 2))
    async def work(n: int) -> int:
        return n

    jobs = await runner.dispatch_many([work.job(n) for n in range(6)])
    assert [job.deduplicated for job in jobs] == [False, False, True, True, True, True]
    async with runner.start():
        for job, n in zip(jobs[:2], (4, 5), strict=True):
            await due_now(redis_client, keys, job)
            assert await job.result(timeout=20) == n


async def test_expires_is_counted_from_the_last_dispatch(runner: TaskRunner) -> None:
    @runner.task(unique="debounce", unique_for=0.3, unique_key="same")
    async def work() -> int:
        return 1

    await work.with_options(expires=0.001).dispatch()
    last = await work.with_options(expires=60).dispatch()
    async with runner.start():
        assert await last.result(timeout=20) == 1


# -- options --------------------------------------------------------------------------------------------------------


def test_without_unique_for_it_is_refused_at_the_registration(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="needs unique_for"):
        runner.task(unique="debounce")(answer)


@pytest.mark.parametrize("unique", ["debounce", "latest"])
@pytest.mark.parametrize("when", [{"delay": 5}, {"delay": 0}, {"at": datetime(2099, 1, 1, tzinfo=UTC)}], ids=str)
async def test_a_time_of_the_callers_is_refused(runner: TaskRunner, unique: Any, when: Any) -> None:
    task = runner.task(unique=unique, unique_for=5)(answer)
    with pytest.raises(TaskOptionError, match=f"unique='{unique}' takes neither delay nor at"):
        task.with_options(**when)


@pytest.mark.parametrize("value", ["", "Debounce", "newest", None, 1, ["latest"]], ids=repr)
def test_another_word_is_refused_on_the_task_and_at_the_dispatch(runner: TaskRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="must be True, False, 'debounce' or 'latest'"):
        runner.task(name="one", unique=value)(answer)
    with pytest.raises(TaskOptionError, match="must be True, False, 'debounce' or 'latest'"):
        runner.task(name="two")(answer).with_options(unique=value)


async def answer(n: int = 1) -> int:
    return n


async def is_in(job: Job[Any], status: JobStatus) -> bool:
    return await job.status() is status


async def no_key(client: redis.asyncio.Redis, key: str) -> bool:
    return not await client.exists(key)

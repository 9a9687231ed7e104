"""What becomes of a return value: kept for result_ttl, not kept, or refused once and for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio

from taskrunner import (
    JobFailed,
    JobNotFound,
    JobStatus,
    ResultNotKept,
    ResultTimeout,
    TaskOptionError,
    TaskRunner,
)
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")


@dataclass
class Receipt:
    id: UUID
    total: float


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, None, "é\x00"]}, "x" * 100_000, 2**63, -0.5], ids=ascii)
async def test_plain_data_comes_back_as_it_was(runner: TaskRunner, value: Any) -> None:
    @runner.task
    async def work() -> Any:
        return value

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=10) == value
        assert await runner.job(job.id).result() == value


async def test_a_result_comes_back_as_the_type_that_the_task_promises(runner: TaskRunner) -> None:
    receipt = Receipt(UUID(int=7), 2.5)

    @runner.task
    async def one() -> Receipt:
        return receipt

    @runner.task
    async def many() -> list[Receipt]:
        return [receipt, receipt]

    @runner.task
    async def perhaps() -> Receipt | None:
        return None

    async with runner.start():
        assert await (await one.dispatch()).result(timeout=10) == receipt
        assert await (await many.dispatch()).result(timeout=10) == [receipt, receipt]
        assert await (await perhaps.dispatch()).result(timeout=10) is None


@pytest.mark.parametrize("ttl", [0.05, timedelta(milliseconds=50)], ids=str)
async def test_a_job_is_unknown_when_its_result_ttl_is_over(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, ttl: Any
) -> None:
    @runner.task(result_ttl=ttl)
    async def work() -> int:
        return 1

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: succeeded_and_gone(redis_client, keys, job.id))
        for question in (job.status, job.info, job.result, job.wait):
            with pytest.raises(JobNotFound, match=job.id):
                await question()


async def test_the_result_ttl_is_the_dispatchs_else_the_tasks_else_the_runners(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(result_ttl=1000)

    @runner.task
    async def plain() -> None: ...

    @runner.task(result_ttl=2000)
    async def own() -> None: ...

    async with runner.start():
        jobs = [
            await plain.dispatch(),
            await own.dispatch(),
            await own.with_options(result_ttl=3000).dispatch(),
            await own.with_options(result_ttl=None).dispatch(),
        ]
        for job in jobs:
            await job.wait(timeout=10)
        lives = [await redis_client.pttl(keys.job(job.id)) / 1000 for job in jobs]
    assert [round(life, -3) for life in lives] == [1000, 2000, 3000, 1000]


async def test_a_job_that_nobody_dispatched_is_unknown(runner: TaskRunner) -> None:
    for question in (runner.job("nobody").status, runner.job("nobody").info, runner.job("nobody").result):
        with pytest.raises(JobNotFound, match="nobody"):
            await question()


async def test_a_result_that_is_not_kept_can_not_be_asked_for(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    ran = asyncio.Event()

    @runner.task(ignore_result=True)
    async def work() -> object:
        ran.set()
        return object()  # nobody minds what it is

    async with runner.start():
        job = await work.dispatch()
        await ran.wait()
        for question in (job.result, job.wait):
            with pytest.raises(ResultNotKept, match="ignore_result"):
                await question(timeout=10)
        with pytest.raises(JobNotFound):
            await job.status()
    assert not await redis_client.exists(keys.job(job.id), keys.live)


async def test_a_dispatch_can_keep_a_result_that_its_task_ignores_and_the_other_way_round(runner: TaskRunner) -> None:
    @runner.task(ignore_result=True)
    async def quiet() -> int:
        return 1

    @runner.task
    async def loud() -> int:
        return 2

    async with runner.start():
        assert await (await quiet.with_options(ignore_result=False).dispatch()).result(timeout=10) == 1
        with pytest.raises(ResultNotKept):
            await (await loud.with_options(ignore_result=True).dispatch()).result(timeout=10)


@end_in_dead_letters
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "can't be kept"),
        (float("nan"), "NaN"),
        ([{"a": float("inf")}], "infinity"),
        (b"bytes", "bytes"),
        (2**64, "can't be kept"),
        (10**400, "can't be kept"),
        ("\ud800", "can't be kept"),
        ("x" * 1001, "max_payload=1,000"),
    ],
    ids=["object", "nan", "inf", "bytes", "integer", "huge integer", "surrogate", "large"],
)
async def test_a_result_that_can_not_be_kept_fails_the_job_for_good_after_one_run(
    make_runner: MakeRunner, value: Any, complaint: str
) -> None:
    runner, runs = make_runner(max_payload=1000), 0

    @runner.task(max_retry=5)
    async def work() -> Any:
        nonlocal runs
        runs += 1
        return value

    async with runner.start():
        with pytest.raises(JobFailed, match=complaint) as failed:
            await (await work.dispatch()).result(timeout=10)
    assert runs == 1
    assert failed.value.reason == "its result can't be kept"


@end_in_dead_letters
async def test_a_result_of_fifty_megabytes_is_refused_or_with_a_higher_limit_kept_whole(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(max_payload=50_000_002)

    @runner.task
    async def work(size: int) -> str:
        return "x" * size

    async with runner.start():
        assert await (await work.dispatch(50_000_000)).result(timeout=30) == "x" * 50_000_000
        with pytest.raises(JobFailed, match="takes 50,000,003 bytes"):
            await (await work.dispatch(50_000_001)).result(timeout=30)


async def test_a_result_timeout_leaves_the_job_alone(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task
    async def work() -> int:
        await go.wait()
        return 1

    async with runner.start():
        job = await work.dispatch()
        for timeout in (0, 0.01, timedelta(milliseconds=1)):
            with pytest.raises(ResultTimeout, match="goes on"):
                await job.result(timeout=timeout)
        go.set()
        assert await job.result(timeout=10) == 1
        assert await job.result(timeout=0.5) == 1, "it can be asked for again"


@end_in_dead_letters
async def test_waiting_for_a_job_is_content_with_a_failure(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=10)
        assert await job.status() is JobStatus.FAILED
        error = (await job.info()).error
    assert error is not None
    assert error.error_type == "ValueError"


@pytest.mark.parametrize("options", [{"result_ttl": 0}, {"result_ttl": -1}, {"ignore_result": 1}], ids=repr)
def test_a_wrong_option_is_refused_at_the_registration(runner: TaskRunner, options: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError, match=next(iter(options))):
        runner.declare("work", **options)


async def succeeded_and_gone(client: redis.asyncio.Redis, keys: PartitionKeys, id: str) -> bool:
    return not await client.hexists(keys.live, id) and not await client.exists(keys.job(id))

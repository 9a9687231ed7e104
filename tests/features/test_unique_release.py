"""A unique key is free again after every way in which a job can end, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    GiveUp,
    JobExpired,
    JobFailed,
    JobNotFound,
    PayloadError,
    PayloadTooLarge,
    TaskRunner,
)
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

end_in_dead_letters = pytest.mark.leaves("dead")


async def unique_keys(client: redis.asyncio.Redis, keys: PartitionKeys) -> list[bytes]:
    return [key async for key in client.scan_iter(match=keys.unique("*").replace("{", "\\{"))]


async def test_it_is_free_after_success(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work() -> None: ...

    async with runner.start():
        first = await work.dispatch()
        await first.result(timeout=10)
        second = await work.dispatch()
        await second.result(timeout=10)
    assert second.id != first.id


@end_in_dead_letters
@pytest.mark.parametrize("error", [ValueError("no"), GiveUp("enough")], ids=["no retries left", "gave up"])
async def test_it_is_free_after_failure(runner: TaskRunner, error: Exception) -> None:
    @runner.task(unique=True, max_retry=1, backoff=Backoff.constant(0))
    async def work() -> None:
        raise error

    async with runner.start():
        first = await work.dispatch()
        with pytest.raises(JobFailed):
            await first.result(timeout=10)
        second = await work.dispatch()
        with pytest.raises(JobFailed):
            await second.result(timeout=10)
    assert second.id != first.id


async def test_it_is_free_after_expiry(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work() -> None: ...

    first = await work.with_options(expires=0.001, delay=0.05).dispatch()
    async with runner.start():
        with pytest.raises(JobExpired):
            await first.result(timeout=10)
        second = await work.dispatch()
        await second.result(timeout=10)
    assert not second.deduplicated


async def cancel(runner: TaskRunner, job: Any) -> None:
    assert await job.cancel()


async def delete(runner: TaskRunner, job: Any) -> None:
    assert await runner.delete(job.id)


async def purge(runner: TaskRunner, job: Any) -> None:
    assert await runner.purge("default") == 1


@pytest.mark.parametrize("end", [cancel, delete, purge])
@pytest.mark.parametrize("ignored", [False, True], ids=["kept", "ignored"])
async def test_it_is_free_at_once_after_somebody_ended_the_job_that_waited(
    runner: TaskRunner, end: Any, ignored: bool
) -> None:
    @runner.task(unique=True, ignore_result=ignored, max_retry=1, backoff=Backoff.constant(60))
    async def work(n: int = 0) -> None:
        if not n:
            raise ValueError

    for options in ({"delay": 60}, {}):
        job = await work.with_options(**options, unique_key="key").dispatch()
        assert (await work.with_options(unique_key="key").dispatch(1)).deduplicated
        await end(runner, job)
    last = await work.with_options(ignore_result=False, unique_key="key").dispatch(1)
    assert not last.deduplicated
    async with runner.start():
        await last.result(timeout=20)


@pytest.mark.parametrize("end", [cancel, delete])
async def test_it_is_free_at_once_after_somebody_ended_the_job_that_ran(runner: TaskRunner, end: Any) -> None:
    started = asyncio.Event()

    @runner.task(unique=True, unique_key="key")
    async def work(seconds: float) -> None:
        started.set()
        await asyncio.sleep(seconds)

    async with runner.start():
        job = await work.dispatch(60)
        await asyncio.wait_for(started.wait(), 20)
        assert (await work.dispatch(0)).deduplicated
        await end(runner, job)
        second = await work.dispatch(0)
        assert not second.deduplicated
        await second.result(timeout=20)


@end_in_dead_letters
async def test_it_is_free_after_a_payload_that_the_worker_could_not_read(make_runner: MakeRunner) -> None:
    class OneWay:
        def dumps(self, value: Any) -> bytes:
            return repr(value).encode()

        def loads(self, data: bytes) -> Any:
            raise ValueError("can't be read")

    runner = make_runner(serializer=OneWay())

    @runner.task(unique=True)
    async def work(n: int) -> None: ...

    async with runner.start():
        first = await work.dispatch(1)
        with pytest.raises(JobFailed, match="can't be read") as failed:
            await first.result(timeout=10)
        assert failed.value.reason == "its arguments can't be read"
        assert not (await work.with_options(ignore_result=True).dispatch(1)).deduplicated
        await eventually(lambda: dead(runner, 2))


@end_in_dead_letters
async def test_it_is_free_after_a_result_that_could_not_be_kept(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work() -> object:
        return object()

    async with runner.start():
        for _ in range(2):
            job = await work.dispatch()
            assert not job.deduplicated
            with pytest.raises(JobFailed):
                await job.result(timeout=10)


@pytest.mark.parametrize("argument", [b"bytes", float("nan"), 2**70, "\ud800"], ids=repr)
async def test_a_payload_error_leaves_no_key_and_nothing_else(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, argument: Any
) -> None:
    @runner.task(unique=True, unique_for=60)
    async def work(n: Any) -> None: ...

    with pytest.raises(PayloadError):
        await work.dispatch(argument)
    assert [key async for key in redis_client.scan_iter(match=f"*{keys.prefix}*")] == []


async def test_a_payload_that_is_too_large_leaves_no_key(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(max_payload=100)
    task = runner.declare("work", unique=True)
    with pytest.raises(PayloadTooLarge):
        await task.dispatch("x" * 101)
    assert await unique_keys(redis_client, keys) == []


async def test_it_is_free_after_a_job_without_a_result(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True, ignore_result=True)
    async def work() -> None:
        started.set()
        await go.wait()

    async with runner.start():
        first = await work.dispatch()
        await started.wait()
        assert (await work.dispatch()).id == first.id
        go.set()
        await eventually(lambda: unknown(runner, first.id))
        second = await work.dispatch()
        assert not second.deduplicated
        await eventually(lambda: unknown(runner, second.id))
    assert await unique_keys(redis_client, keys) == []


@end_in_dead_letters
async def test_it_is_free_after_a_job_without_a_result_has_failed(runner: TaskRunner) -> None:
    @runner.task(unique=True, ignore_result=True, max_retry=0)
    async def work() -> None:
        raise ValueError

    async with runner.start():
        first = await work.dispatch()
        await eventually(lambda: dead(runner, 1))
        await eventually(lambda: unknown(runner, first.id))
        assert not (await work.dispatch()).deduplicated
        await eventually(lambda: dead(runner, 2))


async def dead(runner: TaskRunner, count: int) -> bool:
    return await runner.dead_letters.count() == count


async def unknown(runner: TaskRunner, id: str) -> bool:
    try:
        await runner.job(id).status()
    except JobNotFound:
        return True
    return False

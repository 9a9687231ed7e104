"""Starting, stopping and starting again; opening and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import AlreadyStarted, JobContext, JobStatus, RedisConfigurationError, RedisUnavailable, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def echo(n: int) -> int:
    return n


async def test_a_second_start_while_it_runs_is_refused_and_harms_nothing(runner: TaskRunner) -> None:
    task = runner.task(echo)
    async with runner.start():
        with pytest.raises(AlreadyStarted, match="leave its `async with"):
            runner.start()
        with pytest.raises(AlreadyStarted):
            await runner.run()
        assert await (await task.dispatch(1)).result(timeout=10) == 1


async def test_of_two_starts_that_race_one_is_refused(runner: TaskRunner) -> None:
    first, second = runner.start(), runner.start()
    async with first:
        with pytest.raises(AlreadyStarted):
            async with second:
                pytest.fail("it must not start")


async def test_it_can_be_started_again_after_a_stop(runner: TaskRunner) -> None:
    task = runner.task(echo)
    for n in range(5):
        async with runner.start() as started:
            assert started is runner
            assert await (await task.dispatch(n)).result(timeout=10) == n
        assert not runner.ready


async def test_it_can_be_started_again_after_its_block_failed(runner: TaskRunner) -> None:
    task = runner.task(echo)
    with pytest.raises(ZeroDivisionError):
        async with runner.start():
            raise ZeroDivisionError
    async with runner.start():
        assert await (await task.dispatch(1)).result(timeout=10) == 1


async def test_it_is_ready_while_it_consumes(runner: TaskRunner) -> None:
    assert not runner.ready
    async with runner.start():
        await eventually(lambda: runner.ready)
    assert not runner.ready


async def test_without_consuming_it_only_dispatches(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner()
    for runner in (producer, worker):
        runner.task(echo)
    async with producer.start(consume=False):
        job = await producer.dispatch("echo", 1)
        assert not producer.ready
        assert (await producer.stats()).replicas == 0
        assert await job.status() is JobStatus.QUEUED
        async with worker.start():
            assert await job.result(timeout=10) == 1


async def test_what_was_dispatched_before_any_worker_existed_is_run(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner()
    worker.task(echo)
    async with producer:
        jobs = [await producer.declare(f"echo{n}" if n else "echo").dispatch(n) for n in range(1)]
    async with worker.start():
        assert await worker.job(jobs[0].id).result(timeout=10) == 0


async def test_leaving_the_block_waits_for_what_runs_and_hands_back_what_has_not_started(
    make_runner: MakeRunner,
) -> None:
    runner, started, go, ended = make_runner(num_workers=1), asyncio.Event(), asyncio.Event(), list[int]()

    @runner.task
    async def work(ctx: JobContext, n: int) -> int:
        started.set()
        await go.wait()
        ended.append(n)
        return ctx.attempt

    async with runner.start():
        jobs = [await work.dispatch(n) for n in range(3)]
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert ended == [0]
    async with runner.start():
        assert [await job.result(timeout=10) for job in jobs] == [1, 1, 1]
    assert ended == [0, 1, 2]


async def test_a_run_that_is_cut_short_by_a_stop_is_handed_back_and_spends_nothing(make_runner: MakeRunner) -> None:
    runner, runs = make_runner(shutdown_timeout=0.05), list[tuple[int, int]]()

    @runner.task(max_retry=0)
    async def work(ctx: JobContext) -> str:
        runs.append((ctx.attempt, ctx.deliveries))
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: runs)
    assert await job.status() is JobStatus.QUEUED
    async with runner.start():
        assert await job.result(timeout=10) == "done"
    assert runs == [(1, 1), (1, 1)]


async def test_a_worker_with_all_slots_taken_stops_within_its_shutdown_timeout(make_runner: MakeRunner) -> None:
    runner, runs = make_runner(num_workers=1, shutdown_timeout=0.05), list[int]()

    @runner.task
    async def work(n: int) -> int:
        runs.append(n)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return n

    async with runner.start():
        jobs = [await work.dispatch(n) for n in range(3)]
        await eventually(lambda: runs)
    assert runs == [0]
    async with runner.start():
        assert [await job.result(timeout=10) for job in jobs] == [0, 1, 2]


async def test_dispatching_opens_by_itself_and_closing_closes(runner: TaskRunner) -> None:
    task = runner.task(echo)
    async with runner:
        job = await task.dispatch(1)
    await runner.aclose()
    await runner.aclose()
    async with runner.start():
        assert await job.result(timeout=10) == 1


async def test_closing_takes_the_key_of_the_producer_away(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    task = runner.task(echo)
    async with runner.start():
        await (await task.dispatch(1)).result(timeout=10)
        assert [key async for key in redis_client.scan_iter(match=f"*{keys.batch('*')}")]
    assert not [key async for key in redis_client.scan_iter(match=f"*{keys.batch('*')}")]


async def test_a_server_that_is_away_is_an_error_at_once_when_that_is_asked_for() -> None:
    runner = TaskRunner("redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable):
        async with runner.start(fail_fast=True):
            pytest.fail("it must not start")
    with pytest.raises(RedisUnavailable):
        async with runner.start(fail_fast=True, consume=False):
            pytest.fail("it must not start")


async def test_a_server_that_is_away_is_waited_for_and_a_stop_does_not_have_to_wait_for_it() -> None:
    runner = TaskRunner("redis://127.0.0.1:1")
    async with asyncio.timeout(10):
        async with runner.start():
            assert not runner.ready


@pytest.mark.parametrize("url", ["http://x", "6379", "redis+sentinel://h", "redis://h:port", "redis://h:99999999/x/y"])
def test_an_address_that_can_not_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(RedisConfigurationError):
        TaskRunner(url)


def test_a_client_that_can_not_be_used_is_refused_at_once() -> None:
    with pytest.raises(RedisConfigurationError, match="not object"):
        TaskRunner(object())


async def test_the_environment_names_the_server_when_the_code_does_not(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKRUNNER_REDIS_URL", url)
    async with TaskRunner(namespace=namespace) as runner:
        assert (await runner.stats()).waiting == 0


async def test_signals_and_loggers_of_the_host_are_left_alone(runner: TaskRunner) -> None:
    import logging
    import signal

    before: Any = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)], list(logging.getLogger().handlers)
    async with runner.start():
        during: Any = (
            [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)],
            list(logging.getLogger().handlers),
        )
    assert before == during

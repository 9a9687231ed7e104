"""Jobs that follow others: a task's callbacks that are jobs to be dispatched then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    JobContext,
    QueueFull,
    RedisUnavailable,
    Snooze,
    TaskOptionError,
    TaskRunner,
)
from taskrunner.producer import Producer
from taskrunner.store.keys import Keyspace
from tests.features import process_tasks
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
AT_ONCE = Backoff.constant(0)


def recorder(runner: TaskRunner) -> tuple[Any, list[tuple[str, str, Any]]]:
    """A task that writes down who it is, what it was given, and what was handed on to it."""
    told = list[tuple[str, str, Any]]()

    @runner.task
    async def tell(ctx: JobContext, what: str) -> None:
        told.append((ctx.job_id, what, ctx.previous))

    return tell, told


@end_in_dead_letters
async def test_each_kind_of_callback_may_be_a_job(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(
        max_retry=1,
        backoff=AT_ONCE,
        on_start=tell.job("start"),
        on_success=tell.job("success"),
        on_retry=tell.job("retry"),
        on_failure=tell.job("failure"),
    )
    async def work(bad: bool) -> str:
        if bad:
            raise ValueError
        return "fine"

    async with runner.start():
        good, bad = await work.dispatch(False), await work.dispatch(True)
        await good.wait(timeout=10)
        await bad.wait(timeout=10)
        await eventually(lambda: len(told) == 6)
    assert sorted(told) == sorted(
        [
            (f"{good.id}.start.1", "start", None),
            (f"{good.id}.success.1", "success", "fine"),
            (f"{bad.id}.start.1", "start", None),
            (f"{bad.id}.retry.1", "retry", None),
            (f"{bad.id}.start.2", "start", None),
            (f"{bad.id}.failure.2", "failure", None),
        ]
    )


@pytest.mark.parametrize("result", [None, 0, "", {"a": [1, 2.5, "x\ny"]}], ids=repr)
@pytest.mark.parametrize("ignore_result", [False, True])
async def test_the_result_is_handed_on_whether_it_is_kept_or_not(
    runner: TaskRunner, result: Any, ignore_result: bool
) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=tell.job("after"), ignore_result=ignore_result)
    async def work() -> Any:
        return result

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: told)
    assert told == [(f"{job.id}.success.1", "after", result)]


async def test_what_was_handed_on_outlives_retries_and_waits(runner: TaskRunner) -> None:
    seen = list[Any]()

    @runner.task(backoff=AT_ONCE)
    async def after(ctx: JobContext, n: int) -> None:
        seen.append((n, ctx.attempt, ctx.previous))
        if len(seen) == 1:
            raise ValueError
        if len(seen) == 2:
            raise Snooze(0.01)

    @runner.task(on_success=after.with_options(delay=0.01, headers={"a": "b"}).job(7))
    async def work() -> list[int]:
        return [1, 2, 3]

    async with runner.start():
        await work.dispatch()
        await eventually(lambda: len(seen) == 3)
    assert seen == [(7, 1, [1, 2, 3]), (7, 2, [1, 2, 3]), (7, 2, [1, 2, 3])]


async def test_a_result_and_arguments_that_each_just_fit_go_together(make_runner: MakeRunner) -> None:
    runner, found = make_runner(max_payload=1000), list[Any]()

    @runner.task
    async def after(ctx: JobContext, text: str) -> None:
        found.append((len(text), len(ctx.previous)))

    @runner.task(on_success=after.job("x" * 990))
    async def work() -> str:
        return "y" * 990

    async with runner.start():
        await work.dispatch()
        await eventually(lambda: found)
    assert found == [(990, 990)]


async def test_a_process_sees_what_was_handed_on(runner: TaskRunner) -> None:
    facts = runner.task(pool="process")(process_tasks.context)

    @runner.task(on_success=facts.job(1))
    async def work() -> str:
        return "handed on"

    async with runner.start():
        job = await work.dispatch()
        follow_up = runner.job(f"{job.id}.success.1")
        await job.wait(timeout=10)
        assert (await follow_up.result(timeout=30))[11] == "handed on"


async def test_a_job_that_runs_again_makes_the_same_follow_up_and_no_second(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    """As if its worker had died after the follow-up was dispatched, and before the outcome was recorded."""
    runner = make_runner(reservation_timeout=0.6)
    tell, told = recorder(runner)
    stream = Keyspace("taskrunner", runner.settings.namespace, 1).partitions[0].queue("default").stream
    runs = 0

    @runner.task(on_start=tell.job("start"))
    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await eventually(lambda: told)
            [pending] = await redis_client.xpending_range(stream, "taskrunner", "-", "+", 1)
            await redis_client.xclaim(stream, "taskrunner", "thief", 0, [pending["message_id"]])
        return runs

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=20) == 2
        await eventually(lambda: alone(redis_client, stream))
    assert told == [(f"{job.id}.start.1", "start", None)]


async def alone(client: redis.asyncio.Redis, stream: str) -> bool:
    return len(await client.xinfo_consumers(stream, "taskrunner")) == 1


async def test_a_job_with_an_id_of_its_own_keeps_it(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=tell.with_options(id="the-one").job("after"))
    async def work() -> None: ...

    async with runner.start():
        for _ in range(2):
            await (await work.dispatch()).wait(timeout=10)
        await eventually(lambda: told)
    assert told == [("the-one", "after", None)]


@pytest.mark.parametrize("error", [RedisUnavailable("away"), QueueFull("full"), ZeroDivisionError("a bug")], ids=repr)
async def test_a_follow_up_that_can_not_be_dispatched_loses_no_outcome(
    runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    tell, told = recorder(runner)
    submit, failures = Producer.submit, 0

    def failing(self: Producer, draft: Any, partition: int) -> Any:
        nonlocal failures
        if draft.envelope.task == "tell" and failures < 2:
            failures += 1
            raise error
        return submit(self, draft, partition)

    monkeypatch.setattr(Producer, "submit", failing)

    @runner.task(on_success=tell.job("after"))
    async def work() -> str:
        return "fine"

    caplog.set_level(logging.WARNING)
    async with runner.start():
        job = await work.dispatch()
        assert await job.result(timeout=20) == "fine"
        if type(error) is RedisUnavailable:
            await eventually(lambda: told)
    assert any(record.name == "taskrunner.hooks" for record in caplog.records)
    assert bool(told) is (type(error) is RedisUnavailable), "what the server refuses is told of and left"


async def test_a_stop_in_the_middle_of_an_outage_loses_no_outcome(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runner, tried = make_runner(shutdown_timeout=0.1), asyncio.Event()
    tell, told = recorder(runner)
    submit = Producer.submit

    def away(self: Producer, draft: Any, partition: int) -> Any:
        if draft.envelope.task != "tell":
            return submit(self, draft, partition)
        tried.set()
        raise RedisUnavailable("away")

    monkeypatch.setattr(Producer, "submit", away)

    @runner.task(on_success=tell.job("after"))
    async def work() -> str:
        return "fine"

    async with runner.start():
        job = await work.dispatch()
        await tried.wait()
    assert await job.result(timeout=20) == "fine"
    assert told == []
    assert f"{job.id}.success.1 of job {job.id} was not dispatched" in caplog.text


@end_in_dead_letters
async def test_a_result_that_can_not_be_handed_on_fails_the_job(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=tell.job("after"), ignore_result=True, on_failure=tell.job("failed"))
    async def work() -> Any:
        return object()

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: told)
    assert told == [(f"{job.id}.failure.1", "failed", None)]


@pytest.mark.parametrize("wrong", ["tell me", 5, ["a"]], ids=repr)
def test_a_callback_is_a_function_or_a_job(runner: TaskRunner, wrong: Any) -> None:
    with pytest.raises(TaskOptionError, match="on_failure must be a function of a JobEvent, or a job"):
        runner.declare("work", on_failure=wrong)


async def test_hooks_and_follow_ups_go_together(runner: TaskRunner) -> None:
    tell, told = recorder(runner)
    heard = list[str]()
    runner.on_success(lambda event: heard.append(event.task))

    @runner.task(on_success=tell.job("after"))
    async def work() -> None: ...

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        await runner.job(f"{job.id}.success.1").wait(timeout=20)
    assert len(told) == 1
    assert heard == ["work", "tell"]

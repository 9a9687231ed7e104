"""Workflows that follow jobs: a task's callbacks that are chains, groups or graphs to be dispatched then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    ChainJob,
    Graph,
    GroupJob,
    JobContext,
    JobStatus,
    RedisUnavailable,
    TaskRunner,
    WorkflowError,
    chain,
    group,
)
from taskrunner.store.keys import Keyspace
from taskrunner.store.workflows import Workflows
from tests.guide.states import quiet
from tests.waiting import DEADLINE, eventually

MakeRunner = Callable[..., TaskRunner]
AT_ONCE = Backoff.constant(0)


def recorder(runner: TaskRunner) -> tuple[Any, list[tuple[str, str, Any]]]:
    """A task that writes down who it is, what it was given, and what was handed on to it."""
    told = list[tuple[str, str, Any]]()

    @runner.task
    async def tell(ctx: JobContext, what: str) -> str:
        told.append((ctx.job_id, what, ctx.previous))
        return what

    return tell, told


async def test_a_chain_follows_each_job_anew_and_its_first_step_sees_the_result(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=chain(tell.job("first"), tell.job("second")))
    async def work(n: int) -> dict[str, int]:
        return {"n": n}

    async with runner.start():
        for n in range(3):
            job = await work.dispatch(n)
            await job.wait(DEADLINE)
            following = await runner.workflow(f"{job.id}.success.1")
            assert isinstance(following, ChainJob)
            assert await following.result(DEADLINE) == "second"
            assert told[-2:] == [
                (f"{following.id}.0", "first", {"n": n}),
                (f"{following.id}.1", "second", "first"),
            ]
    assert len(told) == 6


async def test_every_member_of_a_group_sees_the_result_and_what_follows_it_theirs(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=group(tell.job("a"), chain(tell.job("b"), tell.job("c")), then=tell.job("then")))
    async def work() -> list[int]:
        return [1, 2]

    async with runner.start():
        job = await work.dispatch()
        await job.wait(DEADLINE)
        following = await runner.workflow(f"{job.id}.success.1")
        assert isinstance(following, GroupJob)
        assert following.then is not None
        assert await following.then.result(DEADLINE) == "then"
    assert {what: previous for _, what, previous in told} == {"a": [1, 2], "b": [1, 2], "c": "b", "then": ["a", "c"]}


async def test_the_first_nodes_of_a_graph_see_the_result(runner: TaskRunner) -> None:
    tell, told = recorder(runner)
    graph = Graph()
    first, other = graph.add(tell.job("first")), graph.add(group(tell.job("other")))
    graph.add(tell.job("last"), after=[first, other])

    @runner.task(on_success=graph)
    async def work() -> str:
        return "done"

    async with runner.start():
        for _ in range(2):
            told.clear()
            job = await work.dispatch()
            await job.wait(DEADLINE)
            await (await runner.workflow(f"{job.id}.success.1")).wait(DEADLINE)
            seen = {what: previous for _, what, previous in told}
            assert seen == {"first": "done", "other": "done", "last": ["first", ["other"]]}


@pytest.mark.leaves("dead")
async def test_after_a_failure_a_workflow_sees_no_result_and_comes_once_for_all_attempts(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(
        max_retry=2,
        backoff=AT_ONCE,
        on_success=chain(tell.job("good"), tell.job("very good")),
        on_failure=chain(tell.job("clean"), tell.job("report")),
    )
    async def work() -> None:
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        await job.wait(DEADLINE)
        await (await runner.workflow(f"{job.id}.failure.3")).wait(DEADLINE)
        await eventually(lambda: quiet(runner))
    assert [(what, previous) for _, what, previous in told] == [("clean", None), ("report", "clean")]


@pytest.mark.parametrize("ignore_result", [False, True])
@pytest.mark.parametrize("result", [None, 0, "", "x" * 20_000], ids=lambda value: repr(value)[:5])
async def test_the_result_is_handed_on_whatever_it_is_and_whether_it_is_kept_or_not(
    runner: TaskRunner, result: Any, ignore_result: bool
) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=group(tell.job("a"), tell.job("b")), ignore_result=ignore_result)
    async def work() -> Any:
        return result

    async with runner.start():
        await work.dispatch()
        await eventually(lambda: len(told) == 2)
        await eventually(lambda: quiet(runner))
    assert [previous for *_, previous in told] == [result, result]


async def test_over_several_partitions_the_result_is_seen_too(make_runner: MakeRunner) -> None:
    runner = make_runner(partitions=3)
    tell, told = recorder(runner)
    unique = tell.with_options(unique=True)
    members = [unique.job(str(n)) for n in range(9)]

    @runner.task(on_success=group(*members))
    async def work() -> str:
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await job.wait(DEADLINE)
        await (await runner.workflow(f"{job.id}.success.1")).wait(DEADLINE)
    assert sorted((what, previous) for _, what, previous in told) == [(str(n), "done") for n in range(9)]


async def test_a_map_over_a_list_is_read_for_each_job(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=group.map(tell, ["a", "b"]))
    async def work() -> None: ...

    async with runner.start():
        for _ in range(2):
            await work.dispatch()
        await eventually(lambda: len(told) == 4)
        await eventually(lambda: quiet(runner))
    assert sorted(what for _, what, _ in told) == ["a", "a", "b", "b"]


async def test_a_job_that_runs_again_makes_the_same_workflow_and_no_second(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    """As if its worker had died after the workflow had begun, and before the outcome was recorded."""
    runner = make_runner(reservation_timeout=0.6)
    tell, told = recorder(runner)
    stream = Keyspace("taskrunner", runner.settings.namespace, 1).partitions[0].queue("default").stream
    runs = 0

    @runner.task(on_start=chain(tell.job("first"), tell.job("second")))
    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await eventually(lambda: len(told) == 2 and only_this_one_runs(runner))
            [pending] = await redis_client.xpending_range(stream, "taskrunner", "-", "+", 1)
            await redis_client.xclaim(stream, "taskrunner", "thief", 0, [pending["message_id"]])
        return runs

    async with runner.start():
        job = await work.dispatch()
        assert await job.result(DEADLINE) == 2
        await eventually(lambda: alone(redis_client, stream))
    assert [(id, what) for id, what, _ in told] == [
        (f"{job.id}.start.1.0", "first"),
        (f"{job.id}.start.1.1", "second"),
    ]


async def only_this_one_runs(runner: TaskRunner) -> bool:
    return await runner.count(state=JobStatus.RUNNING) == 1


async def alone(client: redis.asyncio.Redis, stream: str) -> bool:
    return len(await client.xinfo_consumers(stream, "taskrunner")) == 1


async def test_a_workflow_with_an_id_of_its_own_keeps_it(runner: TaskRunner) -> None:
    tell, told = recorder(runner)

    @runner.task(on_success=chain(tell.job("a"), tell.job("b"), id="the-one"))
    async def work() -> None: ...

    async with runner.start():
        for _ in range(2):
            await (await work.dispatch()).wait(DEADLINE)
        assert await (await runner.workflow("the-one")).status() in (JobStatus.RUNNING, JobStatus.SUCCEEDED)
        await eventually(lambda: quiet(runner))
    assert [id for id, *_ in told] == ["the-one.0", "the-one.1"]


@pytest.mark.parametrize("error", [RedisUnavailable("away"), ZeroDivisionError("a bug")], ids=repr)
async def test_a_workflow_that_can_not_be_dispatched_loses_no_outcome(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tell, told = recorder(runner)
    begin, failures = Workflows.begin, 0

    async def failing(self: Workflows, *arguments: Any) -> bool:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise error
        return await begin(self, *arguments)

    monkeypatch.setattr(Workflows, "begin", failing)

    @runner.task(on_success=chain(tell.job("a"), tell.job("b")))
    async def work() -> str:
        return "fine"

    caplog.set_level(logging.WARNING)
    async with runner.start():
        job = await work.dispatch()
        assert await job.result(DEADLINE) == "fine"
        if type(error) is RedisUnavailable:
            await (await runner.workflow(f"{job.id}.success.1")).wait(DEADLINE)
    assert any(record.name == "taskrunner.hooks" for record in caplog.records)
    assert bool(told) is (type(error) is RedisUnavailable), "the server that is away is waited for"


def test_what_can_not_be_dispatched_again_and_again_is_refused_when_the_task_is_made(runner: TaskRunner) -> None:
    tell, _ = recorder(runner)
    once = group.map(tell, (text for text in "ab"))
    with pytest.raises(WorkflowError, match=r"on_success: the items of .* can be read only once"):
        runner.declare("work", on_success=chain(tell.job("a"), once))
    job = tell.job("a")
    with pytest.raises(WorkflowError, match="is in the workflow twice"):
        runner.declare("work", on_success=group(chain(job, tell.job("b")), chain(job, tell.job("c"))))
    assert "work" not in runner.tasks


async def test_what_was_dispatched_can_be_no_callback(runner: TaskRunner) -> None:
    tell, _ = recorder(runner)
    flow = chain(tell.job("a"), tell.job("b"))
    await (await runner.dispatch(flow)).cancel()
    with pytest.raises(WorkflowError, match=r"on_retry: .* has been dispatched already"):
        runner.declare("work", on_retry=flow)

"""What a task can know about the job that it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest

from taskrunner import Backoff, JobContext, NotInJob, Snooze, TaskRunner, current_job

MakeRunner = Callable[..., TaskRunner]


async def test_the_context_tells_who_the_job_is(make_runner: MakeRunner) -> None:
    state = object()
    runner = make_runner(state=state)
    seen = list[JobContext]()

    @runner.task(name="report", queue="mail", max_retry=7)
    async def work(ctx: JobContext, n: int) -> None:
        seen.append(ctx)

    before = datetime.now(UTC)
    async with runner.start():
        job = await work.with_options(headers={"trace": "abc"}).dispatch(1)
        await job.result(timeout=10)
    [ctx] = seen
    assert (ctx.job_id, ctx.task, ctx.queue) == (job.id, "report", "mail")
    assert (ctx.attempt, ctx.max_retry, ctx.deliveries) == (1, 7, 1)
    assert ctx.state is state
    assert ctx.runner is runner
    assert dict(ctx.headers) == {"trace": "abc"}
    assert abs((ctx.enqueued_at - before).total_seconds()) < 5
    assert ctx.enqueued_at.tzinfo is UTC
    assert before <= ctx.started_at <= datetime.now(UTC)
    assert job.id in repr(ctx)


async def test_a_job_without_headers_has_an_empty_mapping(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext) -> int:
        return len(ctx.headers)

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == 0


async def test_the_context_is_found_below_the_task_in_coroutines_tasks_and_threads(runner: TaskRunner) -> None:
    async def below() -> str:
        return current_job().job_id

    @runner.task
    async def work(ctx: JobContext) -> list[bool]:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(below())
        ids = [await below(), child.result(), await asyncio.to_thread(lambda: current_job().job_id)]
        return [id == ctx.job_id for id in ids] + [current_job() is ctx]

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=10) == [True] * 4


async def test_a_plain_function_has_it_in_its_thread(runner: TaskRunner) -> None:
    @runner.task
    def work(ctx: JobContext, n: int) -> tuple[str, bool, int]:
        return ctx.job_id, current_job() is ctx, n

    @runner.task
    def without() -> str:
        return current_job().task

    async with runner.start():
        job = await work.dispatch(3)
        assert await job.result(timeout=10) == [job.id, True, 3]
        assert await (await without.dispatch()).result(timeout=10) == "without"


async def test_outside_a_job_there_is_none(runner: TaskRunner) -> None:
    with pytest.raises(NotInJob, match="only inside a running task"):
        current_job()

    @runner.task
    async def work() -> None: ...

    async with runner.start():
        await (await work.dispatch()).result(timeout=10)
        with pytest.raises(NotInJob):
            current_job()


async def test_the_fence_grows_with_every_delivery_of_a_job(runner: TaskRunner) -> None:
    fences = list[int]()

    @runner.task(max_retry=3, backoff=Backoff.constant(0))
    async def work(ctx: JobContext) -> None:
        fences.append(ctx.fence)
        if len(fences) == 2:
            raise Snooze(0)
        if len(fences) < 5:
            raise ValueError

    async with runner.start():
        await (await work.dispatch()).result(timeout=10)
    assert len(fences) == 5
    assert fences == sorted(set(fences))
    assert fences[-1] < 2**63


async def test_the_log_of_the_context_names_the_job(runner: TaskRunner, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskrunner.job")

    @runner.task(queue="mail")
    async def work(ctx: JobContext) -> None:
        ctx.log.info("reading %s", "x", extra={"size": 3})

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=10)
    [record] = [record for record in caplog.records if record.name == "taskrunner.job"]
    assert record.getMessage() == f"[work {job.id}] reading x"
    facts: Any = record
    assert (facts.job_id, facts.task, facts.queue, facts.attempt, facts.size) == (job.id, "work", "mail", 1, 3)


variable: ContextVar[str] = ContextVar("variable", default="clean")


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("end", ["returns", "raises"])
async def test_context_variables_that_one_job_sets_are_not_seen_by_the_next(make_runner: MakeRunner, end: str) -> None:
    runner = make_runner(num_workers=1)

    @runner.task(max_retry=0)
    async def leave() -> None:
        variable.set("dirty")
        if end == "raises":
            raise ValueError

    @runner.task
    async def look() -> str:
        return variable.get()

    @runner.task
    def look_in_a_thread() -> str:
        return variable.get()

    async with runner.start():
        for task in (look, look_in_a_thread):
            await (await leave.dispatch()).wait(timeout=10)
            assert await (await task.dispatch()).result(timeout=10) == "clean"


async def test_a_job_sees_the_context_variables_of_where_the_runner_was_started(runner: TaskRunner) -> None:
    @runner.task
    async def look() -> str:
        return variable.get()

    token = variable.set("set before the start")
    try:
        async with runner.start():
            assert await (await look.dispatch()).result(timeout=10) == "set before the start"
    finally:
        variable.reset(token)


async def test_a_parameter_that_is_merely_called_ctx_gets_an_argument(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: str, n: int) -> str:
        return f"{ctx} {n}"

    async with runner.start():
        assert await (await work.dispatch("mine", 1)).result(timeout=10) == "mine 1"

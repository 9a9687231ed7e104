"""The first look: a task, a dispatch, a result."""

from __future__ import annotations

from taskrunner import JobContext, TaskRunner


async def test_a_dispatched_job_runs_and_gives_its_result(runner: TaskRunner) -> None:
    @runner.task
    async def greet(ctx: JobContext, name: str) -> str:
        return f"hello {name}, attempt {ctx.attempt}"

    async with runner.start():
        job = await greet.dispatch("Ann")
        assert await job.result(timeout=10) == "hello Ann, attempt 1"

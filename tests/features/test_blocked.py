"""Blocked jobs: those that wait in line for a lock or a limit are found, counted and listed as such, in every lane."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner import JobStatus, Limit, TaskRunner
from tests.waiting import eventually


@pytest.mark.parametrize("kind", ["lock", "limit"])
async def test_jobs_in_line_are_found_counted_and_listed_as_blocked(runner: TaskRunner, kind: str) -> None:
    go = asyncio.Event()
    options = {"lock_key": "k"} if kind == "lock" else {"limit": Limit(1)}

    @runner.task(**options)  # type: ignore[call-overload, untyped-decorator]
    async def work(n: int) -> int:
        await go.wait()
        return n

    @runner.task
    async def other() -> None: ...

    async with runner.start():
        first = await work.dispatch(0)
        await eventually(lambda: is_in(first, JobStatus.RUNNING))
        behind = [await work.with_options(priority=name).dispatch(n) for n, name in enumerate(("high", "normal"), 1)]
        late = await work.with_options(delay=3600).dispatch(3)
        await other.dispatch()
        # A lane's first one is in a stream until a worker has asked for its seat.
        for job in behind:
            await eventually(lambda job=job: is_in(job, JobStatus.BLOCKED))
        assert await late.status() is JobStatus.SCHEDULED
        assert await runner.count(state="blocked") == 2
        assert await runner.count(state="blocked", task=work.name) == 2
        assert await runner.count(state="blocked", task=other.name) == 0
        assert {job.id for job in await runner.jobs("blocked")} == {job.id for job in behind}
        for job, priority in zip(behind, ("high", "normal"), strict=True):
            info = await job.info()
            assert (info.status, info.task, info.queue) == (JobStatus.BLOCKED, work.name, "default"), priority
        stats = await runner.stats("default")
        assert (stats.blocked, stats.running, stats.scheduled) == (2, 1, 1)
        assert await late.cancel()
        go.set()
        for job in (first, *behind):
            await job.result(timeout=20)
        assert await runner.count(state="blocked") == 0
        assert (await runner.stats("default")).blocked == 0


async def is_in(job: object, status: JobStatus) -> bool:
    return await job.status() is status  # type: ignore[attr-defined,no-any-return]

"""What the checklists ask a runner, and a task that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskrunner import (
    JobNotFound,
    JobStatus,
    TaskRunner,
)

MakeRunner = Callable[..., TaskRunner]


def failing(runner: TaskRunner, **options: Any) -> Any:
    """A task that fails for good at its first run."""

    @runner.task(max_retry=0, **options)
    async def bad(n: int) -> None:
        raise ValueError(f"no {n}")

    return bad


async def forgotten(runner: TaskRunner, id: str) -> bool:
    try:
        await runner.job(id).status()
    except JobNotFound:
        return True
    return False


def tick(job_id: str) -> int:
    """The instant for which a schedule made a job, in ms."""
    return int(job_id.rpartition("@")[2])


async def quiet(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running + stats.scheduled == 0


async def dead(runner: TaskRunner, least: int) -> bool:
    return await runner.dead_letters.count() >= least


async def is_in(job: Any, status: JobStatus) -> bool:
    return await job.status() is status

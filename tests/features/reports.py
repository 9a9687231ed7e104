"""What a job has told of its progress, seen from outside."""

from __future__ import annotations

from typing import Any

from taskrunner import Job, JobProgress


async def of(job: Job[Any]) -> JobProgress | None:
    return (await job.info()).progress


async def amounts(job: Job[Any]) -> tuple[float, float | None, str | None] | None:
    found = await of(job)
    return None if found is None else (found.done, found.total, found.message)

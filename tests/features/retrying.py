"""What the tests of failing and retried jobs share."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner import Backoff, Job, JobFailed, JobInfo, JobStatus

end_in_dead_letters = pytest.mark.leaves("dead")
stays_waiting = pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
AT_ONCE = Backoff.constant(0)


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


async def retrying(job: Job[Any], attempts: int) -> JobInfo | None:
    info = await job.info()
    return info if info.status is JobStatus.RETRYING and info.attempts == attempts else None

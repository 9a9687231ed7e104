"""S3 and S4: jobs that run for longer than the reservation."""

from __future__ import annotations

from tests.scenarios.stage import RESERVATION, Figures, Stage
from tests.scenarios.traffic import Traffic

BLOCKED, LONG = 3 * RESERVATION, 10 * RESERVATION
LIGHT = 20.0
"""Jobs per second beside a job that blocks its worker."""


async def blocked_loop(stage: Stage) -> Figures:
    """A handler keeps its event loop to itself for three reservations; two workers, light traffic beside it."""
    for _ in range(2):
        await stage.worker()
    async with Traffic(stage.tasks, LIGHT) as traffic:
        await traffic.more(10)
        job = await stage.tasks.block_for.dispatch(BLOCKED)
        await job.wait(BLOCKED + 30)
        await traffic.more(20)
    await stage.drained()
    runs = len(stage.journal.lines("start", job=job.id))
    stage.expect(runs == 1, f"the job that blocked was started {runs} times")
    lost, ended_twice = stage.account(traffic.accepted)
    started = len(stage.journal.lines("start")) - runs
    twice = max(ended_twice, started - len(traffic.accepted))
    stage.expect(not twice, f"{twice} other jobs ran twice")
    await stage.recorded_once("nap", len(traffic.accepted))
    await stage.leave()
    return {"runs": runs, "twice": twice, "bystanders": len(traffic.accepted), "lost": lost}


async def long_job(stage: Stage) -> Figures:
    """A handler sleeps, awaiting, for ten reservations; two workers."""
    for _ in range(2):
        await stage.worker()
    job = await stage.tasks.nap.dispatch(LONG)
    await job.wait(LONG + 30)
    await stage.drained()
    runs, ends = len(stage.journal.lines("start", job=job.id)), len(stage.journal.lines("end", job=job.id))
    stage.expect((runs, ends) == (1, 1), f"{runs} starts and {ends} ends")
    await stage.recorded_once("nap", 1)
    await stage.leave()
    return {"runs": runs}

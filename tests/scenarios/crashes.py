"""S1 and S9: workers that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any

from taskrunner import Job, JobFailed
from tests.faults.workshop import Line
from tests.scenarios.recovery import BACK
from tests.scenarios.stage import Figures, Stage
from tests.scenarios.traffic import RUN
from tests.waiting import eventually

JOBS, WORKERS, KILLS = 1000, 3, 6
BYSTANDERS, WATCHED = 100, 30.0


async def killed_workers(stage: Stage) -> Figures:
    """Three workers run 1000 jobs of 20 ms; six times one is killed and replaced at once."""
    for _ in range(WORKERS):
        await stage.worker()
    jobs = await stage.fleet.runner.dispatch_many([stage.tasks.nap.job(RUN) for _ in range(JOBS)])
    held, killed = 0, set[int]()
    replacements: list[asyncio.Task[Any]] = []
    for number in range(1, KILLS + 1):
        await stage.progress(JOBS * number // (KILLS + 1) + stage.random.randrange(-40, 40))
        await eventually(lambda: stage.workers)  # all three may have been killed faster than a process starts
        victim = stage.random.choice(stage.workers)
        held += await stage.kill(victim)
        killed.add(victim.pid)
        replacements.append(asyncio.create_task(stage.worker()))
    over = time.monotonic()
    await asyncio.gather(*replacements)
    await stage.drained()
    lost, twice = stage.account(jobs)
    ends = stage.journal.lines("end")
    recovery = max(line.at for line in ends) - over
    stage.expect(twice <= held, f"{twice} ran to the end twice, but only {held} were in hand at the kills")
    stage.expect(recovery < BACK, f"the last job ended {recovery:.1f} s after the last kill")
    await stage.recorded_once("nap", JOBS)
    await stage.leave()
    return {"lost": lost, "twice": twice, "living": _ended_alive(ends, killed), "held": held, "recovery": recovery}


def _ended_alive(ends: Sequence[Line], killed: Collection[int]) -> int:
    """How often a job ran to its end again although the worker that had ended it was never killed."""
    first: dict[str, int] = {}
    again = 0
    for line in ends:
        if line.job in first:
            again += first[line.job] not in killed
        else:
            first[line.job] = line.pid
    return again


async def poison(stage: Stage) -> Figures:
    """A job ends its process by ``os._exit(1)``; a supervisor replaces the workers."""
    tasks = stage.tasks
    before = [tasks.nap.job(RUN) for _ in range(BYSTANDERS // 2)]
    after = [tasks.nap.job(RUN) for _ in range(BYSTANDERS // 2)]
    jobs: list[Job[Any]] = await stage.fleet.runner.dispatch_many([*before, tasks.die.job(1), *after])
    killer = jobs.pop(len(before))
    async with stage.supervised(2):
        await asyncio.sleep(WATCHED)
        reason = await _reason(killer)
        await stage.drained()
        await eventually(lambda: len(stage.workers) == 2)
    stage.expect(reason == "delivery limit", f"the killer ended by {reason!r}")
    starts = len(stage.journal.lines("start", job=killer.id))
    limit = stage.fleet.runner.settings.max_deliveries
    stage.expect(starts <= limit, f"{starts} starts, but max_deliveries is {limit}")
    lost, twice = stage.account(jobs)
    dead = await stage.fleet.runner.dead_letters.count()
    stage.expect(dead == 1, f"{dead} dead letters, there should be one")
    await stage.recorded_once("nap", len(jobs))
    await stage.leave("dead")
    return {"starts": starts, "lost": lost, "bystanders": len(jobs), "twice": twice}


async def _reason(job: Job[Any]) -> str:
    """Why a job failed for good. On a slow machine that may come later than it was watched for."""
    try:
        await job.result(WATCHED)
    except JobFailed as failed:
        return failed.reason
    return "success"

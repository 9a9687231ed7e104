"""S2 and S2b: a worker that is stopped for longer than its reservation and then goes on.

The handlers keep the event loop to themselves. An awaiting one may be cancelled as soon as its worker wakes and learns
that the job isn't its own any more; here there is always a late outcome, that only the server can refuse.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from taskrunner import Job
from tests.faults.workshop import Line
from tests.programs import Program
from tests.scenarios.stage import Figures, Stage

RUN, STOPPED_AFTER = 1.5, 0.4


async def _stop_who_runs(stage: Stage, job: Job[Any]) -> tuple[Program, Program, float]:
    """Stops the worker that has started this job. Returns it, the other worker, and when it was stopped."""
    [start] = await stage.tasks.seen(1, "start", job=job.id)
    zombie = stage.by_pid(start.pid)
    [other] = (worker for worker in stage.workers if worker is not zombie)
    await asyncio.sleep(STOPPED_AFTER)
    zombie.signal(signal.SIGSTOP)
    return zombie, other, time.monotonic()


async def _refused(stage: Stage, job: Job[Any], zombie: Program) -> None:
    """Waits until the zombie has ended its run and been told that its outcome does not count."""
    await stage.tasks.seen(1, "end", job=job.id, pid=zombie.pid)
    await stage.noticed_loss(zombie)


async def zombie(stage: Stage) -> Figures:
    """A worker is stopped 0.4 s into a job of 1.5 s, a second one takes over and ends it, the first one goes on."""
    for _ in range(2):
        await stage.worker()
    job = await stage.tasks.block_for.dispatch(RUN)
    stopped, other, at = await _stop_who_runs(stage, job)
    [end] = await stage.tasks.seen(1, "end", job=job.id, pid=other.pid)
    await job.wait(20)
    stopped.signal(signal.SIGCONT)
    await _refused(stage, job, stopped)
    stands = await job.result(20) == other.pid
    stage.expect(stands, "the zombie replaced the result")
    await stage.recorded_once("block_for", 1)
    await stage.leave()
    result = "result stands" if stands else "**result overwritten**"
    return {"seconds": end.at - at, "result": result}


async def waking_zombie(stage: Stage) -> Figures:
    """The zombie wakes, and ends its run, while the new owner still runs; then the new owner is killed."""
    tasks, gate = stage.tasks, "gate"
    for _ in range(2):
        await stage.worker()
    unique = tasks.block.with_options(unique=True, unique_key="one")
    job = await unique.dispatch(gate)
    stopped, owner, _ = await _stop_who_runs(stage, job)
    await tasks.seen(1, "start", job=job.id, pid=owner.pid)
    tasks.open_gate(gate, stopped.pid)
    stopped.signal(signal.SIGCONT)
    await _refused(stage, job, stopped)
    untouched = await _belongs_to(stage, owner, 2)
    stage.expect(untouched, "the new owner's delivery was touched")
    again = await unique.dispatch(gate)
    stage.expect(again.deduplicated, "the unique key was freed while the new owner ran")
    # The zombie, which is alive and well, is the only one left to run it, and its gate is open.
    await stage.kill(owner)
    killed = time.monotonic()
    rerun = await _third_run(stage, job)
    stage.expect(await job.result(20) == rerun.pid, "the result is not that of the last run")
    await stage.recorded_once("block", 1)
    await stage.leave()
    delivery = "untouched" if untouched else "**ended**"
    return {"delivery": delivery, "seconds": rerun.at - killed}


async def _belongs_to(stage: Stage, owner: Program, deliveries: int) -> bool:
    """Whether exactly one entry is pending, for this worker, with this count."""
    async with stage.server.client() as client:
        rows = await client.xpending_range(stage.fleet.stream, "taskrunner", "-", "+", 10)
    names = await stage.names()
    return [(row["consumer"].decode(), row["times_delivered"]) for row in rows] == [(names[owner.pid], deliveries)]


async def _third_run(stage: Stage, job: Job[Any]) -> Line:
    """The end of the run after those of the zombie and of the new owner, which was killed."""
    starts = await stage.tasks.seen(3, "start", job=job.id)
    ends = await stage.tasks.seen(1, "end", job=job.id, pid=starts[2].pid)
    while ends[-1].at < starts[2].at:
        ends = await stage.tasks.seen(len(ends) + 1, "end", job=job.id, pid=starts[2].pid)
    return ends[-1]

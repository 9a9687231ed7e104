"""S7: a worker that is asked to stop."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.scenarios.stage import Figures, Stage

SLOTS, WAITING, RUN = 50, 200, 1.0
TERMED_AFTER = 0.4
SECONDS = 10.0
"""Within which a worker must be gone after its last job has ended: the limit for recording outcomes at a stop."""


async def stop(stage: Stage) -> Figures:
    """SIGTERM with all 50 slots in jobs of 1 s and four times as many waiting; then the next worker."""
    worker = await stage.worker(num_workers=SLOTS)
    jobs = await stage.fleet.runner.dispatch_many([stage.tasks.nap.job(RUN) for _ in range(SLOTS + WAITING)])
    await stage.tasks.seen(SLOTS, "start")
    await asyncio.sleep(TERMED_AFTER)
    worker.signal(signal.SIGTERM)
    asked = time.monotonic()
    code = await worker.ended(RUN + 50)
    gone = time.monotonic()
    stage.workers.remove(worker)
    starts, ends = stage.journal.lines("start"), stage.journal.lines("end")
    late = gone - max(line.at for line in ends)
    stage.expect(code == 0, f"it exited with {code}")
    stage.expect(late < SECONDS, f"it was gone {late:.1f} s after its last job had ended")
    stage.expect(len(starts) == len(ends), f"{len(starts) - len(ends)} of its jobs were started and cut off")
    stage.expect(len(starts) < len(jobs), "no job was waiting when it was asked to stop")
    await stage.worker(num_workers=SLOTS)
    await stage.drained()
    lost, twice = stage.account(jobs)
    stage.expect(not twice, f"{twice} ran to the end twice")
    await stage.recorded_once("nap", len(jobs))
    await stage.leave()
    return {"seconds": gone - asked, "late": late, "lost": lost, "twice": twice, "jobs": len(jobs)}

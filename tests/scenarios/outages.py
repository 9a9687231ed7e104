"""S5 and S6: a server that dies, and one that is emptied. Nobody restarts a worker that exits: it would not be back."""

from __future__ import annotations

import asyncio
import time

from tests.scenarios.recovery import ends_per_second, recovery
from tests.scenarios.stage import Figures, Stage
from tests.scenarios.traffic import Traffic

KILLS, DOWN = 3, 0.7
RATE = 50.0
"""Jobs per second."""
WARM = 2.0
"""Seconds of traffic before a fault, to know the rate that must come back."""
FULL = 1.0
"""Seconds that the jobs run which fill all slots when the server is emptied."""


async def killed_server(stage: Stage) -> Figures:
    """The server is killed three times, for 0.7 s; two workers, and a producer that retries every exception."""
    for _ in range(2):
        await stage.worker()
    seconds, rates, back = [], [], 0
    async with Traffic(stage.tasks, RATE) as traffic:
        for _ in range(KILLS):
            await asyncio.sleep(WARM)
            now = time.monotonic()
            before = ends_per_second(stage.journal, now - WARM, now)
            stage.server.kill()
            await asyncio.sleep(DOWN)
            await stage.server.start()
            found = await recovery(stage, time.monotonic(), before)
            seconds.append(found.seconds)
            rates.append(found.rate)
            back += found.back == len(stage.workers)
    await stage.drained()
    stage.expect(back == KILLS, f"both workers were back after {back} of {KILLS} restarts")
    lost, twice = stage.account(traffic.accepted)
    known = {job.id for job in traffic.accepted}
    strangers = len({line.job for line in stage.journal.lines("start")} - known)
    stage.expect(strangers <= len(traffic.errors), f"{strangers} jobs ran that no dispatch returned")
    if not traffic.errors:
        await stage.recorded_once("nap", len(known))
    exits = stage.exits()
    await stage.leave()
    return {
        "lost": lost,
        "accepted": len(known),
        "twice": twice,
        "back": back,
        "seconds": max(seconds),
        "rate": max(rates),
        "exits": exits,
        "errors": len(traffic.errors),
    }


async def emptied_server(stage: Stage) -> Figures:
    """FLUSHALL and SCRIPT FLUSH while all slots of both workers are taken; then new jobs."""
    for _ in range(2):
        await stage.worker()
    async with Traffic(stage.tasks, RATE) as old:
        await asyncio.sleep(WARM)
    now = time.monotonic()
    before = ends_per_second(stage.journal, now - WARM, now)
    slots = 2 * stage.fleet.runner.settings.num_workers
    starts = stage.journal.count("start")
    await stage.fleet.runner.dispatch_many([stage.tasks.nap.job(FULL) for _ in range(slots)])
    await stage.tasks.seen(max(starts, len(old.accepted)) + slots, "start")
    async with stage.server.client() as client:
        await client.flushall()
        await client.script_flush()
    emptied = time.monotonic()
    async with Traffic(stage.tasks, RATE) as new:
        found = await recovery(stage, emptied, before)
        await new.more(100)
    await stage.drained()
    back = found.back == len(stage.workers)
    stage.expect(back, f"{found.back} of {len(stage.workers)} workers ran new jobs")
    lost, twice = stage.account(new.accepted)
    exits = stage.exits()
    await stage.leave()
    return {
        "back": found.back,
        "workers": 2,
        "seconds": found.seconds,
        "rate": found.rate,
        "lost": lost,
        "twice": twice,
        "accepted": len(new.accepted),
        "exits": exits,
        "errors": len(new.errors),
    }

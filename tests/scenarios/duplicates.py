"""S8: many dispatches of one unique key, by several processes at once; then the worker is killed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from taskrunner import Job, TaskRunner
from tests.faults.workshop import Workshop
from tests.programs import Program
from tests.scenarios.stage import LOST_AFTER, Figures, Stage

PROCESSES, EACH = 4, 50
GATE = "gate"


def unique(tasks: Workshop) -> Any:
    return tasks.hold.with_options(unique=True, unique_key="one")


def dispatch() -> None:
    """The main program of a process that dispatches the key many times at once, when it is told to."""
    asyncio.run(_dispatch())


async def _dispatch() -> None:
    async with TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"]) as runner:
        tasks = Workshop(runner, Path(os.environ["FOLDER"]))
        await runner.stats()  # so that it is connected
        print("ready", flush=True)
        await asyncio.to_thread(input)
        jobs = await asyncio.gather(*(unique(tasks).dispatch(GATE) for _ in range(EACH)))
        print(json.dumps([(job.id, job.deduplicated) for job in jobs]), flush=True)
        tasks.journal.close()


async def _dispatch_at_once(stage: Stage) -> list[tuple[str, bool]]:
    """What became of all the dispatches: the job's id, and whether it was there before."""
    fleet = stage.fleet
    environment = {"URL": fleet.url, "NAMESPACE": fleet.namespace, "FOLDER": str(fleet.folder)}
    source = "from tests.scenarios.duplicates import dispatch; dispatch()"
    programs: list[Program] = [stage.program(source, **environment) for _ in range(PROCESSES)]
    for program in programs:
        assert await program.line() == "ready"
    for program in programs:
        assert program.process.stdin is not None
        program.process.stdin.write("go\n")
        program.process.stdin.flush()
    told = [json.loads(await program.line()) for program in programs]
    for program in programs:
        assert await program.ended() == 0
    return [(id, deduplicated) for lines in told for id, deduplicated in lines]


async def one_key(stage: Stage) -> Figures:
    """200 dispatches of one key from four processes at once; the worker that runs it is killed and replaced."""
    tasks = stage.tasks
    worker = await stage.worker()
    told = await _dispatch_at_once(stage)
    ids, deduplicated = {id for id, _ in told}, sum(again for _, again in told)
    stage.expect(len(ids) == 1, f"the dispatches came to {len(ids)} jobs")
    stage.expect(deduplicated == len(told) - 1, f"{deduplicated} of {len(told)} dispatches were told of a duplicate")
    [id] = ids
    await tasks.seen(1, "start", job=id)
    await asyncio.sleep(0.5)  # whoever else was let in has started by now
    runs = stage.journal.count("start")
    stage.expect(runs == 1, f"{runs} runs")
    await stage.kill(worker)
    killed = time.monotonic()
    replacement = await stage.worker()
    held = await unique(tasks).dispatch(GATE)
    stage.expect(held.id == id and held.deduplicated, "the key was free although its job had not ended")
    tasks.open_gate(GATE)
    [end] = await tasks.seen(1, "end", job=id)
    stage.expect(await stage.fleet.runner.job(id).result(20) == replacement.pid, "it was not run by the replacement")
    again = await _when_free(stage, id)
    [freed] = await tasks.seen(1, "end", job=again.id)
    await stage.recorded_once("hold", 2)
    await stage.leave()
    return {
        "runs": runs,
        "dispatches": len(told),
        "deduplicated": deduplicated,
        "done": end.at - killed,
        "free": freed.at - killed,
    }


async def _when_free(stage: Stage, id: str) -> Job[Any]:
    """Dispatches the key until it is a job of its own."""
    deadline = time.monotonic() + LOST_AFTER
    while time.monotonic() < deadline:
        job: Job[Any] = await unique(stage.tasks).dispatch(GATE)
        if not job.deduplicated:
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"the key of job {id} was not freed within {LOST_AFTER:.0f} s")

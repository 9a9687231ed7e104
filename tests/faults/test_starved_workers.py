"""Workers that the machine lets down: nobody reads what they log, the disk is full, no file can be opened any more."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil
import pytest

from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

# A worker that logs to stderr, which is what the first line makes of it.
SOURCE = """
import os, sys
{spoil}
os.execv(sys.executable, [sys.executable, "-u", "-c", '''
import asyncio, json, logging, os, pathlib
from taskrunner import TaskRunner
from tests.faults.workshop import Workshop

logging.basicConfig(level=logging.DEBUG)
runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=1, shutdown_timeout=1)
tasks = Workshop(runner, pathlib.Path(os.environ["FOLDER"]))

@runner.task
async def chatter(lines: int) -> int:
    for n in range(lines):
        logging.getLogger("chatter").warning("line %d", n)
        logging.getLogger("chatter").error("with a traceback", exc_info=ValueError(n))
    return lines

runner.on_startup(lambda: print("started", flush=True))
asyncio.run(runner.run())
'''])
"""
SPOILED = {
    "a pipe that nobody reads": "r, w = os.pipe(); os.close(r); os.dup2(w, 2); os.close(w)",
    "a full disk": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "nothing at all": "os.close(2)",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_a_worker_that_can_not_log_works_on_through_an_outage_and_ends_cleanly(
    spoil: str, fleet: Fleet, own_server: Server, program: Callable[..., Program]
) -> None:
    tasks, chatter = fleet.tasks, fleet.runner.declare("chatter")
    worker = program(SOURCE.format(spoil=spoil), URL=fleet.url, NAMESPACE=fleet.namespace, FOLDER=str(fleet.folder))
    assert await worker.line() == "started"
    job = await tasks.hold.dispatch("gate")
    await tasks.seen(1, "start", job=job.id, pid=worker.pid)
    async with own_server.client() as client:
        for _ in range(3):  # each makes it log, on the loop and in the thread of the heartbeats
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await (await chatter.dispatch(100)).result(20) == 100
    tasks.open_gate("gate")
    assert await job.result(20) == worker.pid
    assert len(tasks.journal.lines("start", job=job.id)) == 1
    held = await tasks.hold.dispatch("never")
    await tasks.seen(1, "start", job=held.id)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    async with own_server.client() as client:
        assert await fleet.pending(client) == 0
        assert [row["consumers"] for row in await client.xinfo_groups(fleet.stream)] == [0]


async def test_a_worker_that_can_open_no_file_loses_its_jobs_to_others_and_works_again_when_it_can(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    starved = await fleet.worker(num_workers=5)
    job = await tasks.hold.dispatch("gate")
    await tasks.seen(1, "start", job=job.id, pid=starved.pid)
    process = psutil.Process(starved.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays open, and nothing more
    async with own_server.client() as client:
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: "Too many open files" in fleet.log(starved))
        other = await fleet.worker()
        tasks.open_gate("gate", other.pid)
        assert await job.result(30) == other.pid
        await fleet.end(other)
        waiting = await tasks.quick.dispatch("waits for it")
        assert starved.process.poll() is None
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert await waiting.result(30) == "waits for it"
        await tasks.seen(1, "cancelled", job=job.id, pid=starved.pid)
        assert await job.result(20) == other.pid
    await fleet.end(starved)
    assert len(tasks.journal.lines("end", job=job.id)) == 1
    assert "Traceback" not in fleet.log(starved)

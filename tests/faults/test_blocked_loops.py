"""Workers whose event loop, or whose interpreter, stands still. (Those that stand still for less than their patience:
``tests/worker/test_long_jobs.py``.)"""

from __future__ import annotations

import os

import pytest
import redis.asyncio

from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash


async def test_a_native_call_that_stops_the_whole_process_loses_its_job_and_harms_nothing(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    os.mkfifo(fleet.folder / "fifo")
    frozen = await fleet.worker()
    bystander = await tasks.hold.dispatch("gate")
    await tasks.seen(1, "start", job=bystander.id)
    freezer = await tasks.rude.freeze.dispatch("fifo")
    await tasks.seen(1, "start", job=freezer.id, pid=frozen.pid)
    other = await fleet.worker()
    tasks.open_gate("gate", other.pid)
    assert await freezer.result(20) == other.pid
    assert await bystander.result(20) == other.pid
    await fleet.end(other)

    os.close(os.open(fleet.folder / "fifo", os.O_WRONLY | os.O_NONBLOCK))  # fails unless the call still waits
    await tasks.seen(1, "cancelled", job=bystander.id, pid=frozen.pid)
    await eventually(
        lambda: "1 outcomes were refused" in fleet.log(frozen) or "reservations were lost" in fleet.log(frozen)
    )
    assert await (await tasks.quick.dispatch("alive")).result(20) == "alive"
    assert await freezer.result(20) == other.pid
    for name in ("freeze", "hold"):
        figures = await fleet.figures(name)
        assert (figures.succeeded, figures.waiting) == (1, 0)
    await fleet.end(frozen)
    assert "Traceback" not in fleet.log(frozen)


@pytest.mark.slow
async def test_a_worker_that_was_wedged_and_alone_goes_on_with_its_own_jobs(fleet: Fleet, own_server: Server) -> None:
    tasks = fleet.tasks
    wedged = await fleet.worker()
    bystanders = [await tasks.hold.dispatch("bystander") for _ in range(3)]
    blocker = await tasks.block.dispatch("blocker")
    await tasks.seen(4, "start", pid=wedged.pid)
    await eventually(lambda: "the event loop has been blocked" in fleet.log(wedged))
    async with own_server.client() as client:
        await eventually(lambda: _all_look_abandoned(client, fleet))
    tasks.open_gate("blocker")
    assert await blocker.result(20) == wedged.pid
    await (await tasks.quick.dispatch()).wait(20)
    tasks.open_gate("bystander")
    for job in bystanders:
        assert await job.result(20) == wedged.pid
    assert len(tasks.journal.lines("start")) == 5, "it took over from itself"
    assert not tasks.journal.lines("cancelled")
    await fleet.end(wedged)


async def _all_look_abandoned(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    rows = await client.xpending_range(fleet.stream, "taskrunner", "-", "+", 10)
    return min(row["time_since_delivered"] for row in rows) > 2_000

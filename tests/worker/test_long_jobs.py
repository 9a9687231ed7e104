"""Jobs that take longer than their reservation, and handlers that keep the event loop to themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

RESERVATION = 1.0


@pytest.mark.slow
async def test_a_job_ten_times_longer_than_its_reservation_runs_once(
    fleet: Fleet,
) -> None:
    tasks = fleet.tasks
    await fleet.worker()
    job = await tasks.nap.dispatch(10 * RESERVATION)
    [start] = await tasks.seen(1, "start")
    async with fleet.runner.start():  # which would take it
        assert await job.result(10 * RESERVATION + 20) == start.pid
    assert len(tasks.journal.lines("start")) == 1
    assert not tasks.journal.lines("cancelled")


@pytest.mark.slow
async def test_a_thousand_jobs_in_one_workers_hands_outlive_their_reservation_and_run_once(
    make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=2, num_workers=1_000)
    tasks = fleet.tasks
    worker = await fleet.worker()
    jobs = await fleet.runner.dispatch_many([tasks.hold.job("gate") for _ in range(1_000)])
    await tasks.seen(1_000, "start")
    async with fleet.runner.start(), own_server.client() as client:  # which would take them
        await eventually(lambda: fleet.runner.ready)
        await asyncio.sleep(6)  # three reservations
        assert await fleet.pending(client) == 1_000
        tasks.open_gate("gate")
        assert {await job.result(20) for job in jobs} == {worker.pid}
    assert len(tasks.journal.lines("start")) == 1_000
    assert not tasks.journal.lines("cancelled")
    await fleet.end(worker)


async def test_a_handler_that_blocks_the_loop_for_three_reservations_runs_once_and_so_do_its_bystanders(
    fleet: Fleet,
) -> None:
    tasks = fleet.tasks
    blocked = await fleet.worker()
    bystanders = [await tasks.hold.dispatch("gate") for _ in range(3)]
    await tasks.seen(3, "start")
    blocker = await tasks.block_for.dispatch(3 * RESERVATION)
    await tasks.seen(4, "start", pid=blocked.pid)
    async with fleet.runner.start():
        assert await blocker.result(20) == blocked.pid
        tasks.open_gate("gate")
        assert [await job.result(20) for job in bystanders] == [blocked.pid] * 3
    assert len(tasks.journal.lines("start")) == 4
    assert not tasks.journal.lines("cancelled")


async def test_a_job_that_was_given_to_a_worker_while_its_loop_was_blocked_runs_once(fleet: Fleet) -> None:
    tasks = fleet.tasks
    blocked = await fleet.worker()
    blocker = await tasks.block.dispatch("gate")
    await tasks.seen(1, "start")
    swallowed = await tasks.quick.dispatch("swallowed")  # by the fetch that was under way when the block began
    assert str(await swallowed.status()) == "running"
    async with fleet.runner.start():
        assert await swallowed.result(20) == "swallowed"
    tasks.open_gate("gate")
    assert await blocker.result(20) == blocked.pid
    assert await (await tasks.quick.dispatch("alive")).result(20) == "alive"
    assert len(tasks.journal.lines("start", job=swallowed.id)) == 1
    await fleet.end(blocked)


@pytest.mark.slow
async def test_a_wedged_loop_loses_its_jobs_and_changes_nothing_when_it_comes_back(fleet: Fleet) -> None:
    tasks = fleet.tasks
    wedged = await fleet.worker()
    bystander = await tasks.hold.dispatch("bystander")
    await tasks.seen(1, "start")
    blocker = await tasks.block.dispatch("blocker")
    await tasks.seen(2, "start", pid=wedged.pid)
    other = await fleet.worker()
    for gate in ("blocker", "bystander"):
        tasks.open_gate(gate, other.pid)
    assert await blocker.result(30) == other.pid
    assert await bystander.result(30) == other.pid
    assert "the event loop has been blocked" in fleet.log(wedged)

    await fleet.end(other)
    tasks.open_gate("blocker", wedged.pid)
    assert await (await tasks.quick.dispatch("back")).result(20) == "back"
    assert await blocker.result(20) == other.pid
    assert len(tasks.journal.lines("end", job=blocker.id)) == 2
    await tasks.seen(1, "cancelled", job=bystander.id, pid=wedged.pid)
    for name in ("block", "hold"):
        figures = await fleet.figures(name)
        assert (figures.succeeded, figures.waiting) == (1, 0)

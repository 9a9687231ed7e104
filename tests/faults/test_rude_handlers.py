"""Handlers that ignore their cancellation, use up the memory, or leave processes behind."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from taskrunner import JobFailed
from taskrunner.features import timeouts
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

NEVER = 300
"""A reservation in seconds that no test waits for."""


async def test_a_run_that_goes_on_after_its_timeout_is_told_of_and_keeps_its_slot_and_its_job(
    make_fleet: Callable[..., Fleet], own_server: Server, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(timeouts, "STUCK", 0.1)
    fleet = make_fleet(own_server.url, num_workers=1)
    tasks = fleet.tasks
    stuck = tasks.rude.ignore.with_options(timeout=0.1, max_retry=0)
    async with fleet.runner.start():
        job = await stuck.dispatch("gate")
        await tasks.seen(1, "cancelled", job=job.id)
        behind = await tasks.quick.dispatch("behind")
        await eventually(lambda: f"job {job.id} of task 'ignore' is stuck" in caplog.text)
        other = await fleet.worker()
        assert await behind.result(20) == "behind", "nobody else can run it"
        tasks.open_gate("gate")
        with pytest.raises(JobFailed, match="would not be cancelled") as failed:
            await job.result(20)
        assert (failed.value.error_type, failed.value.attempts) == ("JobTimeout", 1)
        await fleet.end(other)
        assert await (await tasks.quick.dispatch("free again")).result(20) == "free again"
    assert [line.pid for line in tasks.journal.lines("start", job=job.id)] == [os.getpid()]
    assert [line.pid for line in tasks.journal.lines("start", job=behind.id)] == [other.pid]


@pytest.mark.crash
async def test_a_process_whose_job_ignores_every_cancellation_ends_after_its_deadlines_all_the_same(
    make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=NEVER, shutdown_timeout=0.2)
    tasks = fleet.tasks
    worker = await fleet.worker()
    job = await tasks.rude.ignore.dispatch("gate")
    await tasks.seen(1, "start", job=job.id)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert f"stuck, they ignore their cancellation, and are given up: ignore {job.id}" in fleet.log(worker)
    assert not tasks.journal.lines("end")
    tasks.open_gate("gate")
    async with fleet.runner.start():
        assert await job.result(20) == os.getpid()
    runs = tasks.journal.lines("start", job=job.id)
    assert [(run.attempt, run.deliveries) for run in runs] == [(1, 1), (1, 1)]
    async with own_server.client() as client:
        assert not await leftovers(client, fleet.namespace)


async def test_a_job_that_wants_more_memory_than_there_is_fails_and_its_neighbours_finish(fleet: Fleet) -> None:
    tasks = fleet.tasks
    worker = await fleet.worker()
    neighbour = await tasks.hold.dispatch("gate")
    await tasks.seen(1, "start", job=neighbour.id)
    greedy = await tasks.rude.exhaust.with_options(max_retry=0).dispatch()
    with pytest.raises(JobFailed) as failed:
        await greedy.result(20)
    assert failed.value.error_type == "MemoryError"
    tasks.open_gate("gate")
    assert await neighbour.result(20) == worker.pid
    await fleet.end(worker)


@pytest.fixture
async def forked(fleet: Fleet) -> AsyncIterator[Fleet]:
    """A fleet whose forked children end with the test."""
    yield fleet
    fleet.tasks.open_gate("child")


@pytest.mark.crash
async def test_a_child_that_a_handler_forked_keeps_no_job_of_its_dead_parent(forked: Fleet) -> None:
    tasks = forked.tasks
    worker = await forked.worker(num_workers=2)
    parent = await tasks.rude.fork.dispatch("never")
    neighbour = await tasks.hold.dispatch("gate")
    await tasks.seen(2, "start", pid=worker.pid)
    worker.signal(signal.SIGKILL)
    tasks.open_gate("gate")
    late = [await tasks.quick.dispatch(n) for n in range(5)]  # its connections are still open: some may go there
    async with forked.runner.start():
        assert await parent.result(20) == os.getpid()
        assert await neighbour.result(20) == os.getpid()
        assert [await job.result(20) for job in late] == list(range(5))
    pids = {line.pid for line in tasks.journal.lines("start", "end")}
    assert pids == {worker.pid, os.getpid()}


@pytest.mark.crash
async def test_a_forked_child_that_comes_back_from_the_handler_is_ended_and_touches_nothing(
    make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=NEVER)
    tasks = fleet.tasks
    worker = await fleet.worker()
    job = await tasks.rude.fork_and_return.dispatch()
    assert await job.result(20) == worker.pid
    await eventually(lambda: "the child did not end itself" in fleet.log(worker))
    await eventually(lambda: not _living_children(worker.pid))
    # Had the child read any reply of ours, then whoever waits for that would be put off by its time limit.
    assert [await (await tasks.quick.dispatch(n)).result(20) for n in range(20)] == list(range(20))
    await fleet.end(worker)
    assert "WARNING" not in fleet.log(worker)
    figures = await fleet.figures("fork_and_return")
    assert (figures.succeeded, figures.failed, figures.waiting) == (1, 0, 0)


def _living_children(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]

"""Holders of locks that are killed, frozen or cut off from the server: the lock goes on, and never has two runs while
their event loops live."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from taskrunner import JobContext, JobEvent, JobStatus, RedisUnavailable, TaskRunner
from taskrunner.store.heart import Heart
from tests.faults.workshop import Fleet, Line
from tests.programs import Program
from tests.servers import Server

pytestmark = pytest.mark.crash


async def holder(fleet: Fleet, job: Any, **options: Any) -> Program:
    """A worker that runs this job."""
    worker = await fleet.worker(num_workers=1, **options)
    await fleet.tasks.seen(1, "start", job=job.id, pid=worker.pid)
    return worker


def spans(fleet: Fleet) -> list[tuple[float, float, Line]]:
    """When each run that ended by itself began and ended."""
    ends = {(line.job, line.pid): line.at for line in fleet.journal.lines("end")}
    return sorted(
        (line.at, ends[line.job, line.pid], line)
        for line in fleet.journal.lines("start")
        if (line.job, line.pid) in ends
    )


async def test_the_lock_of_a_killed_worker_goes_on_with_its_job_and_then_in_the_order_of_dispatch(fleet: Fleet) -> None:
    tasks = fleet.tasks
    first = await tasks.hold.with_options(lock_key="one").dispatch("gate")
    dead = await holder(fleet, first)
    others = [await tasks.nap.with_options(lock_key="one").dispatch(0.01) for _ in range(10)]
    tasks.open_gate("gate")  # not for the dead one, which has no time to see it
    dead.signal(signal.SIGKILL)
    living = [await fleet.worker(num_workers=5) for _ in range(2)]
    for job in (first, *others):
        await job.wait(30)
    runs = spans(fleet)
    assert [line.job for _, _, line in runs if line.pid != dead.pid] == [one.id for one in (first, *others)][
        len([line for _, _, line in runs if line.pid == dead.pid]) :
    ]
    for (_, end, _), (start, _, _) in pairwise(runs):
        assert end <= start, "two ran at once"
    for worker in living:
        await fleet.end(worker)


@pytest.mark.parametrize("point", ["before_admit", "after_admit"])
async def test_a_worker_that_is_killed_as_it_asks_for_seats_keeps_none(point: str, fleet: Fleet) -> None:
    tasks = fleet.tasks
    jobs = [await tasks.quick.with_options(lock_key="one").dispatch(n) for n in range(3)]
    dead = await fleet.worker(environment={"TASKRUNNER_FAILPOINTS": f"{point}=kill"})
    assert await dead.ended() == -signal.SIGKILL
    assert not fleet.journal.lines("start")
    living = await fleet.worker()
    assert [await job.result(30) for job in jobs] == [0, 1, 2]
    await fleet.end(living)


SOURCE = """
import asyncio, os
from taskrunner import JobContext, TaskRunner

runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=1, num_workers=2)

@runner.task(name="work", lock_key="one")
async def work(ctx: JobContext) -> None:
    print("start", ctx.fence, flush=True)
    try:
        await asyncio.sleep(float(os.environ["SECONDS"]))
    except asyncio.CancelledError:
        print("cut", flush=True)
        raise
    print("end", flush=True)

asyncio.run(runner.run())
"""


async def test_a_run_that_was_frozen_for_too_long_is_cut_when_it_wakes_and_its_fence_is_the_smaller_one(
    fleet: Fleet, program: Callable[..., Program]
) -> None:
    environment = {"URL": fleet.url, "NAMESPACE": fleet.namespace}
    work = fleet.runner.declare("work")
    job = await work.with_options(lock_key="one").dispatch()
    frozen = program(SOURCE, **environment, SECONDS="60")
    word, old = (await frozen.line()).split()
    assert word == "start"
    frozen.signal(signal.SIGSTOP)
    living = program(SOURCE, **environment, SECONDS="0.01")
    word, new = (await living.line()).split()
    assert word == "start"
    assert int(new) > int(old)
    frozen.signal(signal.SIGCONT)
    assert await frozen.line() == "cut"
    assert await living.line() == "end"
    await job.result(20)
    next_one = await work.with_options(lock_key="one").dispatch()
    frozen.signal(signal.SIGKILL)
    await next_one.wait(30)
    living.signal(signal.SIGTERM)
    await living.ended()


async def test_a_run_that_was_held_up_before_it_began_until_its_lock_may_be_another_ones_does_not_begin(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, told, began = make_runner(reservation_timeout=1), list[str](), list[str]()
    beat = Heart.beat

    def beat_unless_it_is_held_up(self: Heart, *arguments: Any) -> Any:
        if told and not began:
            raise RedisUnavailable("no answer")
        return beat(self, *arguments)

    monkeypatch.setattr(Heart, "beat", beat_unless_it_is_held_up)

    @runner.on_start
    def stand_still(event: JobEvent) -> None:
        told.append(event.job_id)
        if len(told) == 1:
            time.sleep(0.9)  # the event loop too: nobody sees that it is too late before the function is called

    @runner.task(lock_key="one", max_retry=0)
    async def work(ctx: JobContext) -> None:
        began.append(ctx.job_id)

    async with runner.start():
        job = await work.dispatch()
        await job.result(20)
        assert (await job.info()).attempts == 1
    assert began == [job.id]
    assert len(told) > 1, "the first time it was about to, and went back"


async def test_without_a_server_runs_that_hold_a_lock_are_cut_in_time_and_the_others_go_on(
    fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    locked = await tasks.hold.with_options(lock_key="one").dispatch("gate")
    plain = await tasks.hold.dispatch("gate")
    worker = await fleet.worker(num_workers=2)
    await tasks.seen(2, "start")
    own_server.pause()
    try:
        [cut] = await tasks.seen(1, "cancelled")
        assert cut.job == locked.id
    finally:
        own_server.resume()
    tasks.open_gate("gate")
    assert await plain.result(30) == worker.pid
    assert await locked.result(30) == worker.pid
    assert len(fleet.journal.lines("start", job=plain.id)) == 1, "the plain one was run again"
    assert len(fleet.journal.lines("start", job=locked.id)) == 2
    assert "are cut: no heartbeat was confirmed" in fleet.log(worker)
    await fleet.end(worker)


async def test_a_cancelled_job_whose_worker_is_killed_before_its_run_has_ended_frees_its_lock_in_the_end(
    fleet: Fleet,
) -> None:
    tasks = fleet.tasks
    one = await tasks.block.with_options(lock_key="one").dispatch("never")
    dead = await holder(fleet, one)
    two = await tasks.quick.with_options(lock_key="one").dispatch("two")
    assert await one.cancel()
    assert await two.status() is JobStatus.BLOCKED, "the cancelled one still runs"
    dead.signal(signal.SIGKILL)
    async with fleet.runner.start():
        assert await two.result(30) == "two"


async def test_the_runs_of_one_lock_in_two_processes_never_overlap_whatever_becomes_of_them(fleet: Fleet) -> None:
    """A worker is frozen for less than its reservation again and again, and nobody takes its job."""
    tasks = fleet.tasks
    jobs = [await tasks.nap.with_options(lock_key="one").dispatch(0.05) for _ in range(20)]
    workers = [await fleet.worker(num_workers=3) for _ in range(2)]

    async def disturb() -> None:
        while True:
            for worker in workers:
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(0.15)
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(0.1)

    disturbing = asyncio.create_task(disturb())
    try:
        for job in jobs:
            await job.wait(40)
    finally:
        disturbing.cancel()
    runs = spans(fleet)
    assert [line.job for _, _, line in runs] == [job.id for job in jobs]
    for (_, end, _), (start, _, _) in pairwise(runs):
        assert end <= start, "two ran at once"
    for worker in workers:
        worker.signal(signal.SIGCONT)
        await fleet.end(worker)

"""Holders of a lock or of a limit that die, stand still, stop or are cut off, and those who wait behind them: never two
at once, in the order in which they came, and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from taskrunner import Job
from tests.cleanliness import leftovers
from tests.faults.workshop import FEW, Fleet, Line
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

ENDS = ("end", "cancelled")


async def holder_and_line(fleet: Fleet, kind: str = "hold", **options: Any) -> tuple[Program, Job[Any], list[Job[Any]]]:
    """A worker that holds a lock, and four jobs that wait for it."""
    holder = await fleet.worker(num_workers=1, **options)
    held = await getattr(fleet.tasks, kind).with_options(lock_key="one").dispatch("gate")
    await fleet.tasks.seen(1, "start", job=held.id)
    locked = fleet.tasks.quick.with_options(lock_key="one")
    return holder, held, [await locked.dispatch(n) for n in range(4)]


def in_order(fleet: Fleet, jobs: Sequence[Job[Any]]) -> list[Line]:
    """The starts of these jobs, which were one after the other, in this order, with growing fences."""
    starts = [line for line in fleet.journal.lines("start") if line.job in {job.id for job in jobs}]
    assert list(dict.fromkeys(line.job for line in starts)) == [job.id for job in jobs]
    assert [line.fence for line in starts] == sorted({line.fence for line in starts})
    return starts


async def nothing_is_left(fleet: Fleet, server: Server) -> None:
    async with server.client() as client:
        await eventually(lambda: _nothing(client, fleet))
        left = await leftovers(client, fleet.namespace, ("worker", "queues"))
        assert not [one for one in left if "consumers" not in one], "those of the dead are another test's"


async def _nothing(client: Any, fleet: Fleet) -> bool:
    leases = [key async for key in client.scan_iter(match=f"{fleet.keys.prefix}lease:*")]
    return not leases and not await client.exists(fleet.keys.outlived) and not await client.hlen(fleet.keys.live)


async def test_when_a_holder_is_killed_its_job_runs_elsewhere_and_then_the_line_in_order(
    fleet: Fleet, own_server: Server
) -> None:
    holder, held, line = await holder_and_line(fleet)
    async with fleet.runner.start():
        holder.signal(signal.SIGKILL)
        await fleet.tasks.seen(2, "start", job=held.id)
        assert not fleet.journal.lines("end"), "somebody overtook the job whose worker had died"
        fleet.tasks.open_gate("gate")
        assert [await job.result(20) for job in line] == list(range(4))
    starts = in_order(fleet, [held, *line])
    assert [start.pid for start in starts] == [holder.pid] + 5 * [os.getpid()]
    await nothing_is_left(fleet, own_server)


async def test_a_frozen_holder_that_goes_on_is_cut_and_frees_nobodys_lock(fleet: Fleet, own_server: Server) -> None:
    tasks = fleet.tasks
    holder, held, line = await holder_and_line(fleet)
    second = await tasks.hold.with_options(lock_key="one").dispatch("second")
    last = await tasks.quick.with_options(lock_key="one").dispatch("last")
    holder.signal(signal.SIGSTOP)
    async with fleet.runner.start():
        tasks.open_gate("gate", os.getpid())
        assert await held.result(20) == os.getpid()
        await tasks.seen(1, "start", job=second.id)
        holder.signal(signal.SIGCONT)
        await tasks.seen(1, "cancelled", job=held.id, pid=holder.pid)
        # Its word on the job that it had is refused: a sign that it went on, and the lock is still the second one's.
        await tasks.quick.dispatch("a sign of life")
        await fleet.end(holder)
        assert not tasks.journal.lines("start", job=last.id)
        tasks.open_gate("second")
        assert await last.result(20) == "last"
    in_order(fleet, [held, *line, second, last])
    await nothing_is_left(fleet, own_server)


async def test_the_late_outcome_of_a_frozen_holder_frees_nobodys_lock(fleet: Fleet, own_server: Server) -> None:
    tasks = fleet.tasks
    # It keeps the event loop to itself, so that nothing but the settle can tell the worker that it has lost the job.
    holder, held, line = await holder_and_line(fleet, kind="block")
    second = await tasks.hold.with_options(lock_key="one").dispatch("second")
    last = await tasks.quick.with_options(lock_key="one").dispatch("last")
    holder.signal(signal.SIGSTOP)
    tasks.open_gate("gate")
    async with fleet.runner.start():
        assert await held.result(20) == os.getpid()
        await tasks.seen(1, "start", job=second.id)
        holder.signal(signal.SIGCONT)
        await tasks.seen(1, "end", job=held.id, pid=holder.pid)
        await eventually(lambda: "1 outcomes were refused" in fleet.log(holder))
        await fleet.end(holder)
        assert not tasks.journal.lines("start", job=last.id), "it freed a lock that was not its own"
        tasks.open_gate("second")
        assert await last.result(20) == "last"
    in_order(fleet, [held, *line, second, last])
    await nothing_is_left(fleet, own_server)


async def test_when_a_waiter_is_cancelled_the_others_go_on_in_order_and_not_before(
    fleet: Fleet, own_server: Server
) -> None:
    holder, held, line = await holder_and_line(fleet)
    assert [await job.status() for job in line] == ["blocked"] * 4
    for gone in (line.pop(2), line.pop(0)):
        assert await gone.cancel()
        assert await gone.status() == "cancelled"
    async with fleet.runner.start():
        await (await fleet.tasks.quick.dispatch("a sign of life")).wait(20)
        assert not fleet.journal.lines("start", job=line[0].id), "a waiter that left freed the lock"
        fleet.tasks.open_gate("gate")
        assert [await job.result(20) for job in line] == [1, 3]
    await fleet.end(holder)
    assert len(in_order(fleet, [held, *line])) == 3
    await nothing_is_left(fleet, own_server)


POINTS = ("after_fetch", "before_admit", "after_admit", "before_run", "before_settle", "after_settle")


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("point", POINTS)
async def test_when_a_worker_dies_at_any_point_the_line_goes_on_in_order(
    point: str, turn: int, fleet: Fleet, own_server: Server
) -> None:
    locked = fleet.tasks.quick.with_options(lock_key="one")
    line = [await locked.dispatch(n) for n in range(4)]
    victim = await fleet.worker(environment={"TASKRUNNER_FAILPOINTS": f"{point}=kill@{turn}"})
    assert await victim.ended() == -signal.SIGKILL
    async with fleet.runner.start():
        assert [await job.result(20) for job in line] == list(range(4))
    starts = in_order(fleet, line)
    assert len(starts) == 4 + (point == "before_settle"), "more than the run whose outcome was lost came twice"
    assert (await fleet.figures("quick")).succeeded == 4
    await nothing_is_left(fleet, own_server)


@pytest.mark.parametrize("point", POINTS)
async def test_when_a_worker_stands_still_at_any_point_the_line_goes_on_in_order(
    point: str, fleet: Fleet, own_server: Server
) -> None:
    locked = fleet.tasks.quick.with_options(lock_key="one")
    line = [await locked.dispatch(n) for n in range(4)]
    sleeper = await fleet.worker(environment={"TASKRUNNER_FAILPOINTS": f"{point}=sleep:1.5@2"})
    async with fleet.runner.start():
        assert [await job.result(20) for job in line] == list(range(4))
    await fleet.end(sleeper)
    in_order(fleet, line)
    assert (await fleet.figures("quick")).succeeded == 4
    await nothing_is_left(fleet, own_server)


@pytest.mark.parametrize("point", ["before_admit", "after_admit"])
async def test_when_admission_fails_unexpectedly_the_line_goes_on_in_order(
    point: str, fleet: Fleet, own_server: Server
) -> None:
    locked = fleet.tasks.quick.with_options(lock_key="one")
    line = [await locked.dispatch(n) for n in range(4)]
    worker = await fleet.worker(environment={"TASKRUNNER_FAILPOINTS": f"{point}=raise@2"})
    assert [await job.result(20) for job in line] == list(range(4))
    await fleet.end(worker)
    assert len(in_order(fleet, line)) == 4
    await nothing_is_left(fleet, own_server)


async def test_a_holder_that_is_cut_off_by_a_stop_keeps_its_place_in_front(fleet: Fleet, own_server: Server) -> None:
    holder, held, line = await holder_and_line(fleet, shutdown_timeout=0.2)
    await fleet.end(holder)
    await fleet.tasks.seen(1, "cancelled", job=held.id)
    async with fleet.runner.start():
        await fleet.tasks.seen(2, "start", job=held.id)
        fleet.tasks.open_gate("gate")
        assert [await job.result(20) for job in line] == list(range(4))
    starts = in_order(fleet, [held, *line])
    assert len(starts) == 6
    await nothing_is_left(fleet, own_server)


async def test_a_holder_that_ends_within_a_stop_hands_the_lock_on(fleet: Fleet, own_server: Server) -> None:
    holder, held, line = await holder_and_line(fleet, shutdown_timeout=20)
    async with fleet.runner.start():
        holder.signal(signal.SIGTERM)
        fleet.tasks.open_gate("gate")
        assert await holder.ended() == 0
        assert [await job.result(20) for job in line] == list(range(4))
    assert len(in_order(fleet, [held, *line])) == 5
    await nothing_is_left(fleet, own_server)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_seat_of_a_lost_holder_of_a_limit_is_not_given_away_and_the_others_turn_over_meanwhile(
    death: signal.Signals, make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=2)
    limited = fleet.tasks.limited
    holder = await fleet.worker(num_workers=1)
    lost = await limited.dispatch("lost")
    await fleet.tasks.seen(1, "start", job=lost.id)
    line = [await limited.dispatch(f"gate {n}") for n in range(2 * FEW)]
    async with fleet.runner.start():
        holder.signal(death)
        fleet.tasks.open_gate("lost", os.getpid())
        for n, job in enumerate(line):
            fleet.tasks.open_gate(f"gate {n}")
            await job.wait(20)
        assert await lost.result(20) == os.getpid()
    holder.signal(signal.SIGKILL)
    assert list(dict.fromkeys(start.job for start in fleet.journal.lines("start")))[1:] == [job.id for job in line]
    assert most_at_once(fleet) <= FEW
    await nothing_is_left(fleet, own_server)


def most_at_once(fleet: Fleet) -> int:
    """How many ran at once; a run whose process has died counts until its job runs again and has ended."""
    running, most = dict[str, int](), 0
    for line in sorted(fleet.journal.lines("start", *ENDS), key=lambda line: line.at):
        if line.event == "start":
            running[line.job] = line.pid
        elif running.get(line.job) == line.pid:
            del running[line.job]
        most = max(most, len(running))
    return most

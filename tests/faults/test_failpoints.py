"""Workers that die, freeze or fail between any two of their steps: each job is recorded once, and nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobNotFound
from taskrunner.failpoints import POINTS, VARIABLE
from tests.faults.mixture import Mixture
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

SLOTS = 4
ELSEWHERE = ("_fire", "_stage", "_unfold", "_deliver")
OF_JOBS = [point for point in POINTS if not point.endswith(ELSEWHERE)]
"""Those of schedules are in ``test_schedule_faults.py``, those of workflows in ``test_workflow_faults.py``."""


async def worker_with(fleet: Fleet, spec: str) -> Program:
    """A worker with this failpoint."""
    return await fleet.worker(num_workers=SLOTS, environment={VARIABLE: spec})


async def abandon(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    """Lets a consumer that nobody has heard of take some of the jobs, so that there is something to reclaim."""
    await client.xgroup_create(fleet.stream, "taskrunner", "0", mkstream=True)
    assert await client.xreadgroup("taskrunner", "gone", {fleet.stream: ">"}, count=3)


def time_of(point: str) -> int:
    """Which time: not the first, for which little has been done yet, unless there may be no other."""
    return {"after_reclaim": 1, "before_beat": 3}.get(point, 2)


@pytest.mark.parametrize("point", OF_JOBS)
async def test_a_worker_that_dies_at_any_point_leaves_nothing_undone_and_nothing_behind(
    point: str, fleet: Fleet, own_server: Server
) -> None:
    mixture = Mixture(fleet)
    await mixture.dispatch()
    async with own_server.client() as client:
        await abandon(fleet, client)
        victim = await worker_with(fleet, f"{point}=kill@{time_of(point)}")
        assert await victim.ended() == -signal.SIGKILL
        rescuer = await fleet.worker()
        await mixture.end()
        await eventually(lambda: fleet.alone(client))
        await fleet.end(rescuer)
        await mixture.check(client)


@pytest.mark.parametrize("point", OF_JOBS)
async def test_a_worker_in_which_something_breaks_at_any_point_goes_on(
    point: str, fleet: Fleet, own_server: Server
) -> None:
    await goes_on(fleet, own_server, point, f"{point}=raise@{time_of(point)}")


@pytest.mark.parametrize("point", OF_JOBS)
async def test_a_worker_that_stands_still_at_any_point_goes_on(point: str, fleet: Fleet, own_server: Server) -> None:
    await goes_on(fleet, own_server, point, f"{point}=sleep:1.5@{time_of(point)}")


async def goes_on(fleet: Fleet, server: Server, point: str, spec: str) -> None:
    mixture = Mixture(fleet)
    await mixture.dispatch()
    async with server.client() as client:
        await abandon(fleet, client)
        worker = await worker_with(fleet, spec)
        await mixture.end()
        await eventually(lambda: fleet.alone(client))
        await fleet.end(worker)
        assert f"reached failpoint {point}" in fleet.log(worker)
        await mixture.check(client)


async def test_a_job_whose_worker_dies_before_its_outcome_is_recorded_runs_twice_and_ends_once(
    fleet: Fleet, own_server: Server
) -> None:
    job = await fleet.tasks.quick.dispatch("value")
    victim = await worker_with(fleet, "before_settle=kill")
    assert await victim.ended() == -signal.SIGKILL
    async with fleet.runner.start():
        assert await job.result(20) == "value"
    assert [line.deliveries for line in fleet.journal.lines("end", job=job.id)] == [1, 2]
    assert (await fleet.figures("quick")).succeeded == 1


async def test_a_job_whose_worker_dies_after_its_outcome_is_recorded_is_over_with_all_that_belongs_to_it(
    fleet: Fleet, own_server: Server
) -> None:
    unique = fleet.tasks.flaky.with_options(unique=True, unique_key="key")
    job = await unique.dispatch("value")
    victim = await worker_with(fleet, "after_settle=kill@2")  # the first records that it will be tried again
    assert await victim.ended() == -signal.SIGKILL
    assert await job.result(20) == "value"
    again = await unique.dispatch("again")
    assert not again.deduplicated
    async with own_server.client() as client:
        async with fleet.runner.start():
            assert await again.result(20) == "again"
        assert [line.attempt for line in fleet.journal.lines("start", job=job.id)] == [1, 2]
        assert await fleet.pending(client) == 0


async def test_a_producer_that_dies_after_its_dispatch_has_dispatched(
    fleet: Fleet, program: Callable[..., Program]
) -> None:
    source = """
        import asyncio, os
        from pathlib import Path
        from taskrunner import TaskRunner
        from tests.faults.workshop import Workshop

        async def main():
            runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"])
            await Workshop(runner, Path(os.environ["FOLDER"])).quick.with_options(id="known").dispatch("value")

        asyncio.run(main())
    """
    place = {"URL": fleet.url, "NAMESPACE": fleet.namespace, "FOLDER": str(fleet.folder)}
    for point, accepted in (("before_dispatch", False), ("after_dispatch", True)):
        producer = program(source, **place, **{VARIABLE: f"{point}=kill"})
        assert await producer.ended() == -signal.SIGKILL
        try:
            assert (await fleet.runner.job("known").status(), accepted) == ("queued", True)
        except JobNotFound:
            assert not accepted
    async with fleet.runner.start():
        assert await fleet.runner.job("known").result(20) == "value"

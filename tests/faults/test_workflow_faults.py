"""Workers, couriers and dispatchers that die between any two steps of a workflow: each follower starts exactly once,
and nothing that has half arrived runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import GroupJob, JobNotFound, RedisUnavailable, chain, group
from taskrunner.failpoints import VARIABLE
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.workflows import STAGED
from tests.cleanliness import leftovers
from tests.faults.flow_checks import no_job_began_twice, nothing_is_under_way, over, partitions, store_of, view_of
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server

pytestmark = pytest.mark.crash

STEPS = 3
MEMBERS = 1000
LARGE = 300
"""Members with letters of 10 KB each: so many that they come in several parts, and go in several steps."""
PARTITIONS = 3

DISPATCHER = """
    import asyncio, os
    from pathlib import Path
    from taskrunner import TaskRunner, group
    from tests.faults.workshop import Workshop

    async def main():
        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"])
        tasks = Workshop(runner, Path(os.environ["FOLDER"]))
        members = ["x" * 10_000] * int(os.environ["SIZE"])
        await runner.dispatch(group.map(tasks.quick, members, then=tasks.flows.last.job(), id="known"))

    asyncio.run(main())
"""


async def worker_that_dies(fleet: Fleet, spec: str) -> None:
    victim = await fleet.worker(environment={VARIABLE: spec})
    assert await victim.ended() == -signal.SIGKILL


def dispatcher_that_dies(fleet: Fleet, program: Callable[..., Program], spec: str) -> Program:
    place = {"URL": fleet.url, "NAMESPACE": fleet.namespace, "FOLDER": str(fleet.folder)}
    return program(DISPATCHER, **place, **{VARIABLE: spec}, SIZE=str(LARGE))


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("point", ["before_settle", "after_settle"])
async def test_a_worker_that_dies_around_the_end_of_a_step_starts_the_next_one_once(
    point: str, step: int, fleet: Fleet, own_server: Server
) -> None:
    job = await fleet.runner.dispatch(chain(*[fleet.tasks.flows.step.job() for _ in range(STEPS)]))
    await worker_that_dies(fleet, f"{point}=kill@{step + 1}")
    async with own_server.client() as client:
        async with fleet.runner.start():
            assert await job.result(30) == STEPS
        runs = [len(fleet.journal.lines("end", job=f"{job.id}.{n}")) for n in range(STEPS)]
        # What nobody knew of is done again. After the settle that may be the next step, which the victim had begun.
        assert runs[: step + 1] == [1] * step + [2 if point == "before_settle" else 1]
        no_job_began_twice(fleet)
        assert (await fleet.figures("step")).succeeded == STEPS
        await nothing_is_under_way(client, fleet)


async def test_a_group_whose_workers_die_while_they_unfold_it_is_unfolded_by_others(
    fleet: Fleet, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begun(fleet, monkeypatch)
    for _ in range(2):
        await worker_that_dies(fleet, "after_unfold=kill")
    async with own_server.client() as client:
        async with fleet.runner.start():
            assert await job.results(60) == list(range(MEMBERS))
            await over(fleet, job.id)
        assert (await fleet.figures("quick")).succeeded == MEMBERS
        assert len(fleet.journal.lines("last")) == 1
        no_job_began_twice(fleet)
        await nothing_is_under_way(client, fleet)


async def begun(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> GroupJob[object]:
    """A large group whose dispatcher does no more than to begin it, as if it had died then."""

    async def nothing(keys: object) -> None:
        return None

    with monkeypatch.context() as patch:
        patch.setattr((await store_of(fleet)).workflows, "unfold", nothing)
        job = await fleet.runner.dispatch(
            group.map(fleet.tasks.quick, range(MEMBERS), then=fleet.tasks.flows.last.job())
        )
    view = await view_of(fleet, job.id)
    assert view.states.count("o") < MEMBERS / 2, "it was begun as a whole: there is nothing left for the workers"
    return job


@pytest.mark.parametrize("action", ["raise", "sleep:1.5"])
async def test_a_worker_in_which_the_unfolding_breaks_or_stands_still_goes_on(
    action: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begun(fleet, monkeypatch)
    worker = await fleet.worker(environment={VARIABLE: f"after_unfold={action}@1"})
    assert await job.results(60) == list(range(MEMBERS))
    await over(fleet, job.id)
    await fleet.end(worker)
    assert "reached failpoint after_unfold" in fleet.log(worker)
    assert len(fleet.journal.lines("last")) == 1
    no_job_began_twice(fleet)


# -- dispatchers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["after_stage=kill@1", "after_stage=kill@2", "before_dispatch=kill"])
async def test_a_dispatcher_that_dies_before_all_of_a_workflow_is_there_leaves_nothing_that_runs(
    spec: str, fleet: Fleet, own_server: Server, program: Callable[..., Program]
) -> None:
    assert await dispatcher_that_dies(fleet, program, spec).ended() == -signal.SIGKILL
    async with own_server.client() as client:
        [staged] = [key async for key in client.scan_iter(match=partitions(fleet)[0].staged("*").replace("{", "\\{"))]
        assert 0 < await client.ttl(staged) <= STAGED
        with pytest.raises(JobNotFound):
            await fleet.runner.workflow("known")
        await nothing_is_under_way(client, fleet)
        async with fleet.runner.start():
            await (await fleet.tasks.flows.step.dispatch()).result(20)
            assert len(fleet.journal.lines("start", "last")) == 1, "half a workflow runs"
            again = await fleet.runner.dispatch(group(fleet.tasks.quick.job(1), id="known"))
            assert not again.deduplicated
            assert await again.results(20) == [1]
        assert not await leftovers(client, fleet.namespace)


async def test_a_workflow_of_which_a_part_has_been_lost_on_the_way_does_not_begin(
    fleet: Fleet, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflows = (await store_of(fleet)).workflows
    begin = workflows._begin
    async with own_server.client() as client:

        async def lose_a_field(keys: PartitionKeys, id: str, token: str, *more: object) -> bytes:
            [field, *_] = await client.hkeys(keys.staged(token))
            await client.hdel(keys.staged(token), field)
            return await begin(keys, id, token, *more)

        with monkeypatch.context() as patch:
            patch.setattr(workflows, "_begin", lose_a_field)
            with pytest.raises(RedisUnavailable, match="waited for the next one"):
                await fleet.runner.dispatch(group.map(fleet.tasks.quick, ["x" * 10_000] * LARGE, id="known"))
        with pytest.raises(JobNotFound):
            await fleet.runner.workflow("known")
        await nothing_is_under_way(client, fleet)
        assert await client.xlen(fleet.stream) == 0


@pytest.mark.parametrize("unfolds", [True, False], ids=["another unfolds", "after one death of an unfolder"])
async def test_a_large_group_whose_dispatcher_dies_when_it_has_begun_is_unfolded_by_the_workers(
    unfolds: bool, fleet: Fleet, own_server: Server, program: Callable[..., Program]
) -> None:
    assert await dispatcher_that_dies(fleet, program, "after_dispatch=kill").ended() == -signal.SIGKILL
    if not unfolds:
        await worker_that_dies(fleet, "after_unfold=kill")
    async with own_server.client() as client:
        async with fleet.runner.start():
            await over(fleet, "known")
        assert (await fleet.figures("quick")).succeeded == LARGE
        [last] = fleet.journal.lines("last")
        assert last.at > max(line.at for line in fleet.journal.lines("end"))
        no_job_began_twice(fleet)
        await nothing_is_under_way(client, fleet)


# -- several partitions ------------------------------------------------------------------------------------------------


def in_many_partitions(fleet: Fleet) -> list[object]:
    """Options for jobs which live in all partitions, as their lock keys do."""
    return [fleet.tasks.flows.step.with_options(lock_key=f"lock-{n}") for n in range(2 * PARTITIONS + 2)]


@pytest.fixture
def wide(own_server: Server, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet with several partitions."""
    return make_fleet(own_server.url, partitions=PARTITIONS)


@pytest.mark.parametrize("point", ["after_deliver", "after_settle", "before_settle"])
async def test_steps_of_several_partitions_start_once_though_couriers_die_on_the_way(
    point: str, wide: Fleet, own_server: Server
) -> None:
    tasks = in_many_partitions(wide)
    job = await wide.runner.dispatch(chain(*[task.job() for task in tasks]))
    for time in (1, 2, 1):
        await worker_that_dies(wide, f"{point}=kill@{time}")
    async with own_server.client() as client:
        held = [await client.hlen(keys.live) for keys in partitions(wide, PARTITIONS)]
        assert sum(held) <= 1, "more than one step of a chain was there at once"
        async with wide.runner.start():
            assert await job.result(60) == len(tasks)
            await over(wide, job.id)
            await settled(client, wide)
        assert (await wide.figures("step")).succeeded == len(tasks)
        no_job_began_twice(wide)
        await nothing_is_under_way(client, wide, PARTITIONS)


async def test_a_group_of_several_partitions_is_told_of_once_though_couriers_die_on_the_way(
    wide: Fleet, own_server: Server
) -> None:
    step = wide.tasks.flows.step
    members = [step.with_options(lock_key=f"lock-{n}").job() for n in range(60)]
    job = await wide.runner.dispatch(group(*members, then=wide.tasks.flows.last.job()))
    for time in (1, 3):
        await worker_that_dies(wide, f"after_deliver=kill@{time}")
    async with own_server.client() as client:
        async with wide.runner.start():
            assert await job.results(60) == [1] * 60
            await over(wide, job.id)
            await settled(client, wide)
        assert (await wide.figures("step")).succeeded == 60
        assert len(wide.journal.lines("last")) == 1
        no_job_began_twice(wide)
        await nothing_is_under_way(client, wide, PARTITIONS)


@pytest.mark.parametrize("action", ["raise", "sleep:1.5"])
async def test_a_worker_whose_courier_breaks_or_stands_still_goes_on(action: str, wide: Fleet) -> None:
    tasks = in_many_partitions(wide)
    job = await wide.runner.dispatch(chain(*[task.job() for task in tasks]))
    worker = await wide.worker(environment={VARIABLE: f"after_deliver={action}@2"})
    assert await job.result(60) == len(tasks)
    await wide.end(worker)
    assert "reached failpoint after_deliver" in wide.log(worker)
    no_job_began_twice(wide)


async def settled(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    """Waits until no message is on its way any more."""
    boxes = [keys.outbox(other) for keys in partitions(fleet, PARTITIONS) for other in range(PARTITIONS)]
    while sum([await client.xlen(box) for box in boxes]):  # noqa: ASYNC110 - the server's
        await asyncio.sleep(0.02)

"""Workflows whose jobs, letters, records or keys are lost, by the operator's hand or because they have expired: what
waits is told, and goes on or ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio

from taskrunner import GroupJob, JobFailed, JobStatus, chain, group
from tests.faults.flow_checks import MENDED, nothing_is_under_way, over, store_of, view_of
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

Deed = Callable[[redis.asyncio.Redis, Fleet, list[str]], Awaitable[object]]
FORK_AND_JOIN = 2
"""The nodes of a group that come before its members."""


@pytest.fixture
async def client(own_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with own_server.client() as client:
        yield client


# -- members -----------------------------------------------------------------------------------------------------------


async def delete_one(client: redis.asyncio.Redis, fleet: Fleet, ids: list[str]) -> None:
    assert await fleet.runner.delete(ids[0])


async def cancel_one(client: redis.asyncio.Redis, fleet: Fleet, ids: list[str]) -> None:
    assert await fleet.runner.job(ids[0]).cancel()


async def purge(client: redis.asyncio.Redis, fleet: Fleet, ids: list[str]) -> None:
    assert await fleet.runner.purge("default") == len(ids)


async def delete_the_entry_of_one(client: redis.asyncio.Redis, fleet: Fleet, ids: list[str]) -> None:
    entry = (await client.xrange(fleet.stream))[0][0]
    assert await client.xdel(fleet.stream, entry)


async def delete_the_letter_of_one(client: redis.asyncio.Redis, fleet: Fleet, ids: list[str]) -> None:
    assert await client.hdel(fleet.keys.queue("default").letters, ids[-1])


@pytest.mark.parametrize(
    ("deed", "lost", "status"),
    [
        (delete_one, [0], JobStatus.CANCELLED),
        (cancel_one, [0], JobStatus.CANCELLED),
        (purge, range(10), JobStatus.CANCELLED),
        (delete_the_entry_of_one, [0], JobStatus.FAILED),
        (delete_the_letter_of_one, [9], JobStatus.FAILED),
    ],
)
async def test_a_group_whose_members_are_taken_away_ends_and_calls_back_once(
    deed: Deed,
    lost: list[int],
    status: JobStatus,
    fleet: Fleet,
    client: redis.asyncio.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quick, last = fleet.tasks.quick, fleet.tasks.flows.last.with_options(queue="callbacks")
    members = [*(quick.job(n) for n in range(9)), quick.with_options(delay=0.2).job(9)]
    job = await fleet.runner.dispatch(group(*members, then=last.job("then"), on_failure=last.job("on_failure")))
    await deed(client, fleet, [f"{job.id}.{FORK_AND_JOIN + n}" for n in range(10)])
    async with fleet.runner.start(queues=["default", "callbacks"]):
        view = await over(fleet, job.id)
        assert await job.status() == status
        called = fleet.runner.job(f"{job.id}.{view.head['on_failure']}")
        assert await called.result(20) == [None if n in lost else n for n in range(10)]
    assert [line.job for line in fleet.journal.lines("last")] == [called.id]
    assert MENDED not in caplog.text, "it was not told, and the audit has brought it to its end"
    await nothing_is_under_way(client, fleet)


async def test_a_group_is_told_of_a_member_whose_dead_letter_is_deleted_once(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    job = await fleet.runner.dispatch(
        group(tasks.flows.refuse.job(), tasks.hold.job("gate"), on_failure=tasks.flows.last.job())
    )
    async with fleet.runner.start():
        with pytest.raises(JobFailed):
            await job.results(20)
        assert await fleet.runner.delete(f"{job.id}.2")
        assert (await view_of(fleet, job.id)).states == "swfow"
        tasks.open_gate("gate")
        await over(fleet, job.id)
    assert len(fleet.journal.lines("last")) == 1


# -- what waits --------------------------------------------------------------------------------------------------------


async def test_a_chain_whose_next_step_has_lost_its_letter_has_failed(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    step = fleet.tasks.flows.step
    job = await fleet.runner.dispatch(chain(*[step.job() for _ in range(4)]))
    assert await client.hdel(fleet.keys.workflow(job.id)[0], "i:2")
    async with fleet.runner.start():
        with pytest.raises(JobFailed):
            await job.result(20)
        assert len(await fleet.tasks.seen(2, "end")) == 2
    assert await job.status() == JobStatus.FAILED


@pytest.mark.parametrize("nth", range(3))
async def test_jobs_whose_workflow_was_deleted_are_recorded_and_their_worker_goes_on(
    nth: int, fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    job = await fleet.runner.dispatch(group(*[tasks.hold.job("gate") for _ in range(3)], then=tasks.flows.last.job()))
    async with fleet.runner.start():
        await tasks.seen(3, "start")
        key = fleet.keys.workflow(job.id)[nth]
        await client.delete(key)
        if nth == 2:
            await client.set(key, "a stranger's")
        tasks.open_gate("gate")
        for n in range(3):
            await fleet.runner.job(f"{job.id}.{FORK_AND_JOIN + n}").wait(20)
        assert (await fleet.figures("hold")).succeeded == 3
        assert await (await tasks.quick.dispatch("more")).result(20) == "more"
        assert len(fleet.journal.lines("start", job=f"{job.id}.2")) == 1, "its outcome was not recorded"


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_one_step_hands_to_the_next_outlives_every_result_ttl(
    partitions: int, own_server: Server, make_fleet: Callable[..., Fleet], client: redis.asyncio.Redis
) -> None:
    fleet = make_fleet(own_server.url, result_ttl=0.2, partitions=partitions)
    quick, last = fleet.tasks.quick, fleet.tasks.flows.last.with_options(queue="later", result_ttl=60)
    alone = await fleet.runner.dispatch(chain(quick.job("value"), last.job()))
    members = group(quick.job(1), chain(quick.job(0), quick.job(2)))
    several = await fleet.runner.dispatch(chain(members, last.job()))
    locked = fleet.tasks.flows.last.with_options(queue="later", result_ttl=60, lock_key="a lock")
    distant = await fleet.runner.dispatch(chain(quick.job("there"), locked.job()))
    async with fleet.runner.start(queues=["default"]):
        for job in (alone, several, distant):
            await eventually(lambda job=job: has_begun_its_last(fleet, job.id))
        await eventually(lambda: no_record_is_left(client, fleet))
    async with fleet.runner.start(queues=["later"]):
        assert await alone.result(20) == "value"
        assert await several.result(20) == [1, 2]
        assert await distant.result(20) == "there"


async def has_begun_its_last(fleet: Fleet, id: str) -> bool:
    return (await view_of(fleet, id)).states.endswith("o")


async def no_record_is_left(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return not [key async for key in client.scan_iter(match="*:job:*", count=1000)]


async def test_what_follows_a_job_whose_result_is_not_kept_starts_and_sees_it(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    unkept = fleet.tasks.quick.with_options(ignore_result=True)
    last = fleet.tasks.flows.last
    one = await fleet.runner.dispatch(chain(unkept.job(1), last.job(), last.job()))
    all_of_them = await fleet.runner.dispatch(chain(group(unkept.job(1), unkept.job(2)), last.job()))
    async with fleet.runner.start():
        assert await one.result(20) == 1
        assert await all_of_them.result(20) == [1, 2]
    assert not await client.exists(fleet.keys.job(f"{one.id}.0"))


async def test_a_step_that_is_the_same_job_as_one_that_has_ended_goes_on_at_once(fleet: Fleet) -> None:
    """Its id is known, and what it came to is kept: whoever waited for it to end would wait for ever."""
    known = fleet.tasks.quick.with_options(id="known")
    async with fleet.runner.start():
        assert await (await known.dispatch("value")).result(20) == "value"
        job = await fleet.runner.dispatch(
            chain(fleet.tasks.quick.job(1), known.job("other"), fleet.tasks.flows.last.job())
        )
        assert await job.result(20) == "value"
    assert len(fleet.journal.lines("start", job="known")) == 1


# -- the plan of a workflow --------------------------------------------------------------------------------------------


async def test_what_stands_aside_for_a_failure_never_runs_when_all_is_well(fleet: Fleet) -> None:
    quick = fleet.tasks.quick

    def aside() -> list[object]:
        """All ways to stand behind a group that does not fail."""
        return [
            group(quick.job("never"), quick.job("never")),
            chain(quick.job("never"), group(quick.job("never"))),
            group(group(quick.job("never"), on_failure=quick.job("never")), on_failure=quick.job("never")),
        ]

    async with fleet.runner.start():
        for part in aside():
            job = await fleet.runner.dispatch(group(quick.job(1), on_failure=part))
            view = await over(fleet, job.id)
            assert set(view.states[view.head["on_failure"] :]) == {"n"}
            assert await job.status() == JobStatus.SUCCEEDED
    assert len(fleet.journal.lines("start")) == len(aside())


async def test_a_group_of_jobs_with_ids_of_their_own_may_be_large(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    """A script can't hand on more than 8,000 values at once, and each id is two."""
    members = [fleet.tasks.quick.with_options(id=f"own-{n}").job(n) for n in range(4100)]
    job: GroupJob[object] = await fleet.runner.dispatch(group(*members))
    assert not job.deduplicated
    store = await store_of(fleet)
    while await store.workflows.unfold(store.partitions[0]) == 0:
        continue
    assert await client.xlen(fleet.stream) == 4100
    assert len((await view_of(fleet, job.id)).names) == 4100


async def test_a_message_that_can_not_be_applied_yet_waits(
    own_server: Server, make_fleet: Callable[..., Fleet], client: redis.asyncio.Redis
) -> None:
    fleet = make_fleet(own_server.url, partitions=2)
    store = await store_of(fleet)
    step = fleet.tasks.flows.step
    members = [step.with_options(queue="other", lock_key=f"lock-{n}").job() for n in range(12)]
    streams = [keys.queue("other").stream for keys in store.partitions]
    for stream in streams:
        await client.set(stream, "a stranger's")
    # Those of its own partition are put off too.
    job = await fleet.runner.dispatch(group(*members, id="a workflow"))
    here = store.partitions[store.keyspace.partition_of(job.id)]
    box = here.outbox(1 - here.number)
    messages = await client.xlen(box)
    assert messages
    assert not await store.outbox.deliver(here)
    assert await client.xlen(box) == messages
    await client.delete(*streams)
    async with fleet.runner.start(queues=["default", "other"]):
        assert await job.results(30) == [1] * 12
    assert len(fleet.journal.lines("start")) == 12

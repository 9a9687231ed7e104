"""What operators do to a queue by hand, with workers at work: every job ends, either run or failed as "orphaned",
whoever waits is told, keys are free again, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio

from taskrunner import Job, JobStatus
from taskrunner.durability import Durability
from taskrunner.store.examine import Subject
from taskrunner.store.repair import repair
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

Deed = Callable[[redis.asyncio.Redis, Fleet], Awaitable[object]]
GROUP = "taskrunner"
DEAD = ("dead:default", "dead-letters:default", "dead-tasks:default")


@pytest.fixture
async def client(own_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with own_server.client() as client:
        yield client


async def orphaned(job: Job[object]) -> bool:
    """Whether a job ended so; it must have ended one way or the other."""
    await job.wait(30)
    error = (await job.info()).error
    assert error is None or (error.reason == "orphaned" and "deleted" in error.message)
    return error is not None


async def counted(client: redis.asyncio.Redis, fleet: Fleet, what: str) -> int:
    return int(await client.hget(fleet.keys.janitor, what) or 0)


async def all_is_tidy(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    """Nothing waits, runs or is counted; once the workers are gone nothing is left of all that."""
    stats = await fleet.runner.stats("default")
    assert (stats.waiting, stats.running, stats.scheduled) == (0, 0, 0)
    assert await client.hlen(fleet.keys.live) == 0
    assert await client.hlen(fleet.keys.watchers) == 0
    dead = {letter.id for letter in await fleet.runner.dead_letters.list(limit=10_000)}
    assert len(dead) == await counted(client, fleet, "orphaned")


# -- waiting jobs ----------------------------------------------------------------------------------------------------


async def delete_each_second_entry(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    rows = await client.xrange(fleet.stream)
    await client.xdel(fleet.stream, *[entry for entry, _ in rows[::2]])


async def trim_to_half(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    await client.xtrim(fleet.stream, maxlen=10, approximate=False)


async def delete_the_stream(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    await client.delete(fleet.stream)


@pytest.mark.parametrize(
    ("deed", "lost"), [(delete_each_second_entry, 10), (trim_to_half, 10), (delete_the_stream, 20)]
)
async def test_waiting_jobs_that_are_deleted_have_failed_and_the_others_run(
    deed: Deed, lost: int, fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    jobs = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(20)])
    await deed(client, fleet)
    worker = await fleet.worker()
    ended = await asyncio.gather(*(orphaned(job) for job in jobs))
    assert sum(ended) == lost
    assert len(fleet.journal.lines("end")) == 20 - lost
    assert await counted(client, fleet, "orphaned") == lost
    assert {letter.reason for letter in await fleet.runner.dead_letters.list()} == {"orphaned"}
    await eventually(lambda: f"{lost} jobs have lost their entry" in fleet.log(worker))
    await eventually(lambda: no_counts(client, fleet))  # of whose task nobody knows, until the queue is empty
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace, DEAD)


async def no_counts(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return all(n == b"0" for n in await client.hvals(fleet.keys.queue("default").waiting))


async def test_waiting_jobs_that_a_moved_group_would_pass_over_run(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    worker = await fleet.worker(num_workers=1, batch_size=1)
    gate = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start")
    jobs = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(20)])
    await client.xgroup_setid(fleet.stream, GROUP, "$")
    fleet.tasks.open_gate("gate")
    await gate.wait(30)
    assert [await job.result(30) for job in jobs] == list(range(20))
    assert await counted(client, fleet, "readded") > 0
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace)


async def test_the_unique_key_of_a_deleted_job_is_free_at_once_and_the_deleted_job_is_told_of(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    unique = fleet.tasks.quick.with_options(unique=True)
    first = await unique.dispatch("same")
    await client.xtrim(fleet.stream, maxlen=0, approximate=False)
    second = await unique.dispatch("same")
    assert not second.deduplicated
    worker = await fleet.worker()
    assert await second.result(30) == "same"
    assert await orphaned(first)
    third = await unique.dispatch("same")
    assert not third.deduplicated
    assert await third.result(30) == "same"
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace, DEAD)


# -- jobs in hand ----------------------------------------------------------------------------------------------------


async def test_running_jobs_whose_entries_are_deleted_end_in_one_way(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    """A heartbeat keeps such a job on Redis 6.2; from 7.0 on the server then drops it, and the worker learns it."""
    worker = await fleet.worker()
    jobs = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(5)])
    await fleet.tasks.seen(5, "start")
    await client.xtrim(fleet.stream, maxlen=0, approximate=False)
    passes = await client.hget(fleet.keys.janitor, "audit-next")
    await eventually(lambda: another_pass(client, fleet, passes))
    fleet.tasks.open_gate("gate")
    lost = await asyncio.gather(*(orphaned(job) for job in jobs))
    await fleet.tasks.seen(5, "end", "cancelled")
    assert len(fleet.journal.lines("start")) == 5
    hold = (await fleet.runner.stats("default")).per_task.get("hold")
    assert (hold.succeeded if hold else 0) == 5 - sum(lost)
    await eventually(lambda: no_counts(client, fleet))
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace, DEAD)


async def another_pass(client: redis.asyncio.Redis, fleet: Fleet, before: bytes | None) -> bool:
    """Whether a whole pass of the audit has begun and ended since."""
    state = await client.hmget(fleet.keys.janitor, "audit", "audit-next")
    return state[0] == b"" and state[1] != before


@pytest.mark.crash
async def test_a_dead_workers_jobs_whose_entries_are_deleted_have_failed(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    victim = await fleet.worker()
    jobs = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(5)])
    await fleet.tasks.seen(5, "start")
    victim.signal(signal.SIGKILL)
    await client.xtrim(fleet.stream, maxlen=0, approximate=False)
    worker = await fleet.worker()
    assert all(await asyncio.gather(*(orphaned(job) for job in jobs)))
    await eventually(lambda: no_counts(client, fleet))
    await eventually(lambda: alone(client, fleet))
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace, DEAD)


async def delete_consumers(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    for consumer in await client.xinfo_consumers(fleet.stream, GROUP):
        await client.xgroup_delconsumer(fleet.stream, GROUP, consumer["name"])


async def test_jobs_of_a_living_worker_whose_consumer_is_deleted_run_again_and_are_recorded_once(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    worker = await fleet.worker()
    jobs = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(5)])
    await fleet.tasks.seen(5, "start")
    await delete_consumers(client, fleet)
    await fleet.tasks.seen(10, "start")
    fleet.tasks.open_gate("gate")
    assert [await job.result(30) for job in jobs] == [worker.pid] * 5
    assert len(fleet.journal.lines("cancelled")) == 5, "the runs that the worker had lost"
    assert (await fleet.figures("hold")).succeeded == 5
    assert await counted(client, fleet, "readded") == 5
    await eventually(lambda: "5 jobs were in no worker's hands" in fleet.log(worker))
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace)


@pytest.mark.crash
async def test_jobs_of_a_dead_worker_whose_consumer_is_deleted_run(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    victim = await fleet.worker()
    forgotten = fleet.tasks.hold.with_options(ignore_result=True)
    jobs = [await fleet.tasks.hold.dispatch("gate") for _ in range(3)]
    await asyncio.gather(*(forgotten.dispatch("gate") for _ in range(3)))
    await fleet.tasks.seen(6, "start")
    victim.signal(signal.SIGKILL)
    await delete_consumers(client, fleet)
    fleet.tasks.open_gate("gate")
    worker = await fleet.worker()
    assert [await job.result(30) for job in jobs] == [worker.pid] * 3
    await fleet.tasks.seen(6, "end")
    assert await counted(client, fleet, "readded") == 6
    await eventually(lambda: none_pending(client, fleet))
    await eventually(lambda: alone(client, fleet))
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace)


async def alone(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    """Whether the dead worker has left the registry."""
    return bool(await client.zcard(fleet.keys.workers) == 1)


async def none_pending(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return await fleet.pending(client) == 0


async def test_with_kept_entries_only_the_unfinished_jobs_of_a_deleted_consumer_run_again(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    worker = await fleet.worker(delete_on_ack=False)
    done = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(20)])
    assert [await job.result(30) for job in done] == list(range(20))
    held = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(21, "start")
    await delete_consumers(client, fleet)
    await fleet.tasks.seen(22, "start")
    fleet.tasks.open_gate("gate")
    assert await held.result(30) == worker.pid
    assert await counted(client, fleet, "readded") == 1
    assert len(fleet.journal.lines("start")) == 22
    assert await client.xlen(fleet.stream) == 21
    await fleet.end(worker)


# -- jobs that wait for their time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("letters",), ("due",), ("due", "letters")])
async def test_jobs_that_wait_for_their_time_and_lose_a_part_have_failed(
    keys: tuple[str, ...], fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    unique = fleet.tasks.quick.with_options(delay=3600, unique=True)
    jobs = [await unique.dispatch(n) for n in range(5)]
    waiting = [asyncio.create_task(job.wait(30)) for job in jobs]
    await eventually(lambda: watched(client, fleet, 5))
    await client.delete(*[getattr(fleet.keys.queue("default"), key) for key in keys])
    worker = await fleet.worker()
    await asyncio.gather(*waiting)
    assert all(await asyncio.gather(*(orphaned(job) for job in jobs)))
    letters = await fleet.runner.dead_letters.list()
    if keys == ("due",):  # the letters were there
        assert sorted(letter.args[0] for letter in letters) == list(range(5))
    again = [await fleet.tasks.quick.with_options(unique=True).dispatch(n) for n in range(5)]
    assert not [job for job in again if job.deduplicated]
    assert [await job.result(30) for job in again] == list(range(5))
    await all_is_tidy(client, fleet)
    await fleet.end(worker)
    assert not await leftovers(client, fleet.namespace, DEAD)


async def watched(client: redis.asyncio.Redis, fleet: Fleet, count: int) -> bool:
    return bool(await client.hlen(fleet.keys.watchers) == count)


async def test_jobs_that_wait_and_are_whole_stay_where_they_are(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    later = await fleet.tasks.quick.with_options(delay=3600).dispatch()
    worker = await fleet.worker()
    await eventually(lambda: another_pass(client, fleet, None))
    assert await later.status() is JobStatus.SCHEDULED
    assert await counted(client, fleet, "orphaned") == 0
    await fleet.end(worker)


# -- all of it -------------------------------------------------------------------------------------------------------

DEEDS: list[Deed] = [
    delete_consumers,
    delete_each_second_entry,
    lambda client, fleet: client.delete(fleet.keys.queue("default").letters),
    lambda client, fleet: client.delete(fleet.keys.queue("default").due),
    lambda client, fleet: client.xgroup_setid(fleet.stream, GROUP, "$"),
    lambda client, fleet: client.xtrim(fleet.stream, maxlen=3, approximate=False),
]


async def test_whatever_operators_do_all_the_time_every_job_ends_and_all_that_ran_are_recorded(
    fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    workers = [await fleet.worker(num_workers=3) for _ in range(2)]
    quick, nap = fleet.tasks.quick, fleet.tasks.nap
    jobs: list[Job[object]] = []
    for n in range(120):
        jobs.append(await quick.with_options(unique=dice.random() < 0.3, delay=dice.choice([0, 0, 0.3])).dispatch(n))
        jobs.append(await nap.dispatch(0.02))
        if n % 6 == 5:
            await dice.choice(DEEDS)(client, fleet)
            await asyncio.sleep(0.1)
    lost = await asyncio.gather(*(orphaned(job) for job in jobs))
    figures = [await fleet.figures(task) for task in ("quick", "nap")]
    assert sum(one.succeeded for one in figures) == len(jobs) - sum(lost)
    assert sum(lost) == await counted(client, fleet, "orphaned")
    await eventually(lambda: no_counts(client, fleet))
    await all_is_tidy(client, fleet)
    for worker in workers:
        await fleet.end(worker)
    # Nobody but the letter of a lost job knew its unique key. The next dispatch of the same takes it over, or:
    await repair(Subject((await fleet.runner.opened()).store, Durability.MEMORY, certain=True))
    assert not await leftovers(client, fleet.namespace, DEAD)

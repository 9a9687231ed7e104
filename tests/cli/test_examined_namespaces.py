"""The doctor's findings on a namespace and what it mends there, beside workers at work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, Limit, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.repair import Repaired
from tests.cli.examining import LEFT, MakeRunner, everything, findings, mend
from tests.waiting import eventually


async def test_a_living_worker_and_what_it_holds_are_left_alone(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner, gate = make_runner(reservation_timeout=60), asyncio.Event()

    @runner.task(unique=True)
    async def hold() -> str:
        await gate.wait()
        return "held"

    async with runner.start():
        job = await hold.dispatch()
        later = await hold.with_options(delay=3600, unique=False).dispatch()
        await eventually(lambda: redis_client.xpending(keys.queue("default").stream, "taskrunner"))
        await eventually(lambda: is_running(job))
        before = await everything(redis_client, keys)
        assert await mend(runner) == Repaired()
        assert await everything(redis_client, keys) == before
        assert (await findings(runner))["workers"] == ("ok", "1 worker alive")
        assert (await hold.dispatch()).deduplicated
        gate.set()
        assert await job.result(timeout=20) == "held"
        assert await later.status() is JobStatus.SCHEDULED
        await redis_client.zadd(keys.queue("default").due, {later.id: 1})
        runner.job(later.id)
        await redis_client.publish(keys.wake, "due")
        await later.wait(timeout=20)


async def is_running(job: Any) -> bool:
    return await job.status() is JobStatus.RUNNING


@LEFT
async def test_consumers_of_workers_that_are_gone_are_removed_unless_they_hold_something(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    await runner.declare("work").dispatch()
    stream = keys.queue("default").stream
    await redis_client.xgroup_create(stream, "taskrunner", "0")
    await redis_client.xgroup_createconsumer(stream, "taskrunner", "idle")
    await redis_client.xreadgroup("taskrunner", "holds", {stream: ">"})
    await redis_client.zadd(keys.workers, {"idle": 1})
    await redis_client.hset(keys.worker_facts, "idle", "{}")
    level, text = (await findings(runner))["workers"]
    assert level == "warning"
    assert text.startswith("0 workers alive, and 2 consumers of workers that are gone with 1 job in hand")
    assert (await mend(runner)).consumers == 1
    assert [one["name"] for one in await redis_client.xinfo_consumers(stream, "taskrunner")] == [b"holds"]
    assert not await redis_client.exists(keys.workers, keys.worker_facts)
    await redis_client.xgroup_destroy(stream, "taskrunner")


@pytest.mark.leaves("stream:default", "live", "letters:", "tallies:", "parked:", "unique:", "next:", "dead")
async def test_places_behind_unique_keys_are_freed_when_their_job_is_gone_and_only_then(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    latest = runner.declare("work").with_options(unique="latest")
    for n in (1, 2):
        await latest.dispatch(n)
    parked = [await latest.dispatch(n) for n in (1, 2)]
    await redis_client.hdel(keys.live, parked[0].id)
    await redis_client.hdel(keys.queue("default").letters, parked[0].id)
    level, text = (await findings(runner))["unique"]
    assert (level, text.split()[0]) == ("warning", "1")
    assert (await mend(runner)).unique == 1
    left = [await redis_client.get(key) async for key in redis_client.scan_iter(match=f"*{keys.prefix}next:*")]
    assert left == [parked[1].id.encode()]
    assert await parked[1].status() is JobStatus.BLOCKED


@LEFT
async def test_unique_keys_are_freed_when_their_holder_is_gone_and_only_then(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    unique = runner.declare("work").with_options(unique=True)
    jobs = [await unique.dispatch(n) for n in range(1100)]
    await redis_client.hdel(keys.live, *[job.id for job in jobs[:1050]])
    level, text = (await findings(runner))["unique"]
    assert (level, text.partition(" of ")[0]) == ("warning", "1,050 keys")
    assert (await mend(runner)).unique == 1050
    assert "unique" not in await findings(runner)
    held = [await redis_client.get(key) async for key in redis_client.scan_iter(match=keys.unique("*"), count=1000)]
    assert {one.decode() for one in held} == {job.id for job in jobs[1050:]}


@LEFT
async def test_counts_are_recounted(runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys) -> None:
    one, two, three = (runner.declare(name) for name in ("one", "two", "three"))
    await runner.dispatch_many([one.job() for _ in range(300)] + [two.job() for _ in range(3)] + [three.job()])
    stream, waiting = keys.queue("default").stream, keys.queue("default").waiting
    rows = await redis_client.xrange(stream)
    await redis_client.xdel(stream, *[entry for entry, _ in rows[:100]], rows[-1][0])
    await redis_client.hdel(waiting, "two")
    assert (await findings(runner))["counts"][0] == "warning"
    assert (await mend(runner)).counts == 3
    assert await redis_client.hgetall(waiting) == {b"one": b"200", b"two": b"3", b"three": b"0"}
    assert (await findings(runner))["counts"][0] == "ok"


@LEFT
async def test_keys_that_should_not_be_there_are_named(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, namespace: str
) -> None:
    await redis_client.set(keys.prefix + "notes", "a stranger's", ex=100)
    await redis_client.set(keys.queues + "x", "a stranger's", ex=100)
    await redis_client.set(keys.watchers, "of another type", ex=100)
    await redis_client.set(keys.job("restored"), "without its expiry")
    await redis_client.hset(keys.prefix.replace(".0}", ".2}") + "live", "job", "q default 1-0")
    other = keys.prefix.replace(namespace + ".0}", namespace + ".x.0}")
    await redis_client.set(other + "notes", "of another namespace", ex=100)
    found = await findings(runner)
    assert found["keys"][0] == "warning"
    assert found["keys"][1].startswith("3 keys of no kind that we write")
    assert found["expiry"][1].startswith(f"1 key without the expiry that we give them ({keys.job('restored')})")
    assert found["partitions"][0] == "problem"
    assert "partition 2" in found["partitions"][1]
    assert (await findings(runner, certain=False))["partitions"][0] == "warning"
    await redis_client.delete(keys.job("restored"), other + "notes")


@pytest.mark.leaves("stream:default")
async def test_finished_entries_that_are_kept_never_run_again_whatever_the_doctor_knows(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(delete_on_ack=False)

    @runner.task
    async def work(n: int) -> int:
        return n

    async with runner.start():
        for job in await runner.dispatch_many([work.job(n) for n in range(20)]):
            await job.wait(timeout=20)
    await redis_client.hdel(keys.queue("default").rates, "kept")  # as if somebody had reset the statistics
    assert (await mend(runner)).readded == 0
    by_url = make_runner()
    assert (await mend(by_url, certain=False)).readded == 0
    assert (await findings(by_url, certain=False))["orphans"][0] == "ok"


@pytest.mark.leaves("dead")
async def test_seats_of_jobs_that_are_gone_are_freed_and_no_others(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    limited = runner.declare("work", limit=Limit(2, key="k{n}"))
    jobs = [await limited.dispatch(n=n) for n in range(450)]
    await redis_client.hdel(keys.live, *[job.id for job in jobs[:400]])
    await redis_client.delete(keys.queue("default").stream)
    await redis_client.hdel(keys.live, jobs[449].id)
    level, text = (await findings(runner))["seats"]
    assert (level, text.partition(" of ")[0]) == ("warning", "401 seats")
    left = [key async for key in redis_client.scan_iter(match=keys.lease("*"), count=1000)]
    assert len(left) == 450
    done = await mend(runner)  # its audit ends those whose entry is gone
    assert (done.orphaned, done.seats) == (49, 450)
    assert "seats" not in await findings(runner)
    assert not [key async for key in redis_client.scan_iter(match=keys.lease("*"), count=1000)]


@pytest.mark.leaves("stream:default", "live", "letters:", "tallies:", "parked:", "lease:")
async def test_jobs_that_wait_for_others_for_more_than_an_hour_are_spoken_of(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    locked = runner.declare("work").with_options(lock_key="k")
    jobs = [await locked.dispatch(n=n) for n in range(4)]
    assert "blocked" not in await findings(runner)
    parked = f"{keys.prefix}parked:default"
    await redis_client.zincrby(parked, -3_601_000, jobs[1].id)
    await redis_client.zincrby(parked, -3_601_000, jobs[2].id)
    level, text = (await findings(runner))["blocked"]
    assert (level, text.partition(":")[0]) == ("warning", "2 jobs in default")


@pytest.mark.leaves("stream:default", "live", "rate:")
async def test_a_rate_without_an_end_is_named(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    await redis_client.zadd(f"{keys.prefix}rate:{'0' * 32}", {"": 1.0})
    level, text = (await findings(runner))["expiry"]
    assert level == "warning"
    assert f"rate:{'0' * 32}" in text

"""A cluster: slots that move, primaries that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio

from taskrunner import JobContext, JobFailed, JobNotFound, RedisConfigurationError, TaskRunner
from taskrunner.store.connect import connect
from taskrunner.store.keys import Keyspace
from taskrunner.store.links import BlockingLink, Link
from taskrunner.store.scripts import SWEEP
from tests.faults.load import Load
from tests.faults.workshop import Fleet
from tests.servers import Cluster, Node
from tests.waiting import eventually

pytestmark = [pytest.mark.crash, pytest.mark.slow]

PARTITIONS = 3
RECOVERY = 40.0
"""Seconds from the death of a primary until jobs run again: the nodes need some 4 to agree, and we less than 2."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "cluster") as servers:
        yield servers


@pytest.fixture
async def replicated_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "cluster", replicas=1, node_timeout=1000) as servers:
        yield servers


async def _slots(cluster: Cluster, namespace: str) -> list[int]:
    partitions = Keyspace("taskrunner", namespace, PARTITIONS).partitions
    return [await cluster.slot_of(partition.prefix) for partition in partitions]


async def test_a_namespace_works_over_several_slots(
    cluster: Cluster, namespace: str, make_runner: Callable[..., TaskRunner]
) -> None:
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
    for named in (cluster.url, client):
        runner = make_runner(named, partitions=PARTITIONS)

        @runner.task(backoff=lambda attempt: 0.05, max_retry=1)
        async def double(job: JobContext, n: int) -> int:
            if n % 3 == 0 and job.attempt == 1:
                raise ValueError("the first time")
            return 2 * n

        @runner.task(max_retry=0)
        async def fail() -> None:
            raise ValueError("always")

        async with runner.start():
            jobs = await runner.dispatch_many([double.job(n) for n in range(60)])
            jobs += await asyncio.gather(*(double.with_options(unique=True, delay=0.05).dispatch(n) for n in range(60)))
            assert [await job.result(20) for job in jobs] == [2 * n for n in range(60)] * 2
            dead = await fail.dispatch()
            with pytest.raises(JobFailed):
                await dead.result(20)
            assert (await runner.dead_letters.get(dead.id)).message == "always"
            for _ in range(2):
                assert await runner.dead_letters.retry_all("fail") == 1
                with pytest.raises(JobFailed):
                    await dead.result(20)
            assert [letter.id for letter in await runner.dead_letters.list("fail")] == [dead.id]
            assert await runner.dead_letters.purge() == 1
            stats = await runner.stats()
            assert (stats.waiting, stats.replicas) == (0, 1)
    await client.aclose()
    owners = {await cluster.owner(slot) for slot in await _slots(cluster, namespace)}
    entries = [await node.command("DBSIZE") for node in owners]
    assert all(entries), "every partition's keys are where its slot is"


async def test_the_address_of_one_node_is_refused_with_the_way_to_say_it(
    cluster: Cluster, make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    [slot] = {await cluster.slot_of(Keyspace("taskrunner", namespace, 1).partitions[0].prefix)}
    owner = await cluster.owner(slot)
    other = next(node for node in cluster.nodes if node is not owner)
    runner = make_runner(other.url)
    task = runner.declare("work")
    with pytest.raises(RedisConfigurationError, match=r"redis\+cluster://"):
        await task.dispatch()


async def test_slots_that_move_under_load_cost_no_dispatch_and_no_job(
    cluster: Cluster, make_fleet: Callable[..., Fleet], namespace: str
) -> None:
    fleet = make_fleet(cluster.url, partitions=PARTITIONS)
    worker = await fleet.worker()
    slots = await _slots(cluster, namespace)
    async with fleet.runner.start(), Load(fleet.tasks.quick) as load:
        await load.more()
        for slot in slots:
            owner = await cluster.owner(slot)
            target = next(node for node in cluster.nodes if node is not owner)
            await cluster.begin_migration(slot, target)
            # From the first key that goes until the slot has its new owner, nodes refuse scripts (TRYAGAIN): the
            # partition stands still, and what is dispatched meanwhile waits.
            await cluster.move_keys(owner, slot, target)
            waiting = asyncio.create_task(fleet.tasks.quick.dispatch("meanwhile"))
            await asyncio.sleep(0.2)
            await cluster.end_migration(slot, target)
            await (await waiting).wait(20)
            await load.more()
    async with fleet.runner.start():
        for job in load.accepted:
            await job.wait(20)
        ended = [line.job for line in fleet.journal.lines("end")]
        assert set(ended) > {job.id for job in load.accepted}
        count = len(load.accepted) + PARTITIONS
        assert (await fleet.figures("quick")).succeeded == count, "lost, or recorded twice"
    await fleet.end(worker)
    assert "Traceback" not in fleet.log(worker)
    assert "refused" not in fleet.log(worker)


async def test_a_key_that_has_gone_already_is_asked_for_at_its_new_node(cluster: Cluster, namespace: str) -> None:
    key = Keyspace("taskrunner", namespace, 1).partitions[0].prefix
    links = [Link(connect(cluster.url), key) for _ in range(4)]
    blocking = BlockingLink(connect(cluster.url), key, 5)
    await asyncio.gather(*(link.call(b"SADD", key + "queues", n) for n, link in enumerate(links)))
    slot = await cluster.slot_of(key)
    owner = await cluster.owner(slot)
    target = next(node for node in cluster.nodes if node is not owner)
    await cluster.begin_migration(slot, target)
    await cluster.move_keys(owner, slot, target)
    for _ in range(10):
        assert await asyncio.gather(*(link.call(b"SCARD", key + "queues") for link in links)) == [4] * 4
    sweep = SWEEP, [key + "stream:default"], ["group", "me", "-", 10]
    assert await links[0].run(*sweep) == [], "a script that the new node doesn't know yet"
    assert await asyncio.to_thread(blocking.run, *sweep) == []
    assert await owner.cluster("COUNTKEYSINSLOT", slot) == 0
    await cluster.end_migration(slot, target)
    assert await asyncio.gather(*(link.call(b"SCARD", key + "queues") for link in links)) == [4] * 4
    for link in links:
        await link.close()
    blocking.close()


async def test_a_held_job_keeps_its_reservation_while_its_slot_moves(
    cluster: Cluster, make_fleet: Callable[..., Fleet], namespace: str
) -> None:
    fleet = make_fleet(cluster.url)
    [slot] = {await cluster.slot_of(fleet.keys.prefix)}
    async with fleet.runner.start():
        job = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        owner = await cluster.owner(slot)
        target = next(node for node in cluster.nodes if node is not owner)
        await cluster.migrate(slot, target)
        await _beats(fleet, target, 8)  # two reservations
        fleet.tasks.open_gate("gate")
        await job.wait(20)
    assert len(fleet.journal.lines("start")) == 1


async def _beats(fleet: Fleet, node: Node, count: int) -> None:
    seen: set[bytes] = set()

    async def enough() -> bool:
        seen.add(await node.command("HGET", fleet.keys.janitor, "last"))
        return len(seen) > 2 * count  # the reclaimer's passes write it too

    await eventually(enough)


async def test_a_killed_primary_stops_its_partition_until_its_replica_takes_over_and_no_other(
    replicated_cluster: Cluster, make_fleet: Callable[..., Fleet], namespace: str
) -> None:
    cluster = replicated_cluster
    # In the default all slots stop when one has nobody: an operator who has partitions wants the others to go on.
    for node in cluster.nodes:
        await node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    fleet = make_fleet(cluster.url, partitions=PARTITIONS)
    await fleet.worker()
    slots = await _slots(cluster, namespace)
    async with fleet.runner.start():
        warm = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(60)])
        for job in warm:
            await job.wait(20)
        old = await cluster.owner(slots[0])
        spared = [n for n, slot in enumerate(slots) if await cluster.owner(slot) is not old]
        assert spared, "the partitions of this namespace are all on one node; take another namespace"
        cluster.kill(old)
        killed = time.monotonic()
        keyspace = Keyspace("taskrunner", namespace, PARTITIONS)
        beside = [f"job-{n}" for n in range(200) if keyspace.partition_of(f"job-{n}") in spared][:20]
        jobs = [await fleet.tasks.quick.with_options(id=id).dispatch(id) for id in beside]
        assert [await job.result(20) for job in jobs] == beside
        await cluster.failed_over(slots[0], old)
        after = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(60)])
        for job in after:
            await job.wait(RECOVERY)
        assert time.monotonic() - killed < RECOVERY


async def test_a_replica_that_is_told_to_take_over_loses_nothing(
    replicated_cluster: Cluster, make_fleet: Callable[..., Fleet], namespace: str
) -> None:
    cluster = replicated_cluster
    fleet = make_fleet(cluster.url)
    await fleet.worker()
    slot = await cluster.slot_of(fleet.keys.prefix)
    old = await cluster.owner(slot)
    replica = next(node for node in cluster.nodes if node.follows is old)
    async with fleet.runner.start(), Load(fleet.tasks.quick) as load:
        await load.more()
        await replica.cluster("FAILOVER")
        assert await cluster.failed_over(slot, old) is replica
        await load.more(deadline=RECOVERY)
    async with fleet.runner.start():
        for job in load.accepted:
            try:
                await job.wait(20)
            except JobNotFound:
                pytest.fail("CLUSTER FAILOVER waits until the replica has everything")
    assert (await fleet.figures("quick")).succeeded == len(load.accepted)

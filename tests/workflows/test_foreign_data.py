"""Strangers' data under the keys of workflows: what stands there is refused, or left alone; jobs go on, none is lost,
and what a workflow has lost by it ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, RedisConfigurationError, TaskRunner, chain, group
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually
from tests.workflows.auditing import audit, deliver, everything, keys_of
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]
KEYS: dict[str, Callable[[PartitionKeys], str]] = {
    "workflow": lambda keys: keys.workflow("mine")[0],
    "nodes": lambda keys: keys.workflow("mine")[1],
    "jobs": lambda keys: keys.workflow("mine")[2],
    "workflows": lambda keys: keys.workflows,
    "followers": lambda keys: keys.followers,
    "unfolding": lambda keys: keys.unfolding,
}


@pytest.fixture
def runner(make_runner: MakeRunner) -> TaskRunner:
    return make_runner(reservation_timeout=60)


async def overwrite(client: redis.asyncio.Redis, key: str) -> None:
    await client.delete(key)
    await client.rpush(key, "a stranger's")


def large(tasks: Tasks) -> Any:
    """It has a large group, and ids of the user's."""
    many = group(*(tasks.give.job(n) for n in range(250)), then=tasks.add_up.job())
    named = tasks.give.with_options(id="named").job(1)
    return chain(tasks.hold.job(0), group(many, named, chain(tasks.give.job(2), tasks.give.job(3))), id="mine")


@pytest.mark.parametrize("key", KEYS)
async def test_what_stands_there_before_is_refused_and_nothing_is_written(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, namespace: str, key: str
) -> None:
    name = KEYS[key](await keys_of(runner))
    await overwrite(redis_client, name)
    before = await everything(redis_client, namespace)
    with pytest.raises(RedisConfigurationError, match="foreign data under our keys"):
        await runner.dispatch(large(tasks))
    after = await everything(redis_client, namespace)
    assert {one for one in after if b"}:staged:" not in one} == set(before)
    assert after[name.encode()] == before[name.encode()]
    await redis_client.delete(name)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", ["while it runs", "while it is cancelled"])
async def test_what_comes_later_costs_no_job_and_the_workflow_ends_when_it_is_gone(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, key: str, place: str
) -> None:
    keys = await keys_of(runner)
    name = KEYS[key](keys)
    job = await runner.dispatch(large(tasks))
    async with runner.start():
        await eventually(lambda: tasks.started)
        await overwrite(redis_client, name)
        if place == "while it is cancelled":
            with contextlib.suppress(RedisConfigurationError):
                await job.cancel()
        tasks.go.set()
        first = runner.job("mine.0")
        await first.wait(timeout=20)
        if place == "while it runs":
            assert await first.status() is JobStatus.SUCCEEDED
        assert await (await tasks.give.dispatch("next")).result(20) == "next", "settling goes on"
        assert await redis_client.lrange(name, 0, -1) == [b"a stranger's"]
        await redis_client.delete(name)
        await eventually(lambda: nothing_runs(runner, redis_client, keys))
    assert not await redis_client.exists(keys.workflows, keys.unfolding, keys.followers, keys.live)


async def nothing_runs(runner: TaskRunner, client: redis.asyncio.Redis, keys: PartitionKeys) -> bool:
    """What the workers and their audits come to, in time. What nobody lists is the doctor's."""
    if await client.hexists(keys.workflow("mine")[0], "left") and await client.pttl(keys.workflow("mine")[0]) == -1:
        await client.zadd(keys.workflows, {"mine": 1}, nx=True)
    await audit(runner)
    return not await client.exists(keys.workflows, keys.unfolding, keys.live)


# -- other partitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["outbox here", "outbox there", "received here", "received there"])
async def test_partitions_hear_of_each_other_when_it_is_gone(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, where: str
) -> None:
    runner = make_runner(partitions=2, reservation_timeout=60)
    tasks = Tasks(runner)
    alone = runner.task(name="alone", unique=True)(give)
    store = (await runner.opened()).store
    keys = await keys_of(runner, "mine")
    there = store.partitions[1 - keys.number]
    name = {
        "outbox here": keys.outbox(there.number),
        "outbox there": there.outbox(keys.number),
        "received here": keys.received,
        "received there": there.received,
    }[where]
    await overwrite(redis_client, name)
    parts = (chain(alone.job(n), alone.job(n + 100)) for n in range(20))
    job = await runner.dispatch(group(*parts, then=tasks.give.job("then"), id="mine"))
    plain = [await alone.dispatch(n) for n in range(200, 220)]
    async with runner.start():
        for one in plain:
            await one.wait(timeout=20)
        assert await redis_client.lrange(name, 0, -1) == [b"a stranger's"]
        await redis_client.delete(name)
        await eventually(lambda: comes_to_its_end(runner, job))
        assert await job.results(20) == list(range(100, 120))
        await eventually(lambda: "then" in tasks.calls)
        await eventually(lambda: redis_client.exists(keys.job(f"{job.then.id}")))


async def give(n: int) -> int:
    return n


async def comes_to_its_end(runner: TaskRunner, job: Any) -> bool:
    await audit(runner)
    return await job.status() is not JobStatus.RUNNING


MESSAGES: dict[str, dict[bytes, bytes]] = {
    "of no kind": {b"gossip": b"body", b"workflow": b"mine"},
    "no item": {b"start": b"\xc1", b"workflow": b"mine"},
    "an item of another kind": {b"start": b"\x07", b"workflow": b"mine"},
    "half an item": {b"start": b"\x92\xa11\xa0", b"workflow": b"mine"},
    "an end that is none": {b"ended": b"\xc1", b"workflow": b"mine"},
    "an end of nothing": {b"ended": b"\x90", b"workflow": b"mine"},
    "a question without a node": {b"look": b"\x90", b"workflow": b"mine"},
    "an answer to nothing": {b"lost": b"\x95\xa10\xa1s\xa0\xa1x\xa0", b"workflow": b"mine"},
    "a name of nobody": {b"known": b"\x90", b"workflow": b"mine"},
    "one field": {b"start": b"x"},
    "many fields": {bytes([n]): b"" for n in range(40)},
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_a_message_that_cannot_be_read_is_dropped_and_the_next_one_comes_through(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, message: dict[bytes, bytes]
) -> None:
    runner = make_runner(partitions=2, reservation_timeout=60)
    alone = runner.task(name="alone", unique=True)(give)
    store = (await runner.opened()).store
    for source in store.partitions:
        await redis_client.xadd(source.outbox(1 - source.number), message)  # type: ignore[arg-type]
    job = await runner.dispatch(group(*(chain(alone.job(n), alone.job(n + 100)) for n in range(10)), id="mine"))
    for source in store.partitions:
        await redis_client.xadd(source.outbox(1 - source.number), message)  # type: ignore[arg-type]
    await deliver(runner)
    async with runner.start():
        assert await job.results(20) == list(range(100, 110))
        await eventually(lambda: is_quiet(redis_client, store.partitions))


async def is_quiet(client: redis.asyncio.Redis, partitions: Any) -> bool:
    return not any([await client.xlen(one.outbox(1 - one.number)) for one in partitions])


# -- inside our keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["", "nonsense", "0 ended x mine", "0 cut x mine", "9 go - mine", "0 cut 99 nobody"])
async def test_what_is_left_over_of_nothing_is_dropped(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, member: str
) -> None:
    keys = await keys_of(runner)
    job = await runner.dispatch(chain(tasks.hold.job(1), tasks.give.job(2), id="mine"))
    await redis_client.zadd(keys.unfolding, {member: 1})
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.unfolding))
        tasks.go.set()
        assert await job.result(20) == 2


async def is_without(client: redis.asyncio.Redis, key: str) -> bool:
    return not await client.exists(key)


FIELDS = [
    *(("left", "many"), ("left", None), ("ttl", "for ever"), ("ttl", None), ("ttl", "1e99"), ("head", "{")),
    *(("head", None), ("result", "none"), ("cut", "all"), ("i:2", "\x07"), ("i:2", "\x92\x01"), ("c:3", "x")),
    *(("c:3", "0 99"), ("c:3:0", "\x93\x01\x02\x03"), ("c:3:0", "\x91\x91\xa15"), ("b:4", "x"), ("e:4", "x")),
    *(("m:4", "x"), ("f:4", "x"), ("x:4", "x")),
]


@pytest.mark.leaves("dead")
@pytest.mark.parametrize(("field", "value"), FIELDS)
async def test_a_part_of_a_workflow_that_makes_no_sense_costs_no_other_job_and_the_workflow_ends(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, field: str, value: str | None
) -> None:
    keys = await keys_of(runner)
    hash = keys.workflow("mine")[0]
    part = chain(
        tasks.give.job(0), tasks.hold.job(1), tasks.give.job(2), group(tasks.give.job(3), tasks.give.job(4)),
        tasks.add_up.job(), id="mine",
    )  # fmt: skip
    await runner.dispatch(part)
    async with runner.start():
        await eventually(lambda: tasks.started)
        if value is None:
            await redis_client.hdel(hash, field)
        else:
            await redis_client.hset(hash, field, value.encode("latin-1"))
        tasks.go.set()
        assert await runner.job("mine.1").result(20) == 1
        assert await (await tasks.give.dispatch("next")).result(20) == "next", "settling goes on"
        await eventually(lambda: nothing_runs(runner, redis_client, keys))
    assert await redis_client.pttl(hash) != -1
    assert not await redis_client.exists(keys.workflows, keys.unfolding, keys.followers, keys.live)

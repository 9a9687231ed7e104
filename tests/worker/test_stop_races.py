"""Stops in the wrong instant: while a fetch waits, while jobs arrive, while jobs are being taken over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner, current_job
from taskrunner.store.reader import BLOCK
from taskrunner.store.store import Store
from tests.faults.load import Load
from tests.waiting import eventually

NEVER = 300
"""A reservation in seconds that no test waits for: what comes back within the test was handed back."""


@pytest.mark.parametrize("reconnected", [False, True], ids=["first connection", "after a reconnect"])
async def test_a_stop_does_not_wait_for_a_fetch_that_is_blocked_on_the_server(
    reconnected: bool, make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    runner = make_runner()
    async with runner.start():
        reader = await eventually(lambda: _blocked(redis_client, runner))
        if reconnected:
            await redis_client.client_kill_filter(_id=reader)
            await eventually(lambda: _blocked(redis_client, runner, other_than=reader))
        began = time.monotonic()
    assert time.monotonic() - began < BLOCK / 2


async def _blocked(client: redis.asyncio.Redis, runner: TaskRunner, other_than: str = "") -> str | None:
    """The id of the connection on which this runner's worker waits in XREADGROUP."""
    stream = runner.session().store.partitions[0].queue("default").stream
    if not await client.exists(stream):
        return None
    blocked = [one["id"] for one in await client.client_list() if "b" in one["flags"] and one["cmd"] == "xreadgroup"]
    return blocked[0] if len(blocked) == 1 and blocked[0] != other_than else None


async def test_stops_that_race_with_arrivals_strand_nothing(make_runner: Callable[..., TaskRunner]) -> None:
    producer, consumer = make_runner(), make_runner(reservation_timeout=NEVER, num_workers=3)
    declared = producer.declare("quick")
    runs: list[int] = []

    @consumer.task
    async def quick(n: int) -> int:
        runs.append(current_job().deliveries)
        return n

    async with Load(declared) as load:
        for n in range(40):
            async with consumer.start():
                await asyncio.sleep(n % 8 * 0.003)
    async with consumer.start():
        for job in load.accepted:
            await job.wait(20)
    assert runs == [1] * len(load.accepted)


@pytest.mark.parametrize("queues", [1, 3], ids=lambda n: f"{n} queues")
@pytest.mark.parametrize("partitions", [1, 3], ids=lambda n: f"{n} partitions")
async def test_a_stop_hands_back_what_was_being_taken_over_in_that_instant(
    queues: int, partitions: int, make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.asyncio.Redis,
) -> None:  # fmt: skip
    runner, silent = (make_runner(reservation_timeout=0.5, partitions=partitions) for _ in range(2))
    runs: list[int] = []
    names = [f"queue-{n}" for n in range(queues)]
    for name in names:

        @runner.task(name=name, queue=name)
        async def task() -> None:
            runs.append(current_job().deliveries)

    jobs = [await runner.dispatch(name) for name in names for _ in range(40)]
    await swallow(silent, names)
    taken: list[Any] = []
    real = Store.reclaim

    async def reclaim(self: Store, *args: Any, **kwargs: Any) -> Any:
        """Takes over, and doesn't come back with it before the stop."""
        more, arrivals = await real(self, *args, **kwargs)
        if arrivals:
            taken.extend(arrivals)
            await asyncio.sleep(NEVER)
        return more, arrivals

    with monkeypatch.context() as patch:
        patch.setattr(Store, "reclaim", reclaim)
        async with runner.start():
            worker = runner.session().store.options.worker_id
            await eventually(lambda: len(taken) >= partitions)
    assert runs == []
    for partition in silent.session().store.partitions:
        for name in names:
            consumers = await redis_client.xinfo_consumers(partition.queue(name).stream, "taskrunner")
            assert worker.encode() not in [one["name"] for one in consumers], "it left jobs pending"
    async with runner.start():
        for job in jobs:
            await job.wait(20)
        await eventually(lambda: _alone(redis_client, runner))
    assert len(runs) == len(jobs)


async def swallow(runner: TaskRunner, queues: list[str]) -> None:
    """Has all jobs fetched by a worker that is never heard of again."""
    store = (await runner.opened()).store
    for partition in store.partitions:
        await store.prepare(partition, queues)
        assert await store.reader(partition).fetch(queues, 100, None)


async def _alone(client: redis.asyncio.Redis, runner: TaskRunner) -> bool:
    """Whether no consumer is left but this runner's own."""
    counts = [
        len(await client.xinfo_consumers(partition.queue(name).stream, "taskrunner"))
        for partition in runner.session().store.partitions
        for name in await runner.session().store.inspection.queues()
    ]
    return set(counts) <= {0, 1}  # before 7.2 a read that brings nothing makes no consumer

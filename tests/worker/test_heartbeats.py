"""Heartbeats: they renew what is ours, and never what has become another worker's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis.asyncio

from taskrunner import RedisUnavailable, TaskRunner
from taskrunner.envelope import Arrival
from taskrunner.store.heart import Heart
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.keeper import Keeper
from tests.waiting import eventually
from tests.worker.hand import RESERVATION

HOUR = 3_600_000
"""ms"""


async def test_a_heartbeat_keeps_a_job_from_being_taken(make_hand: Any, noop: Any) -> None:
    mine, thief = await make_hand("mine"), await make_hand("thief")
    await noop.dispatch()
    held = await mine.fetch()
    end = time.monotonic() + 3 * RESERVATION
    while time.monotonic() < end:
        assert mine.beat(*held) == []
        assert await thief.reclaim() == []
        await asyncio.sleep(RESERVATION / 10)
    assert await mine.settle(*held) == b"1"


async def test_a_heartbeat_does_not_steal_back_what_was_taken(
    make_hand: Any, noop: Any, redis_client: redis.asyncio.Redis
) -> None:
    mine, thief = await make_hand("mine"), await make_hand("thief")
    job = await noop.dispatch()
    held = await mine.fetch()
    taken = await thief.take_over()
    assert mine.beat(*held) == held
    [row] = await redis_client.xpending_range(mine.stream, "taskrunner", "-", "+", 10)
    assert (row["consumer"], row["times_delivered"]) == (b"thief", 2)
    assert await mine.settle(*held) == b"0"
    assert await thief.settle(*taken) == b"1"
    assert await job.result(10) == "thief"


async def test_a_heartbeat_tells_a_job_that_one_took_over_from_oneself_from_the_run_that_was_lost(
    make_hand: Any, noop: Any
) -> None:
    mine = await make_hand("mine")
    await noop.dispatch()
    held = await mine.fetch()
    taken = await mine.take_over()
    assert [one.deliveries for one in taken] == [2]
    assert mine.beat(*held, *taken) == held
    assert mine.beat(*taken, *held) == held
    assert await mine.settle(*held) == b"0"
    assert await mine.settle(*taken) == b"1"


@pytest.mark.parametrize("count", [1, 2, 3, 250], ids=lambda n: f"{n} held")
async def test_a_heartbeat_finds_the_lost_ones_and_renews_the_others(
    count: int, make_hand: Any, noop: Any, runner: TaskRunner, redis_client: redis.asyncio.Redis
) -> None:
    mine, thief = await make_hand("mine"), await make_hand("thief")
    await runner.dispatch_many([noop.job() for _ in range(count)])
    held = await mine.fetch()
    assert len(held) == count
    lost = held[count // 2 : count // 2 + 1]
    entries = [one.entry_id for one in held]
    await redis_client.xclaim(mine.stream, "taskrunner", "mine", 0, entries, idle=HOUR, justid=True)
    await redis_client.xclaim(mine.stream, "taskrunner", "thief", 0, [lost[0].entry_id])
    assert mine.beat(*held) == lost
    rows = await redis_client.xpending_range(mine.stream, "taskrunner", "-", "+", count)
    renewed = {row["message_id"]: row["time_since_delivered"] < HOUR for row in rows if row["consumer"] == b"mine"}
    assert renewed == {one.entry_id: True for one in held if one not in lost}
    assert {row["times_delivered"] for row in rows if row["consumer"] == b"mine"} <= {1}
    await mine.settle(*held)
    assert await thief.settle(*await thief.store.sweep(thief.keys, "default")) == b"1"


class Broken(Heart):
    """A heart that never reaches its server, and notes when it tried."""

    def __init__(self) -> None:
        self.tried: list[float] = []

    def beat(self, held: Sequence[Arrival], facts: dict[str, Any]) -> list[Arrival]:
        self.tried.append(time.monotonic())
        raise RedisUnavailable("away")

    def close(self) -> None: ...


async def test_however_long_the_server_is_away_no_beat_is_put_off_for_longer_than_its_period() -> None:
    heart = Broken()
    keeper = Keeper(heart, Inventory(1), dict, lambda lost: None, 0.02, 60.0)
    keeper.start()
    try:
        # Pauses that grow to two seconds, as those of other roles do, would take 40 s and more.
        await eventually(lambda: len(heart.tried) > 30)
    finally:
        await keeper.stop()

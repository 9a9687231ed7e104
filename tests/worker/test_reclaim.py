"""Jobs of silent workers are taken over: at their own age, once, and not because everybody was silent for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.envelope import Delivery
from tests.waiting import eventually
from tests.worker.hand import RESERVATION, Hand, end_grace


def names(arrivals: list[Any]) -> set[str]:
    return {one.envelope.task for one in arrivals if isinstance(one, Delivery)}


async def test_a_task_with_a_longer_reservation_is_not_taken_at_the_runners_age(
    make_hand: Any, runner: TaskRunner
) -> None:
    @runner.task
    async def plain() -> None: ...

    @runner.task(reservation_timeout=3 * RESERVATION)
    async def patient() -> None: ...

    silent, other = await make_hand("silent"), await make_hand("other")
    await patient.dispatch()
    await plain.dispatch()
    before = time.monotonic()
    assert len(await silent.fetch()) == 2
    first = await other.take_over()
    assert time.monotonic() - before >= RESERVATION
    second = await other.take_over(*first)
    assert (names(first), names(second)) == ({"plain"}, {"patient"})
    assert time.monotonic() - before >= 3 * RESERVATION
    assert await other.settle(*first, *second) == b"11"


async def test_a_task_with_a_shorter_reservation_is_taken_at_its_own_age(make_hand: Any, runner: TaskRunner) -> None:
    @runner.task
    async def plain() -> None: ...

    @runner.task(reservation_timeout=RESERVATION / 2)
    async def urgent() -> None: ...

    silent, other = await make_hand("silent"), await make_hand("other")
    await plain.dispatch()
    await urgent.dispatch()
    assert len(await silent.fetch()) == 2
    first = await other.take_over()
    assert names(first) == {"urgent"}
    second = await other.take_over(*first)
    assert names(second) == {"plain"}
    assert await other.settle(*first, *second) == b"11"


@pytest.mark.parametrize(
    ("count", "patience"), [(2100, None), (150, 60)], ids=["living ones", "ones with a longer reservation"]
)
async def test_a_dead_job_is_found_behind_more_than_one_look_sees_that_are_not_to_be_taken(
    count: int, patience: float | None, make_hand: Any, runner: TaskRunner
) -> None:
    @runner.task(reservation_timeout=patience)
    async def before() -> None: ...

    @runner.task
    async def behind() -> None: ...

    holder, other = await make_hand("holder"), await make_hand("other")
    await runner.dispatch_many([before.job() for _ in range(count)])
    await behind.dispatch()
    *others, dead = await holder.fetch()
    await asyncio.sleep(RESERVATION)
    taken: list[Any] = []

    async def found() -> bool:
        holder.beat(*others if patience is None else ())
        taken.extend(await other.reclaim(limit=1))
        return bool(taken)

    await eventually(found)
    assert [one.entry_id for one in taken] == [dead.entry_id]
    assert await other.settle(*taken) + await holder.settle(*others) == b"1" * (count + 1)


async def test_a_worker_that_nobody_knows_is_removed_only_when_it_holds_no_job(
    make_hand: Any, noop: Any, redis_client: redis.asyncio.Redis
) -> None:
    unknown, other = await make_hand("unknown"), await make_hand("other")
    job = await noop.dispatch()
    await unknown.fetch()
    await redis_client.zrem(unknown.keys.workers, "unknown")
    other.beat()
    assert await other.reclaim() == []
    assert "unknown" in await consumers(redis_client, other)
    taken = await other.take_over()
    assert "unknown" not in await consumers(redis_client, other)
    assert await other.settle(*taken) == b"1"
    assert await job.result(10) == "other"


async def test_a_worker_that_signs_off_with_a_job_in_hand_leaves_it_to_be_taken(
    make_hand: Any, noop: Any, redis_client: redis.asyncio.Redis
) -> None:
    leaving, other = await make_hand("leaving"), await make_hand("other")
    await noop.dispatch()
    await leaving.fetch()
    assert await leaving.store.leave(leaving.keys, ["default"]) == 1
    assert "leaving" in await consumers(redis_client, other)
    taken = await other.take_over()
    assert await other.settle(*taken) == b"1"
    assert await leaving.store.leave(leaving.keys, ["default"]) == 0
    assert "leaving" not in await consumers(redis_client, other)


async def consumers(client: redis.asyncio.Redis, hand: Hand) -> set[str]:
    return {one["name"].decode() for one in await client.xinfo_consumers(hand.stream, "taskrunner")}


async def test_two_workers_that_look_at_once_take_a_job_once(make_hand: Any, noop: Any, runner: TaskRunner) -> None:
    silent, first, second = [await make_hand(name) for name in ("silent", "first", "second")]
    await runner.dispatch_many([noop.job() for _ in range(50)])
    assert len(await silent.fetch()) == 50
    taken: dict[str, list[Any]] = {"first": [], "second": []}

    async def all_taken() -> bool:
        for hand in (first, second):
            hand.beat(*taken[hand.name])
        found = await asyncio.gather(first.reclaim(limit=7), second.reclaim(limit=7))
        taken["first"] += found[0]
        taken["second"] += found[1]
        return sum(map(len, taken.values())) >= 50

    await eventually(all_taken)
    assert len({one.entry_id for one in taken["first"] + taken["second"]}) == 50
    assert await first.settle(*taken["first"]) + await second.settle(*taken["second"]) == b"1" * 50


async def test_a_job_whose_reservation_is_shorter_than_the_runners_heartbeat_runs_once(
    make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    runners = [make_runner(reservation_timeout=8) for _ in range(2)]
    runs: list[int] = []
    for number, runner in enumerate(runners):

        @runner.task(name="long", reservation_timeout=1)
        async def long(number: int = number) -> int:
            runs.append(number)
            await asyncio.sleep(4)
            return number

    async with runners[0].start(), runners[1].start():
        await runners[0].dispatch("long")
        await eventually(lambda: runs)
        await end_grace(redis_client, runners[0].session().store.partitions[0])
        job = await runners[0].dispatch("long")
        await job.wait(20)
    assert len(runs) == 2


async def test_a_worker_whose_slots_are_all_taken_takes_over_one_job_and_no_other_before_that_runs(
    make_hand: Any, make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    runner = make_runner(reservation_timeout=RESERVATION, num_workers=1)
    go, runs = asyncio.Event(), list[int]()

    @runner.task
    async def work(n: int) -> None:
        runs.append(n)
        if n == 0:
            await go.wait()

    silent = await make_hand("silent")
    async with runner.start():
        await work.dispatch(0)
        await eventually(lambda: runs)
        jobs = [await work.dispatch(n) for n in (1, 2, 3)]
        assert len(await silent.fetch()) == 3

        async def held_by_silent() -> int:
            return len(await redis_client.xpending_range(silent.stream, "taskrunner", "-", "+", 10, "silent"))

        async def one_was_taken() -> bool:
            return await held_by_silent() == 2

        await eventually(one_was_taken)
        await asyncio.sleep(4 * RESERVATION)  # time enough for more, for one that takes more
        assert await held_by_silent() == 2
        go.set()
        for job in jobs:
            await job.wait(20)
    assert sorted(runs) == [0, 1, 2, 3]

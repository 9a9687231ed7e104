"""Jobs of silent workers are taken over: at their own age, once, and not because everybody was silent for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.envelope import Delivery
from tests.waiting import eventually
from tests.worker.hand import RESERVATION, end_grace


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

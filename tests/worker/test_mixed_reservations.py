"""A deploy that changes the reservation has workers with both for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis.asyncio

from taskrunner import TaskRunner
from tests.waiting import eventually


async def test_a_short_reservation_takes_nothing_from_a_living_worker_with_a_long_one(
    make_runner: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    old, new = make_runner(reservation_timeout=12), make_runner(reservation_timeout=0.5)
    runs: list[str] = []
    running, finish = asyncio.Event(), asyncio.Event()

    @old.task(name="wait", ignore_result=False)
    async def wait_old() -> str:
        runs.append("old")
        running.set()
        await finish.wait()
        return "old"

    @new.task(name="wait")
    async def wait_new() -> str:
        runs.append("new")
        return "new"

    async with old.start():
        job = await wait_old.dispatch()
        await running.wait()
        async with new.start():
            janitor = new.session().store.partitions[0].janitor
            await redis_client.hset(janitor, "grace", 0)  # the first worker of a namespace begins with one
            turns: set[bytes] = set()

            async def others_could_have_taken_it() -> bool:
                turns.add(await redis_client.hget(janitor, "next:default"))
                return len(turns) > 30  # passes, 56 ms apart at least: three reservations of the new one

            await eventually(others_could_have_taken_it)
            finish.set()
            assert await job.result(10) == "old"
    assert runs == ["old"]

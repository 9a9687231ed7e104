"""A deploy that changes the reservation has workers with both for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskrunner import TaskRunner
from tests.waiting import eventually


async def test_a_short_reservation_takes_nothing_from_a_living_worker_with_a_long_one(
    make_runner: Callable[..., TaskRunner],
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
            reclaim = new.session().store
            partition = reclaim.partitions[0]
            passes = 0

            async def four_reservations_of_the_new_one_are_over() -> bool:
                nonlocal passes
                info = await reclaim.inspection.look(partition, job.id)
                passes += info is not None
                return passes > 200

            await eventually(four_reservations_of_the_new_one_are_over)
            finish.set()
            assert await job.result(10) == "old"
    assert runs == ["old"]

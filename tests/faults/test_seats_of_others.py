"""Who waits in line and leaves it frees no seat; who waits for something else than a seat holds none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job
from tests.faults.test_lock_holders import nothing_is_left
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually


async def held(fleet: Fleet) -> Job[Any]:
    """A job that runs here and holds the lock, until its gate is open."""
    job = await fleet.tasks.hold.with_options(lock_key="one").dispatch("gate")
    await fleet.tasks.seen(1, "start", job=job.id)
    return job


async def still_waits(fleet: Fleet, job: Job[Any]) -> None:
    """After a sign of life from those who would run it."""
    await (await fleet.tasks.quick.dispatch("a sign of life")).wait(20)
    assert await job.status() == "blocked"
    assert not fleet.journal.lines("start", job=job.id)


async def members(client: redis.asyncio.Redis, fleet: Fleet) -> list[tuple[bytes, float]]:
    """What stands in the leases."""
    leases = [key async for key in client.scan_iter(match=f"{fleet.keys.prefix}lease:*")]
    return [member for lease in leases for member in await client.zrange(lease, 0, -1, withscores=True)]


# -- T13: freed by others ----------------------------------------------------------------------------------------------


async def _is_empty(client: redis.asyncio.Redis, lanes: list[bytes]) -> bool:
    return not any([await client.xlen(lane) for lane in lanes])


async def test_a_waiter_that_ends_while_it_waits_frees_no_seat(fleet: Fleet, own_server: Server) -> None:
    locked = fleet.tasks.quick.with_options(lock_key="one")
    async with fleet.runner.start():
        holder = await held(fleet)
        gone = [await locked.dispatch(n) for n in range(3)]
        last = await locked.dispatch("last")
        assert await gone[0].cancel()
        assert await fleet.runner.delete(gone[1].id)
        await still_waits(fleet, last)
        assert await gone[2].cancel()
        await still_waits(fleet, last)
        fleet.tasks.open_gate("gate")
        await holder.wait(20)
        assert await last.result(20) == "last"
    await nothing_is_left(fleet, own_server)


async def test_a_waiter_that_expires_lets_the_next_one_go(fleet: Fleet, own_server: Server) -> None:
    quick = fleet.tasks.quick
    async with fleet.runner.start():
        holder = await held(fleet)
        late = await quick.with_options(lock_key="one", expires=0.05).dispatch("late")
        last = await quick.with_options(lock_key="one").dispatch("last")
        await asyncio.sleep(0.06)
        await still_waits(fleet, last)
        fleet.tasks.open_gate("gate")
        await holder.wait(20)
        assert await last.result(20) == "last"
        assert await late.status() == "expired"
    await nothing_is_left(fleet, own_server)


# -- T51: who holds none -----------------------------------------------------------------------------------------------


WAYS = ("in a paused queue", "in a queue that nobody reads", "for its time", "for its retry", "in a low lane")


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_that_waits_for_something_else_lets_others_of_its_key_run(
    way: str, make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, num_workers=1)
    quick = fleet.tasks.quick.with_options(lock_key="one")
    async with own_server.client() as client:
        if way == "in a paused queue":
            await fleet.runner.pause("aside")
        task, options = {
            "for its time": (fleet.tasks.nap, {"delay": 300}),
            "for its retry": (fleet.tasks.rude.stumble, {}),
            "in a low lane": (fleet.tasks.nap, {"priority": "low"}),
        }.get(way, (fleet.tasks.nap, {"queue": "aside"}))
        arguments = () if way == "for its retry" else (0,)
        waiting = await task.with_options(lock_key="one", **options).dispatch(*arguments)
        async with _consuming(fleet, way):
            if way == "for its retry":
                await eventually(lambda: _is(waiting, "retrying"))
            others = [await quick.dispatch(n) for n in range(5)]
            assert [await job.result(20) for job in others] == list(range(5))
            if way == "in a low lane":
                await waiting.wait(20)
            else:
                assert await waiting.status() in ("queued", "scheduled", "retrying")
                assert not [place for _, place in await members(client, fleet) if place < 0]
                assert await waiting.cancel()
                await fleet.runner.resume()
    await nothing_is_left(fleet, own_server)


def _consuming(fleet: Fleet, way: str) -> Any:
    return fleet.runner.start(queues=["default", "aside"] if way == "in a paused queue" else ["default"])


async def _is(job: Job[Any], status: str) -> bool:
    return await job.status() == status


async def test_however_many_wait_for_a_lock_one_is_in_the_hands_of_a_worker(fleet: Fleet, own_server: Server) -> None:
    locked = fleet.tasks.quick.with_options(lock_key="one")
    async with own_server.client() as client, fleet.runner.start():
        await held(fleet)
        line = await fleet.runner.dispatch_many([locked.job(n) for n in range(500)])
        plain = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(50)])
        assert [await job.result(20) for job in plain] == list(range(50))
        lanes = [key async for key in client.scan_iter(match=f"{fleet.keys.prefix}stream:*")]
        assert sum([await client.xlen(lane) for lane in lanes]) == 1
        fleet.tasks.open_gate("gate")
        assert [await job.result(30) for job in line] == list(range(500))
        await eventually(lambda: _is_empty(client, lanes))
    starts = [run.job for run in fleet.journal.lines("start") if run.job in {job.id for job in line}]
    assert starts == [job.id for job in line]
    await nothing_is_left(fleet, own_server)

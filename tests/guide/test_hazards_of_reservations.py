"""Hazards of whoever holds a job: what ``test_hazards.py`` says under 1 to 5."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    JobContext,
    TaskRunner,
    current_job,
)
from taskrunner.envelope import Arrival
from taskrunner.store.heart import Heart
from taskrunner.store.keys import PartitionKeys
from taskrunner.worker import inventory
from tests.programs import Program
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
RESERVATION = 0.8


async def elsewhere(runner: TaskRunner, function: Callable[..., Any], ending: asyncio.Event) -> None:
    """Another worker of the fleet, which would take over what looks abandoned."""
    runner.task(function)
    async with runner.start():
        await ending.wait()


async def test_hazard_1_a_call_that_blocks_the_event_loop_beyond_the_reservation_runs_once(
    make_runner: MakeRunner, url: str, namespace: str, program: Callable[..., Program]
) -> None:
    runner = make_runner(reservation_timeout=RESERVATION)

    @runner.task(name="block")
    async def block(ctx: JobContext) -> int:
        blocking_call()
        return ctx.deliveries

    other = program(
        f"""
        import asyncio, os, time
        from taskrunner import JobContext, TaskRunner

        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout={RESERVATION})

        @runner.task
        async def block(ctx: JobContext) -> int:
            time.sleep({2.5 * RESERVATION})
            return ctx.deliveries

        async def main():
            async with runner.start():
                while not runner.ready:
                    await asyncio.sleep(0.01)
                print("ready")
                await asyncio.to_thread(input)

        asyncio.run(main())
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    assert await other.line() == "ready"
    async with runner.start():
        await eventually(lambda: runner.ready)
        # Whichever of the two gets it is blocked, and the other one would take it over.
        assert await (await block.dispatch()).result(timeout=20) == 1
    assert other.process.stdin is not None
    other.process.stdin.write("\n")
    other.process.stdin.flush()
    assert await other.ended() == 0


def blocking_call() -> None:
    time.sleep(2.5 * RESERVATION)


async def test_hazard_2_every_other_heartbeat_may_be_lost_without_anybody_noticing(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = Heart.beat, list[int]()

    def beat(self: Heart, held: Sequence[Arrival], facts: dict[str, Any]) -> list[Arrival]:
        tried.extend([1] * bool(held))
        return [] if held and len(tried) % 2 else real(self, held, facts)

    runner, other = make_runner(reservation_timeout=1.5), make_runner(reservation_timeout=1.5)
    ran, ending = list[int](), asyncio.Event()

    async def long() -> None:
        ran.append(current_job().deliveries)
        await asyncio.sleep(4)

    task = runner.task(long)
    async with runner.start():
        job = await task.dispatch()
        await eventually(lambda: ran)
        monkeypatch.setattr(Heart, "beat", beat)
        bystander = asyncio.create_task(elsewhere(other, long, ending))
        await job.wait(timeout=20)
        ending.set()
        await bystander
    assert ran == [1]
    assert len(tried) >= 4


async def test_hazard_3_what_was_fetched_and_has_not_started_is_kept_alive_too(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory.Meter, "rate", lambda self, now: 20 / inventory.READ_AHEAD)
    runner = make_runner(reservation_timeout=RESERVATION, num_workers=1)
    other, ending = make_runner(reservation_timeout=RESERVATION), asyncio.Event()
    release, deliveries, stolen = asyncio.Event(), list[int](), list[int]()

    @runner.task
    async def hold() -> None:
        await release.wait()

    @runner.task(name="quick")
    async def here() -> None:
        deliveries.append(current_job().deliveries)

    async def quick() -> None:
        stolen.append(1)

    await hold.dispatch()
    async with runner.start():
        jobs = await runner.dispatch_many([here.job() for _ in range(20)])
        await eventually(lambda: _all_in_hand(jobs))
        bystander = asyncio.create_task(elsewhere(other, quick, ending))
        await asyncio.sleep(2.5 * RESERVATION)
        release.set()
        for job in jobs:
            await job.wait(timeout=20)
        ending.set()
        await bystander
    assert (deliveries, stolen) == ([1] * 20, [])


async def _all_in_hand(jobs: Sequence[Any]) -> bool:
    return {str(await job.status()) for job in jobs} == {"running"}


async def test_hazard_4_a_stop_that_drains_for_longer_than_the_reservation_repeats_nothing(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(reservation_timeout=RESERVATION, shutdown_timeout=20)
    other, ran, ending = make_runner(reservation_timeout=RESERVATION), list[int](), asyncio.Event()

    async def drain() -> None:
        ran.append(current_job().deliveries)
        await asyncio.sleep(2.5 * RESERVATION)

    task = runner.task(drain)
    async with runner.start():
        job = await task.dispatch()
        await eventually(lambda: ran)
        bystander = asyncio.create_task(elsewhere(other, drain, ending))
        await eventually(lambda: other.ready)
    assert str(await other.job(job.id).status()) == "succeeded"
    ending.set()
    await bystander
    assert ran == [1]


async def test_hazard_5_the_end_of_a_run_that_has_lost_its_job_is_refused(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    stream = PartitionKeys("taskrunner", namespace, 0).queue("default").stream
    runner, running, release = make_runner(reservation_timeout=1), asyncio.Event(), asyncio.Event()
    ran = list[int]()

    @runner.task
    async def work(ctx: JobContext) -> str:
        ran.append(ctx.fence)
        running.set()
        if len(ran) == 1:
            await release.wait()
        return f"run {ran.index(ctx.fence) + 1}"

    async with runner.start():
        job = await work.dispatch()
        await running.wait()
        [entry] = await redis_client.xpending_range(stream, "taskrunner", "-", "+", 1)
        await redis_client.xclaim(stream, "taskrunner", "somebody-else", 0, [entry["message_id"]])
        release.set()
        assert await job.result(timeout=20) == "run 2"
    assert ran == sorted(set(ran))
    assert (await runner.stats()).per_task["work"].succeeded == 1

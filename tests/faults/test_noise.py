"""What happens to a busy server every day: scripts are flushed, connections are killed. No job must notice."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from tests.faults.load import Load
from tests.faults.workshop import Fleet
from tests.servers import Server

numbers = itertools.count()
Disturbance = Callable[[redis.asyncio.Redis], Awaitable[object]]


@asynccontextmanager
async def again_and_again(client: redis.asyncio.Redis, disturb: Disturbance, pause: float) -> AsyncIterator[list[int]]:
    """Does this all the time; the list counts."""
    ended, times = asyncio.Event(), list[int]()

    async def repeat() -> None:
        while not ended.is_set():
            await disturb(client)
            times.append(len(times))
            await asyncio.sleep(pause)

    repeating = asyncio.create_task(repeat())
    yield times
    ended.set()
    await repeating


async def flush_scripts(client: redis.asyncio.Redis) -> None:
    await client.script_flush()


async def push_scripts_out(client: redis.asyncio.Redis) -> None:
    """Since Redis 7.4 and Valkey 8 a server keeps 500 scripts that came by EVAL, and forgets the oldest for others."""
    async with client.pipeline(transaction=False) as pipeline:
        for _ in range(600):
            pipeline.eval(f"return {next(numbers)}", 0)
        await pipeline.execute()


@pytest.mark.parametrize("forget", [flush_scripts, push_scripts_out])
async def test_scripts_that_are_forgotten_all_the_time_are_sent_again_and_nobody_notices(
    forget: Disturbance, fleet: Fleet, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_server.client() as client, fleet.runner.start():
        with caplog.at_level(logging.DEBUG, "taskrunner"):
            async with again_and_again(client, forget, 0.005) as flushes:
                async with Load(fleet.tasks.quick) as load:
                    await load.more(200)
                    while len(flushes) <= 20:
                        await load.more(20)
                for job in load.accepted:
                    await job.wait(20)
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert (await fleet.figures("quick")).succeeded == len(load.accepted)
    assert len(fleet.journal.lines("start")) == len(load.accepted)


async def kill_connections(client: redis.asyncio.Redis) -> None:
    await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def test_connections_that_are_killed_all_the_time_cost_no_job(fleet: Fleet, own_server: Server) -> None:
    worker = await fleet.worker()
    async with own_server.client() as client, fleet.runner.start():
        async with again_and_again(client, kill_connections, 0.1) as kills:
            async with Load(fleet.tasks.quick) as load:
                await load.more(100)
                while len(kills) < 50:
                    await load.more(20)
            late = [await fleet.tasks.quick.with_options(delay=0.1).dispatch("late") for _ in range(20)]
        for job in load.accepted + late:
            await job.wait(20)
        figures = await fleet.figures("quick")
        assert (figures.succeeded, figures.waiting) == (len(load.accepted) + 20, 0)
    await fleet.end(worker)


async def test_clients_that_are_unblocked_by_somebody_go_on(fleet: Fleet, own_server: Server) -> None:
    async with own_server.client() as client, fleet.runner.start():

        async def unblock(client: redis.asyncio.Redis) -> None:
            for one in await client.client_list():
                if "b" in one["flags"]:
                    await client.client_unblock(one["id"], error=True)

        async with again_and_again(client, unblock, 0.02) as times, Load(fleet.tasks.quick) as load:
            await load.more(200)
        for job in load.accepted:
            await job.wait(20)
        assert times
    assert len(fleet.journal.lines("start")) == len(load.accepted)

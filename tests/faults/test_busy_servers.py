"""Servers that are there and have no time: they load their data, run somebody's script, or have too many clients.

Nothing is to be done but to wait; no job fails for it, and none runs twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio
import redis.exceptions

from taskrunner import TaskRunner
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

BUSY = """
local began = redis.call('TIME')
repeat
  local now = redis.call('TIME')
until now[1] - began[1] > tonumber(ARGV[1])
return 'done'
"""
"""A stranger's script, which takes so many seconds, or up to one more."""
LOADING = 3.0
"""Seconds that the server below loads its data: three reservations."""
KEYS = 8_000
"""While it loads a file of commands it looks at its clients once per 1,024 of them."""


@pytest.fixture
async def slow_starting_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that loads its data slowly, and says so meanwhile."""
    delay = f"{LOADING / KEYS * 1e6:.0f}"
    async with Server(tmp_path / "slow", "--key-load-delay", delay, persistent=True) as server:
        async with server.client() as client, client.pipeline() as pipe:
            for n in range(KEYS):
                pipe.set(f"foreign:{n}", "x")
            await pipe.execute()
        yield server


async def says_loading(server: Server) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError:
        return False
    writer.write(b"PING\r\n")
    try:
        return (await reader.readline()).startswith(b"-LOADING")
    except OSError:
        return False
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_server_that_loads_its_data_is_waited_for_and_no_job_runs_twice(
    slow_starting_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(slow_starting_server.url)
    tasks, told = fleet.tasks, list[str]()
    fleet.runner.on_error(lambda role, error: told.append(f"{role}: {error!r}"))
    worker = await fleet.worker()
    job = await tasks.hold.dispatch("gate")
    [start] = await tasks.seen(1, "start")
    async with fleet.runner.start():  # which would take it
        await eventually(lambda: fleet.runner.ready)
        slow_starting_server.kill()
        starting = asyncio.create_task(slow_starting_server.start())
        await eventually(lambda: says_loading(slow_starting_server))
        meanwhile = asyncio.create_task(tasks.quick.dispatch("meanwhile"))
        await eventually(lambda: not fleet.runner.ready)
        await starting
        assert await (await meanwhile).result(20) == "meanwhile"
        tasks.open_gate("gate")
        assert await job.result(20) == start.pid
    assert len(tasks.journal.lines("start", job=job.id)) == 1
    assert told == []
    await fleet.end(worker)


async def test_a_strangers_script_is_waited_for_and_never_killed(
    fleet: Fleet, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    tasks, told = fleet.tasks, list[str]()
    fleet.runner.on_error(lambda role, error: told.append(f"{role}: {error!r}"))
    worker = await fleet.worker()
    job = await tasks.hold.dispatch("gate")
    [start] = await tasks.seen(1, "start")
    async with own_server.client() as client, own_server.client() as other, fleet.runner.start():
        await eventually(lambda: fleet.runner.ready)
        await client.config_set("lua-time-limit", 100)  # busy-reply-threshold since 7.0, which knows both names
        script = asyncio.create_task(client.eval(BUSY, 0, 3))
        await eventually(lambda: says_busy(other))
        meanwhile = asyncio.create_task(tasks.quick.dispatch("meanwhile"))
        assert await script == b"done", "a script that is killed raises"
        assert await (await meanwhile).result(20) == "meanwhile"
        tasks.open_gate("gate")
        assert await job.result(20) == start.pid
    assert "BUSY" in caplog.text
    assert len(tasks.journal.lines("start", job=job.id)) == 1
    assert told == []
    await fleet.end(worker)


async def says_busy(client: redis.asyncio.Redis) -> bool:
    try:
        await client.ping()
    except redis.exceptions.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


async def test_when_nobody_may_connect_any_more_those_who_are_connected_keep_their_jobs(
    fleet: Fleet, own_server: Server, make_runner: Callable[..., TaskRunner]
) -> None:
    tasks, worker = fleet.tasks, await fleet.worker()
    job = await tasks.hold.dispatch("gate")
    [start] = await tasks.seen(1, "start")
    late = make_runner(own_server.url).declare("quick")
    async with own_server.client() as client, fleet.runner.start():
        await eventually(lambda: fleet.runner.ready)
        await (await tasks.quick.dispatch()).wait(20)  # by now all have the connections that they need
        await client.config_set("maxclients", (await client.info("clients"))["connected_clients"])
        refused = await rejected(client)
        waiting = asyncio.create_task(late.dispatch("late"))
        began = time.monotonic()
        await asyncio.sleep(3)  # three reservations
        # Between two attempts there are a tenth to two seconds; a client that storms makes thousands of them.
        assert 1 <= await rejected(client) - refused < 20 * (time.monotonic() - began)
        assert not waiting.done()
        await client.config_set("maxclients", 1_000)
        assert await (await waiting).result(20) == "late"
        tasks.open_gate("gate")
        assert await job.result(20) == start.pid
    assert len(tasks.journal.lines("start", job=job.id)) == 1
    await fleet.end(worker)


async def rejected(client: redis.asyncio.Redis) -> int:
    return int((await client.info("stats"))["rejected_connections"])


async def test_a_worker_that_can_not_connect_at_its_start_goes_on_trying(
    own_server: Server, make_fleet: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(own_server.url)
    async with own_server.client() as client:
        await client.config_set("maxclients", (await client.info("clients"))["connected_clients"])
        with caplog.at_level(logging.DEBUG, "taskrunner"):
            async with fleet.runner.start():
                await eventually(lambda: "max number of clients" in caplog.text)
                assert not fleet.runner.ready
                await client.config_set("maxclients", 1_000)
                assert await (await fleet.tasks.quick.dispatch("in")).result(20) == "in"

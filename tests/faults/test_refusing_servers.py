"""Servers that answer and refuse: full, demoted, without replicas. And errors of Redis that are none of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from taskrunner import QueueFull, RedisUnavailable, TaskRunner
from tests.faults.workshop import Fleet
from tests.servers import Server, free_port
from tests.waiting import eventually


async def make_full(client: redis.asyncio.Redis) -> None:
    await client.config_set("maxmemory", 1)


async def end_full(client: redis.asyncio.Redis) -> None:
    await client.config_set("maxmemory", 0)


async def want_replicas(client: redis.asyncio.Redis) -> None:
    await client.config_set("min-replicas-to-write", 1)


async def want_none(client: redis.asyncio.Redis) -> None:
    await client.config_set("min-replicas-to-write", 0)


async def demote(client: redis.asyncio.Redis) -> None:
    await client.execute_command("REPLICAOF", "127.0.0.1", free_port())


async def promote(client: redis.asyncio.Redis) -> None:
    await client.execute_command("REPLICAOF", "NO", "ONE")


async def fail_to_save(client: redis.asyncio.Redis) -> None:
    """A folder stands where the snapshot should be written, as if the disk were full or read-only."""
    _data(await client.config_get("dir")).mkdir()
    await client.config_set("save", "3600 1")
    await _save(client, "err")
    with pytest.raises(redis.exceptions.ResponseError, match="MISCONF"):
        await client.set("written", "never")


async def save_again(client: redis.asyncio.Redis) -> None:
    _data(await client.config_get("dir")).rmdir()
    await _save(client, "ok")


def _data(reply: dict[str, str]) -> Path:
    return Path(reply["dir"]) / "dump.rdb"


async def _save(client: redis.asyncio.Redis, status: str) -> None:
    async def saved() -> bool:
        persistence = await client.info("persistence")
        if not persistence["rdb_bgsave_in_progress"] and persistence["rdb_last_bgsave_status"] != status:
            await client.bgsave()
        return bool(persistence["rdb_last_bgsave_status"] == status)

    await eventually(saved)


async def test_a_full_server_refuses_new_jobs_at_once_and_records_those_that_run(
    fleet: Fleet, own_server: Server
) -> None:
    async with own_server.client() as client, fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        await make_full(client)
        length = await client.xlen(fleet.stream)
        with pytest.raises(QueueFull):
            async with asyncio.timeout(5):
                await fleet.tasks.quick.dispatch()
        assert await client.xlen(fleet.stream) == length
        fleet.tasks.open_gate("gate")
        await eventually(lambda: _none_pending(fleet, client))
        await end_full(client)
        await running.wait(10)
        assert await (await fleet.tasks.quick.dispatch("room")).result(10) == "room"
    assert len(fleet.journal.lines("start", job=running.id)) == 1


async def test_on_a_full_server_heartbeats_and_promotions_go_on(fleet: Fleet, own_server: Server) -> None:
    async with own_server.client() as client, fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        due = await fleet.tasks.quick.with_options(delay=2).dispatch()
        await fleet.tasks.seen(1, "start")
        await make_full(client)
        alive = (await client.zrange(fleet.keys.workers, 0, 0, withscores=True))[0][1]

        async def alive_for_two_reservations_more() -> bool:
            return bool((await client.zrange(fleet.keys.workers, 0, 0, withscores=True))[0][1] > alive + 2000)

        await eventually(alive_for_two_reservations_more)
        await fleet.tasks.seen(1, "end", job=due.id)
        await end_full(client)
        fleet.tasks.open_gate("gate")
        await running.wait(10)
    assert len(fleet.journal.lines("start", job=running.id)) == 1


async def _none_pending(fleet: Fleet, client: redis.asyncio.Redis) -> bool:
    return await fleet.pending(client) == 0


@pytest.mark.parametrize(
    ("break_it", "mend_it"), [(want_replicas, want_none), (fail_to_save, save_again), (demote, promote)]
)
async def test_a_server_that_may_not_write_is_waited_for(
    break_it: Any, mend_it: Any, fleet: Fleet, own_server: Server
) -> None:
    told: list[str] = []
    fleet.runner.on_error(lambda role, error: told.append(f"{role}: {error!r}"))
    async with own_server.client() as client, fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        await break_it(client)
        fleet.tasks.open_gate("gate")
        meanwhile = asyncio.create_task(fleet.tasks.quick.dispatch("meanwhile"))
        await eventually(lambda: not fleet.runner.ready)
        assert not meanwhile.done()
        await mend_it(client)
        assert await (await meanwhile).result(20) == "meanwhile"
        await running.wait(20)
    assert len(fleet.journal.lines("start")) == 2
    assert told == []


async def test_a_replica_is_waited_for_until_it_is_the_primary(
    own_server: Server, tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    before = make_fleet(own_server.url)
    waiting = await before.tasks.quick.dispatch("dispatched to the primary")
    async with Server(tmp_path / "replica") as replica, replica.client() as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", own_server.port)
        await eventually(lambda: _has_copied(client, before))
        fleet = make_fleet(replica.url)
        worker = await fleet.worker()
        async with fleet.runner.start():
            meanwhile = asyncio.create_task(fleet.tasks.quick.dispatch("meanwhile"))
            await eventually(lambda: "READONLY" in fleet.log(worker) or "read only" in fleet.log(worker))
            assert not meanwhile.done()
            assert not fleet.runner.ready
            await promote(client)
            assert await (await meanwhile).result(20) == "meanwhile"
            assert await fleet.runner.job(waiting.id).result(20) == "dispatched to the primary"
            await eventually(lambda: fleet.runner.ready)
        await fleet.end(worker)
        assert len(fleet.journal.lines("start")) == 2
        assert "Traceback" not in fleet.log(worker)


async def _has_copied(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    return bool(await client.exists(fleet.stream))


@pytest.mark.parametrize(
    "error", [RedisUnavailable, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, ConnectionResetError],
    ids=lambda error: f"{error.__module__}.{error.__name__}",
)  # fmt: skip
async def test_an_error_of_redis_inside_a_task_is_the_tasks_own(error: type[Exception], runner: TaskRunner) -> None:
    told: list[str] = []
    runner.on_error(lambda role, error: told.append(role))
    runs: list[int] = []

    @runner.task(max_retry=1, backoff=lambda attempt: 0)
    async def flaky() -> str:
        runs.append(len(runs))
        if len(runs) == 1:
            raise error("the task's own connection broke")
        return "done"

    async with runner.start():
        job = await flaky.dispatch()
        assert await job.result(10) == "done"
        assert (await job.info()).attempts == 2
    assert told == []

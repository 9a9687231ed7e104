"""What an accepted dispatch means in each durability, and who refuses to promise it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import DispatchUncertain, RedisConfigurationError, Task, TaskOptionError, TaskRunner
from taskrunner.store.confirm import Fsynced
from taskrunner.store.keys import Keyspace
from tests.servers import KINDS, Server, missing, obtain
from tests.waiting import eventually

WITH_WAITAOF = ("valkey-9.1", "redis-8.2")
WITHOUT_WAITAOF = ("redis-6.2", "redis-7.0")
RIGHTS = (
    "~taskrunner:* resetchannels &taskrunner:* -@all +ping +time +client +eval +evalsha +type "
    "+exists +get +set +del +unlink +pexpire +hset +hget +hdel +hincrby +sadd +xadd +xlen"
)
"""A user who may dispatch."""


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers: ``await start("always", kind="redis-7.0")`` has an append-only file, ``await start()`` none."""
    started: list[Server] = []

    async def begin(fsync: str = "", *arguments: str, kind: str = "valkey-9.1") -> Server:
        with missing():
            obtain(kind)
        folder = tmp_path / f"server-{len(started)}"
        server = Server(folder, *arguments, persistent=bool(fsync), fsync=fsync or "no", kind=kind)
        started.append(server)
        await server.start()
        return server

    yield begin
    for server in started:
        server.kill()


async def follow(start: Callable[..., Any], primary: Server) -> Server:
    """A replica, when it follows."""
    await primary.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    replica: Server = await start("", "--replicaof", "127.0.0.1", str(primary.port), kind=primary.kind)

    async def follows() -> bool:
        return bool((await primary.command("ROLE"))[2])

    await eventually(follows)
    return replica


def echo_of(runner: TaskRunner) -> Task[..., Any]:
    @runner.task
    async def echo(value: int = 0) -> int:
        return value

    return echo


def stream(namespace: str) -> str:
    return Keyspace("taskrunner", namespace, 1).partitions[0].queue("default").stream


async def calls(client: redis.asyncio.Redis, command: str) -> int:
    """How often a server was asked this."""
    figures = await client.info("commandstats")
    return int(figures.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# -- what is said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["disk", "FSYNCED", "", None, 2, True, ["memory"]])
async def test_another_word_is_refused(wrong: Any, make_runner: Callable[..., TaskRunner]) -> None:
    with pytest.raises(TaskOptionError, match="durability must be 'memory', 'replicated' or 'fsynced'"):
        make_runner(durability=wrong)
    runner = make_runner()
    with pytest.raises(TaskOptionError, match="'echo': durability must be"):
        echo_of(runner).with_options(durability=wrong)


async def test_a_dispatch_overrides_the_runner(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner]
) -> None:
    server = await start("always")
    runner = make_runner(server.url, durability="fsynced")
    echo = echo_of(runner)
    async with server.client() as client:
        await echo.with_options(durability="memory").dispatch(1)
        await runner.with_options(durability="memory").dispatch("echo", 2)
        assert await calls(client, "waitaof") == 0
        await echo.dispatch(3)
        assert await calls(client, "waitaof") == 2, "once to know that the server can do it, and once for the job"
        await runner.dispatch_many([echo.with_options(durability="memory").job(4)])
        assert await calls(client, "waitaof") == 2


# -- replicated -----------------------------------------------------------------------------------------------


async def test_a_replicated_job_stands_on_the_replica_when_its_dispatch_returns(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    primary = await start()
    replica = await follow(start, primary)
    echo = echo_of(make_runner(primary.url, durability="replicated"))
    async with replica.client() as client:
        for count in range(1, 51):
            await echo.dispatch()
            assert await client.xlen(stream(namespace)) == count


async def test_replicated_is_refused_without_a_replica_and_taken_once_there_is_one(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    primary = await start()
    echo = echo_of(make_runner(primary.url, durability="replicated"))
    with pytest.raises(RedisConfigurationError, match="needs a replica"):
        await echo.dispatch()
    async with primary.client() as client:
        assert not await client.exists(stream(namespace)), "nothing was written"
        await follow(start, primary)
        await echo.dispatch()
        assert await client.xlen(stream(namespace)) == 1


async def test_who_may_not_ask_for_the_role_is_told_by_the_counts(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    primary = await start()
    await primary.command("ACL", "SETUSER", "clerk", "on", ">pass", *RIGHTS.split(), "+wait")
    await follow(start, primary)
    url = primary.url.replace("//", "//clerk:pass@")
    echo = echo_of(make_runner(url, durability="replicated"))
    await echo.dispatch()
    assert await primary.command("XLEN", stream(namespace)) == 1


async def test_nobody_waits_for_the_confirmation_of_others(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner]
) -> None:
    primary = await start()
    replica = await follow(start, primary)
    echo = echo_of(make_runner(primary.url))
    safe = echo.with_options(durability="replicated")
    await safe.dispatch()
    replica.pause()
    waiting = asyncio.ensure_future(safe.dispatch())
    async with primary.client() as client:

        async def blocked() -> bool:
            return bool((await client.info("clients"))["blocked_clients"])

        await eventually(blocked)
    for _ in range(20):
        await echo.dispatch()
    assert not waiting.done()
    replica.resume()
    await waiting


# -- fsynced --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_fsynced_is_taken_by_every_server_that_syncs_always(
    kind: str, start: Callable[..., Any], make_runner: Callable[..., TaskRunner]
) -> None:
    server = await start("always", kind=kind)
    runner = make_runner(server.url, durability="fsynced")
    echo = echo_of(runner)
    async with runner.start():
        jobs = [await echo.dispatch(1), *await runner.dispatch_many([echo.job(2), echo.job(3)])]
        jobs.append(await echo.with_options(delay=0.05).dispatch(4))
        assert [await job.result(20) for job in jobs] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", WITH_WAITAOF)
async def test_fsynced_waits_for_the_disk_that_is_synced_each_second(
    kind: str, start: Callable[..., Any], make_runner: Callable[..., TaskRunner]
) -> None:
    server = await start("everysec", kind=kind)
    echo = echo_of(make_runner(server.url))
    await echo.dispatch()
    async with server.client() as client:
        for _ in range(3):
            await echo.with_options(durability="fsynced").dispatch()
        assert await calls(client, "waitaof") == 4


@pytest.mark.parametrize("kind", WITH_WAITAOF)
async def test_a_server_that_never_syncs_confirms_nothing(
    kind: str,
    start: Callable[..., Any],
    make_runner: Callable[..., TaskRunner],
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fsynced, "command", (*Fsynced.command[:3], 300))
    server = await start("no", kind=kind)
    runner = make_runner(server.url, durability="fsynced")
    echo = echo_of(runner)
    with pytest.raises(DispatchUncertain, match="on its disk") as raised:
        await echo.dispatch(7)
    async with runner.start():
        assert await runner.job(raised.value.job_id).result(20) == 7, "it was written, and is an ordinary job"


@pytest.mark.parametrize("kind", KINDS)
async def test_fsynced_is_refused_without_an_append_only_file_and_nothing_is_written(
    kind: str, start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    server = await start(kind=kind)
    runner = make_runner(server.url)
    echo = echo_of(runner)
    safe = echo.with_options(durability="fsynced")
    for attempt in (safe.dispatch(), runner.dispatch_many([safe.job() for _ in range(300)])):
        with pytest.raises(RedisConfigurationError, match="appendonly yes"):
            await attempt
    assert await server.command("EXISTS", stream(namespace)) == 0
    await echo.dispatch()
    assert await server.command("XLEN", stream(namespace)) == 1, "others are not concerned"
    await server.command("CONFIG", "SET", "appendonly", "yes")
    await server.command("CONFIG", "SET", "appendfsync", "always")
    await safe.dispatch()
    assert await server.command("XLEN", stream(namespace)) == 2, "and what was mended is seen"


@pytest.mark.parametrize("kind", WITHOUT_WAITAOF)
@pytest.mark.parametrize("setting", [("appendfsync", "everysec"), ("no-appendfsync-on-rewrite", "yes")])
async def test_fsynced_is_refused_by_an_old_server_that_replies_before_it_syncs(
    kind: str,
    setting: tuple[str, str],
    start: Callable[..., Any],
    make_runner: Callable[..., TaskRunner],
    namespace: str,
) -> None:
    server = await start("always", kind=kind)
    await server.command("CONFIG", "SET", *setting)
    echo = echo_of(make_runner(server.url, durability="fsynced"))
    with pytest.raises(RedisConfigurationError, match="without WAITAOF"):
        await echo.dispatch()
    assert await server.command("EXISTS", stream(namespace)) == 0


async def test_fsynced_is_refused_by_an_old_server_whose_settings_may_not_be_read(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    server = await start("always", kind="redis-7.0")
    await server.command("ACL", "SETUSER", "clerk", "on", ">pass", *RIGHTS.split())
    echo = echo_of(make_runner(server.url.replace("//", "//clerk:pass@"), durability="fsynced"))
    with pytest.raises(RedisConfigurationError, match="allow CONFIG GET"):
        await echo.dispatch()
    assert await server.command("EXISTS", stream(namespace)) == 0
    await server.command("ACL", "SETUSER", "clerk", "+config|get")
    await echo.dispatch()
    assert await server.command("XLEN", stream(namespace)) == 1


async def test_who_may_not_wait_is_told_before_anything_is_written(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    server = await start("always")
    await server.command("ACL", "SETUSER", "clerk", "on", ">pass", *RIGHTS.split())
    echo = echo_of(make_runner(server.url.replace("//", "//clerk:pass@"), durability="fsynced"))
    with pytest.raises(RedisConfigurationError, match="waitaof"):
        await echo.dispatch()
    assert await server.command("EXISTS", stream(namespace)) == 0


# -- what it costs --------------------------------------------------------------------------------------------


async def test_concurrent_dispatches_share_one_wait(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    server = await start("always")
    echo = echo_of(make_runner(server.url, durability="fsynced"))
    await echo.dispatch()
    async with server.client() as client:
        before = await calls(client, "waitaof")
        await asyncio.gather(*(echo.dispatch() for _ in range(200)))
        assert await calls(client, "waitaof") - before <= 3
        assert await client.xlen(stream(namespace)) == 201


async def test_dispatch_many_waits_once_per_chunk(
    start: Callable[..., Any], make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    server = await start("always")
    runner = make_runner(server.url)
    echo = echo_of(runner)
    safe = echo.with_options(durability="fsynced")
    await safe.dispatch()
    async with server.client() as client:
        before = await calls(client, "waitaof")
        jobs = await runner.dispatch_many([(safe if n % 2 else echo).job(n) for n in range(1000)])
        assert len({job.id for job in jobs}) == 1000
        assert await calls(client, "waitaof") - before == 5
        assert await client.xlen(stream(namespace)) == 1001

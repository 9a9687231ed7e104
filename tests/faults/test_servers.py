"""What the fault tests stand on: servers of every kind, clusters, sentinels."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio

from tests.programs import Program
from tests.servers import KINDS, Cluster, Sentinels, Server, Unavailable, free_port, missing, obtain
from tests.servers.binaries import cached
from tests.waiting import eventually

SLOTS = 16_384


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(400)  # the first time on a machine it is downloaded
async def test_each_kind_of_server_starts_and_is_what_its_name_says(kind: str, tmp_path: Path) -> None:
    with missing():
        obtain(kind)
    async with Server(tmp_path / "server", kind=kind) as server:
        facts = await server.command("INFO", "server")
    name, _, version = kind.partition("-")
    assert str(facts[f"{name}_version"]).startswith(version + ".")


@pytest.mark.crash
async def test_a_persistent_server_keeps_its_data_and_its_address_when_it_is_killed(tmp_path: Path) -> None:
    async with Server(tmp_path / "server", persistent=True, fsync="always") as server:
        await server.command("SET", "kept", "1")
        first = server.pid
        server.kill()
        await server.start()
        assert server.pid != first
        assert await server.command("GET", "kept") == b"1"


@pytest.mark.crash
async def test_a_server_ends_with_the_process_that_started_it(program: Callable[..., Program], tmp_path: Path) -> None:
    starter = program(
        """
        import asyncio, os, pathlib
        from tests.servers import Server

        server = Server(pathlib.Path(os.environ["FOLDER"]))
        asyncio.run(server.start())
        print(server.port, flush=True)
        input()
        """,
        FOLDER=str(tmp_path / "server"),
    )
    port = int(await starter.line())
    starter.signal(signal.SIGKILL)
    await starter.ended()
    await eventually(lambda: not listens(port))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_package_that_can_not_be_had_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKRUNNER_TEST_CACHE", str(tmp_path))

    def download(folder: Path) -> None:
        (folder / "half").touch()
        raise Unavailable("the network is away")

    with pytest.raises(Unavailable, match="the network is away"):
        cached("package", download)
    assert os.listdir(tmp_path) == []


async def test_two_who_fetch_the_same_package_at_once_find_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKRUNNER_TEST_CACHE", str(tmp_path))
    both = threading.Barrier(2)

    def download(folder: Path) -> None:
        both.wait(20)
        (folder / "server").write_text("whole")

    first, second = await asyncio.gather(*(asyncio.to_thread(cached, "package", download) for _ in range(2)))
    assert first == second
    assert (first / "server").read_text() == "whole"
    assert os.listdir(tmp_path) == [first.name]


async def test_a_cluster_serves_all_slots(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        states = [await node.state() for node in cluster.nodes]
        assert [state["cluster_slots_ok"] for state in states] == [str(SLOTS)] * 3
        owners = [await cluster.owner(slot) for slot in (0, SLOTS // 2, SLOTS - 1)]
        assert owners == cluster.primaries
        client = cluster.client()
        for number in range(100):
            await client.set(f"key-{number}", number)
        await client.aclose()
        assert all([await node.command("DBSIZE") for node in cluster.nodes])


async def test_a_slot_that_moves_answers_with_ask_and_then_with_moved(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        slot = await cluster.slot_of("{tag}")
        source = await cluster.owner(slot)
        target = next(node for node in cluster.primaries if node is not source)
        await source.command("SET", "{tag}first", "1")
        await source.command("SET", "{tag}second", "2")

        await cluster.begin_migration(slot, target)
        await cluster.move_keys(source, slot, target, [b"{tag}first"])
        with pytest.raises(redis.exceptions.AskError):
            await source.command("GET", "{tag}first")
        assert await source.command("GET", "{tag}second") == b"2"

        await cluster.move_keys(source, slot, target)
        await cluster.end_migration(slot, target)
        assert await cluster.owner(slot) is target
        with pytest.raises(redis.exceptions.MovedError):
            await source.command("GET", "{tag}second")
        assert await target.command("GET", "{tag}second") == b"2"


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_a_replica_takes_over_the_slots_of_a_killed_node(tmp_path: Path) -> None:
    async with Cluster(tmp_path, replicas=1) as cluster:
        killed = await cluster.owner(0)
        cluster.kill(killed)
        successor = await cluster.failed_over(0, killed)
        assert successor.follows is killed


@pytest.mark.timeout(200)
async def test_sentinels_make_the_replica_the_primary(tmp_path: Path) -> None:
    async with Sentinels(tmp_path) as sentinels:
        first, second = sentinels.servers
        await sentinels.failover()
        assert sentinels.servers == [second, first]
        assert (await second.command("ROLE"))[0] == b"master"


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_sentinels_replace_a_killed_primary_which_comes_back_as_the_replica(tmp_path: Path) -> None:
    async with Sentinels(tmp_path) as sentinels:
        await sentinels.primary.command("SET", "kept", "1")
        await sentinels.primary.command("WAIT", 1, 10_000)
        killed = sentinels.kill_primary()
        await sentinels.promoted()
        assert sentinels.replica is killed
        assert await sentinels.primary.command("GET", "kept") == b"1"
        await killed.start()
        await sentinels.followed()
        assert (await sentinels.replica.command("ROLE"))[0] == b"slave"


async def test_no_two_processes_have_the_same_port(program: Callable[..., Program]) -> None:
    state = random.getstate()
    random.seed(1)
    try:
        ours = {free_port(bus=bool(n % 2)) for n in range(20)}
    finally:
        random.setstate(state)
    other = program(
        """
        import random
        from tests.servers import free_port

        random.seed(1)  # it tries the same ones, in the same order
        print(*{free_port(bus=bool(n % 2)) for n in range(20)})
        """
    )
    theirs = {int(port) for port in (await other.line()).split()}
    assert len(ours) == len(theirs) == 20
    assert not ours & theirs

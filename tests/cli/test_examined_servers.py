"""The doctor's findings on servers: version, role, memory, disk, clock, rights; alone, in a cluster, under Sentinel."""

from __future__ import annotations

import re
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from taskrunner import LimitReached, TaskRunner, chain, group
from taskrunner.durability import Durability
from taskrunner.store import examine_server
from taskrunner.store.examine import Subject, examine
from taskrunner.store.examine_rights import trials
from taskrunner.store.keys import Keyspace
from tests.cli.examining import MakeRunner, findings, mend
from tests.servers import Cluster, Sentinels, Server

STORE = Path(str(resources.files("taskrunner.store")))


# -- the server ------------------------------------------------------------------------------------------------------


async def test_a_replica_is_a_problem(own_server: Server, make_runner: MakeRunner) -> None:
    runner = make_runner(own_server.url)
    await own_server.command("REPLICAOF", "127.0.0.1", "1")
    level, text = (await findings(runner))["role"]
    assert level == "problem"
    assert "primary" in text


async def test_a_server_that_evicts_is_a_problem_once_it_has_a_limit(
    own_server: Server, make_runner: MakeRunner
) -> None:
    runner = make_runner(own_server.url)
    await own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert (await findings(runner))["memory"][0] == "warning"
    await own_server.command("CONFIG", "SET", "maxmemory", "1gb")
    assert (await findings(runner))["memory"][0] == "problem"
    await own_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert (await findings(runner))["memory"][0] == "ok"
    await own_server.command("CONFIG", "SET", "maxmemory", "1mb")
    assert (await findings(runner))["memory"][0] == "warning"


async def test_what_a_killed_server_would_lose_is_told(tmp_path: Path, make_runner: MakeRunner) -> None:
    async with Server(tmp_path / "persistent", persistent=True) as server:
        runner = make_runner(server.url)
        assert (await findings(runner))["persistence"][0] == "ok"
        assert (await findings(runner, durability=Durability.FSYNCED))["persistence"][0] in ("ok", "problem")
        await server.command("CONFIG", "SET", "appendonly", "no")
        level, text = (await findings(runner))["persistence"]
        assert (level, text.startswith("nothing is kept")) == ("warning", True)
        await server.command("CONFIG", "SET", "save", "3600 1")
        assert "snapshots only" in (await findings(runner))["persistence"][1]
        await runner.aclose()


@pytest.mark.parametrize(
    ("info", "level", "text"),
    [
        ({"redis_version": "6.0.16"}, "problem", "Redis 6.0.16 is too old"),
        ({"redis_version": "6.2.0"}, "ok", "Redis 6.2.0"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.0"}, "ok", "Valkey 8.1.0"),
        ({"redis_version": "10.0.1"}, "ok", "Redis 10.0.1"),
        ({"redis_version": "unstable"}, "unknown", "version 'unstable'"),
        ({}, "unknown", "version ''"),
    ],
)
def test_versions_are_judged(info: dict[str, str], level: str, text: str) -> None:
    found = examine_server._version(info)
    assert found.level == level
    assert found.text.startswith(text)


@pytest.mark.parametrize(("seconds", "level"), [(0.0, "ok"), (0.5, "ok"), (5.0, "warning"), (-5.0, "warning")])
async def test_a_clock_that_is_off_is_told(seconds: float, level: str, runner: TaskRunner, monkeypatch: Any) -> None:
    real = time.time
    monkeypatch.setattr(examine_server.time, "time", lambda: real() + seconds)
    found, text = (await findings(runner))["clock"]
    assert found == level
    assert ("5.0 s" in text) is (level == "warning")
    assert ("ahead" in text) is (seconds == 5.0)


# -- rights ----------------------------------------------------------------------------------------------------------


def test_every_command_that_the_store_uses_is_tried() -> None:
    lua = "".join(path.read_text() for path in (STORE / "scripts").glob("*.lua"))
    used = {name + (f" {more}" if name in ("XGROUP", "XINFO") else "")
            for name, more in re.findall(r"call_?\('([A-Z]+)'(?:, '([A-Z]+)')?", lua)}  # fmt: skip
    own = {"examine_rights.py", "examine_server.py", "survey.py"}
    python = "".join(path.read_text() for path in STORE.glob("*.py") if path.name not in own)
    used |= set(re.findall(r"(?:call|ask)\(\s*(?:link, )?b\"([A-Z]+)\"", python))
    assert {"XADD", "XGROUP SETID", "SMEMBERS"} <= used, "the patterns fit the source"
    names = [command[0].decode() for command in trials(Keyspace("p", "n", 1).partitions[0])]
    words = [f"{c[0].decode()} {c[1].decode()}" for c in trials(Keyspace("p", "n", 1).partitions[0])
             if c[0] in (b"XGROUP", b"XINFO")]  # fmt: skip
    elsewhere = {"EVAL", "EVALSHA", "SUBSCRIBE", "UNSUBSCRIBE"}  # tried by the scripts and the subscription
    best_effort = {"CLIENT", "INFO", "ASKING", "CLUSTER", "CONFIG", "ROLE"}
    assert used - {*names, *words} - elsewhere - best_effort <= {"XGROUP", "XINFO"}


async def test_missing_rights_are_named_and_nothing_is_left(own_server: Server, make_runner: MakeRunner) -> None:
    rights = (
        "on",
        ">secret",
        "~taskrunner*",
        "resetchannels",
        "&taskrunner*",
        "+@all",
        "-xtrim",
        "-publish",
        "-xgroup|setid",
    )
    if own_server.kind == "redis-6.2":
        rights = rights[:-1]  # it can't forbid a part of a command
    await own_server.command("ACL", "SETUSER", "worker", "reset", *rights)
    found = await findings(make_runner(own_server.url.replace("//", "//worker:secret@")))
    level, text = found["rights"]
    assert level == "problem"
    assert "may not: " in text
    named = text.partition("may not: ")[2].partition(";")[0].split(", ")
    assert set(named) == {"XTRIM", "PUBLISH", "XGROUP SETID"} - (
        {"XGROUP SETID"} if own_server.kind == "redis-6.2" else set()
    )
    assert await own_server.command("DBSIZE") == 0


async def test_a_user_who_may_do_nothing_special_is_examined_as_far_as_it_goes(
    own_server: Server, make_runner: MakeRunner
) -> None:
    rights = ("on", ">secret", "~taskrunner*", "resetchannels", "&taskrunner*", "+@all", "-@admin", "-@dangerous")
    await own_server.command("ACL", "SETUSER", "worker", "reset", *rights)
    found = await findings(make_runner(own_server.url.replace("//", "//worker:secret@")))
    assert {check for check, (level, _) in found.items() if level != "ok"} == {"server", "persistence"}
    assert (found["server"][0], found["persistence"][0]) == ("unknown", "unknown")


async def test_the_rights_that_the_readme_names_are_enough(own_server: Server, make_runner: MakeRunner) -> None:
    page = Path(__file__).parents[2] / "README.md"
    if not page.exists():
        pytest.skip("the tests stand alone")
    [block] = re.findall(r"```text\n(\s+~taskrunner:.*?)```", page.read_text(), re.DOTALL)
    if own_server.kind == "redis-6.2":
        pytest.skip("it names rights to parts of commands")
    await own_server.command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *block.split())
    runner = make_runner(own_server.url.replace("//", "//worker:secret@"), namespace="shop", reservation_timeout=0.5)

    @runner.task
    async def work() -> None: ...

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        later = await work.with_options(delay=3600).dispatch()
        async with own_server.client() as client:
            await client.delete("taskrunner:{shop.0}:letters:default")
        await later.wait(timeout=20)
        large = await runner.dispatch(
            chain(group(*(work.job() for _ in range(120))), *(work.job() for _ in range(410)))
        )
        assert await large.cancel()
        await large.wait(timeout=20)
        limiter = runner.limiter("places", limit=1, timeout=60)
        async with limiter.slot("one"):
            with pytest.raises(LimitReached):
                await limiter.slot("two", wait=0.1).__aenter__()
            assert [one.id for one in await limiter.holders()] == ["one"]
        found = await findings(runner)
        assert found["rights"] == ("ok", "the user may do all that is needed")
        assert found["orphans"][0] == "ok"


@pytest.mark.parametrize(
    "rights", [("~taskrunner*", "+@all", "-eval", "-evalsha"), ("~other*", "+@all"), ("~*", "+time")]
)
async def test_a_user_who_may_do_next_to_nothing_is_told_and_crashes_nothing(
    rights: tuple[str, ...], own_server: Server, make_runner: MakeRunner
) -> None:
    await own_server.command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rights)
    found = await findings(make_runner(own_server.url.replace("//", "//worker:secret@")))
    assert "problem" in (found["scripts"][0], found["rights"][0])
    assert found["orphans"][0] == "unknown"


# -- several servers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_each_node_of_a_cluster_is_examined_and_repaired(
    tmp_path: Path, make_runner: MakeRunner, namespace: str
) -> None:
    async with Cluster(tmp_path / "cluster") as cluster:
        runner = make_runner(cluster.url, partitions=6)
        unique = runner.declare("work").with_options(unique=True)
        for n in range(60):
            await unique.dispatch(n)
        store = (await runner.opened()).store
        told = await examine(Subject(store, Durability.MEMORY, True))
        assert [one.text.partition(": ")[2] for one in told if one.check == "cluster"] == [
            "state ok, 3 primaries, all slots served"
        ] * len([one for one in told if one.check == "server"])
        assert 1 < len([one for one in told if one.check == "server"]) <= 3
        assert not [one for one in told if one.level in ("problem", "unknown")]
        for partition in store.partitions:
            await store.control(partition).call(b"XTRIM", partition.queue("default").stream, b"MAXLEN", 0)
        assert (await findings(runner))["orphans"][0] == "problem"
        done = await mend(runner)
        assert (done.orphaned, done.unique) == (60, 60)
        assert (await findings(runner))["orphans"][0] == "ok"
        await runner.aclose()


@pytest.mark.slow
async def test_behind_sentinels_the_primary_is_examined(tmp_path: Path, make_runner: MakeRunner) -> None:
    async with Sentinels(tmp_path / "sentinels") as sentinels:
        runner = make_runner(sentinels.url)
        await runner.declare("work").dispatch()
        found = await findings(runner, durability=Durability.REPLICATED)
        assert found["role"][0] == "ok"
        assert found["persistence"] == ("ok", "durability='replicated' can be confirmed")
        assert found["orphans"][0] == "ok"
        await runner.aclose()

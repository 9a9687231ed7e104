"""``taskrunner doctor``: it says what is wrong and what to do, mends what can be mended, and leaves all else alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobFailed, JobStatus, TaskRunner
from taskrunner.durability import Durability
from taskrunner.store import examine_server
from taskrunner.store.examine import Subject, examine
from taskrunner.store.examine_rights import trials
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.store.repair import Repaired, repair
from tests.cli.terminal import Command
from tests.servers import Cluster, Sentinels, Server
from tests.waiting import eventually

Start = Callable[..., Command]
MakeRunner = Callable[..., TaskRunner]
LEFT = pytest.mark.leaves("stream:default", "live", "due:", "letters:", "dead:", "dead-letters:", "unique:")
CHECKS = [
    "server",
    "role",
    "memory",
    "persistence",
    "clock",
    "rights",
    "scripts",
    "workers",
    "orphans",
    "keys",
    "counts",
]
STORE = Path(str(resources.files("taskrunner.store")))


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    return Keyspace("taskrunner", namespace, 1).partitions[0]


async def findings(runner: TaskRunner, **subject: Any) -> dict[str, tuple[str, str]]:
    """Check → (level, text), by the interface that the command uses."""
    values: dict[str, Any] = {"durability": Durability.MEMORY, "certain": True}
    store = (await runner.opened()).store
    return {one.check: (one.level, one.text) for one in await examine(Subject(store, **(values | subject)))}


async def mend(runner: TaskRunner, certain: bool = True) -> Repaired:
    return await repair(Subject((await runner.opened()).store, Durability.MEMORY, certain))


async def everything(client: redis.asyncio.Redis, keys: PartitionKeys) -> dict[bytes, bytes]:
    """All keys of the namespace, and what they hold, to compare."""
    found = {key: await client.dump(key) async for key in client.scan_iter(match=keys.prefix + "*", count=1000)}
    return {key: value for key, value in found.items() if b"}:batch:" not in key}


# -- the command -----------------------------------------------------------------------------------------------------


@LEFT
async def test_a_sound_namespace_is_ok_and_left_as_it_is(
    command: Start, runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    work = runner.declare("work")
    await work.dispatch(1)
    await work.with_options(delay=3600, unique=True).dispatch(2)
    before = await everything(redis_client, keys)
    for arguments in ([], ["--repair"]):
        asked = command("doctor", "app:runner", "--json", *arguments)
        assert await asked.ended() == 0, asked.err
        [line] = asked.out
        told = json.loads(line)
        assert [one["check"] for one in told["findings"]] == CHECKS
        levels = {one["check"]: one["level"] for one in told["findings"]}
        assert {levels[check] for check in CHECKS if check not in ("persistence", "memory")} == {"ok"}
        assert (told["repaired"] is None) is (arguments == [])
    assert not any(told["repaired"].values())
    assert await everything(redis_client, keys) == before


async def test_the_table_has_a_line_for_each_check(command: Start, url: str, namespace: str) -> None:
    asked = command("doctor", "--url", url, "--namespace", namespace, "--repair")
    assert await asked.ended() == 0
    assert asked.out[0] == "Repaired: nothing was to be done."
    assert [line.split()[0] for line in asked.out[-len(CHECKS) :]] == CHECKS
    assert asked.err == []


@LEFT
async def test_jobs_that_are_cut_off_are_a_problem_until_they_are_repaired(
    command: Start, runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task
    async def work() -> None: ...

    jobs = [await work.with_options(unique=True, unique_key=str(n)).dispatch() for n in range(3)]
    waits = await work.dispatch()
    await redis_client.xgroup_create(keys.queue("default").stream, "taskrunner", "0")
    await redis_client.xreadgroup("taskrunner", "somebody", {keys.queue("default").stream: ">"}, count=1)
    await redis_client.xgroup_delconsumer(keys.queue("default").stream, "taskrunner", "somebody")
    [_, entry, *_] = await redis_client.xrange(keys.queue("default").stream)
    await redis_client.xdel(keys.queue("default").stream, entry[0])
    asked = command("doctor", "app:runner", "--json")
    assert await asked.ended() == 1
    found = {one["check"]: one for one in json.loads(asked.out[0])["findings"]}
    assert found["orphans"]["level"] == "problem"
    assert found["orphans"]["text"].startswith(
        "1 job in the queue that no worker would get, 1 job whose entry or letter"
    )
    assert found["counts"]["level"] == "warning"
    mended = command("doctor", "app:runner", "--repair", "--json")
    assert await mended.ended() == 0
    told = json.loads(mended.out[0])
    assert told["repaired"] == {"readded": 1, "orphaned": 1, "consumers": 0, "unique": 1, "counts": 1, "busy": []}
    assert {one["check"] for one in told["findings"] if one["level"] != "ok"} <= {"persistence", "memory"}
    with pytest.raises(JobFailed) as failed:
        await jobs[1].result(timeout=10)
    assert failed.value.reason == "orphaned"
    async with runner.start():
        for job in (jobs[0], jobs[2], waits):
            await job.wait(timeout=20)


@pytest.fixture
def app_with(folder: Path) -> Callable[..., None]:
    def write(options: str) -> None:
        text = "import os\nfrom taskrunner import TaskRunner\nrunner = TaskRunner(os.environ['URL'], "
        (folder / "app.py").write_text(text + f"namespace=os.environ['NAMESPACE'], {options})\n")

    return write


async def test_a_durability_that_the_server_cannot_give_is_a_problem(
    command: Start, app_with: Any, own_server: Server
) -> None:
    for durability, word in (("fsynced", "append"), ("replicated", "replica")):
        app_with(f"durability={durability!r}")
        asked = command("doctor", "app:runner", "--json", URL=own_server.url)
        assert await asked.ended() == 1
        [found] = [one for one in json.loads(asked.out[0])["findings"] if one["check"] == "persistence"]
        assert found["level"] == "problem"
        assert word in found["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--url", "redis://127.0.0.1:1"], 1, "Redis can't be used now"),
        ([], 2, "which server?"),
        (["app:runner", "--namespace", "x"], 2, "give MODULE:RUNNER or --namespace, not both"),
        (["app:nobody"], 2, "nobody"),
    ],
)
async def test_a_server_that_is_away_and_wrong_arguments_are_one_line(
    command: Start, arguments: list[str], code: int, sentence: str
) -> None:
    asked = command("doctor", *arguments)
    assert await asked.ended() == code
    assert asked.out == []
    [line] = asked.err
    assert sentence in line


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
    import time

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


# -- the namespace ---------------------------------------------------------------------------------------------------


async def test_a_living_worker_and_what_it_holds_are_left_alone(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner, gate = make_runner(reservation_timeout=60), asyncio.Event()

    @runner.task(unique=True)
    async def hold() -> str:
        await gate.wait()
        return "held"

    async with runner.start():
        job = await hold.dispatch()
        later = await hold.with_options(delay=3600, unique=False).dispatch()
        await eventually(lambda: redis_client.xpending(keys.queue("default").stream, "taskrunner"))
        await eventually(lambda: is_running(job))
        before = await everything(redis_client, keys)
        assert await mend(runner) == Repaired()
        assert await everything(redis_client, keys) == before
        assert (await findings(runner))["workers"] == ("ok", "1 worker alive")
        assert (await hold.dispatch()).deduplicated
        gate.set()
        assert await job.result(timeout=20) == "held"
        assert await later.status() is JobStatus.SCHEDULED
        await redis_client.zadd(keys.queue("default").due, {later.id: 1})
        runner.job(later.id)
        await redis_client.publish(keys.wake, "due")
        await later.wait(timeout=20)


async def is_running(job: Any) -> bool:
    return await job.status() is JobStatus.RUNNING


@LEFT
async def test_consumers_of_workers_that_are_gone_are_removed_unless_they_hold_something(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    await runner.declare("work").dispatch()
    stream = keys.queue("default").stream
    await redis_client.xgroup_create(stream, "taskrunner", "0")
    await redis_client.xgroup_createconsumer(stream, "taskrunner", "idle")
    await redis_client.xreadgroup("taskrunner", "holds", {stream: ">"})
    await redis_client.zadd(keys.workers, {"idle": 1})
    await redis_client.hset(keys.worker_facts, "idle", "{}")
    level, text = (await findings(runner))["workers"]
    assert level == "warning"
    assert text.startswith("0 workers alive, and 2 consumers of workers that are gone with 1 job in hand")
    assert (await mend(runner)).consumers == 1
    assert [one["name"] for one in await redis_client.xinfo_consumers(stream, "taskrunner")] == [b"holds"]
    assert not await redis_client.exists(keys.workers, keys.worker_facts)
    await redis_client.xgroup_destroy(stream, "taskrunner")


@LEFT
async def test_unique_keys_are_freed_when_their_holder_is_gone_and_only_then(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    unique = runner.declare("work").with_options(unique=True)
    jobs = [await unique.dispatch(n) for n in range(1100)]
    await redis_client.hdel(keys.live, *[job.id for job in jobs[:1050]])
    level, text = (await findings(runner))["unique"]
    assert (level, text.partition(" of ")[0]) == ("warning", "1,050 keys")
    assert (await mend(runner)).unique == 1050
    assert "unique" not in await findings(runner)
    held = [await redis_client.get(key) async for key in redis_client.scan_iter(match=keys.unique("*"), count=1000)]
    assert {one.decode() for one in held} == {job.id for job in jobs[1050:]}


@LEFT
async def test_counts_are_recounted(runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys) -> None:
    one, two, three = (runner.declare(name) for name in ("one", "two", "three"))
    await runner.dispatch_many([one.job() for _ in range(300)] + [two.job() for _ in range(3)] + [three.job()])
    stream, waiting = keys.queue("default").stream, keys.queue("default").waiting
    rows = await redis_client.xrange(stream)
    await redis_client.xdel(stream, *[entry for entry, _ in rows[:100]], rows[-1][0])
    await redis_client.hdel(waiting, "two")
    assert (await findings(runner))["counts"][0] == "warning"
    assert (await mend(runner)).counts == 3
    assert await redis_client.hgetall(waiting) == {b"one": b"200", b"two": b"3", b"three": b"0"}
    assert (await findings(runner))["counts"][0] == "ok"


@LEFT
async def test_keys_that_should_not_be_there_are_named(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, namespace: str
) -> None:
    await redis_client.set(keys.prefix + "notes", "a stranger's", ex=100)
    await redis_client.set(keys.queues + "x", "a stranger's", ex=100)
    await redis_client.set(keys.watchers, "of another type", ex=100)
    await redis_client.set(keys.job("restored"), "without its expiry")
    await redis_client.hset(keys.prefix.replace(".0}", ".2}") + "live", "job", "q default 1-0")
    other = keys.prefix.replace(namespace + ".0}", namespace + ".x.0}")
    await redis_client.set(other + "notes", "of another namespace", ex=100)
    found = await findings(runner)
    assert found["keys"][0] == "warning"
    assert found["keys"][1].startswith("3 keys of no kind that we write")
    assert found["expiry"][1].startswith(f"1 key without the expiry that we give them ({keys.job('restored')})")
    assert found["partitions"][0] == "problem"
    assert "partition 2" in found["partitions"][1]
    assert (await findings(runner, certain=False))["partitions"][0] == "warning"
    await redis_client.delete(keys.job("restored"), other + "notes")


@pytest.mark.leaves("stream:default")
async def test_finished_entries_that_are_kept_never_run_again_whatever_the_doctor_knows(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(delete_on_ack=False)

    @runner.task
    async def work(n: int) -> int:
        return n

    async with runner.start():
        for job in await runner.dispatch_many([work.job(n) for n in range(20)]):
            await job.wait(timeout=20)
    await redis_client.hdel(keys.queue("default").rates, "kept")  # as if somebody had reset the statistics
    assert (await mend(runner)).readded == 0
    by_url = make_runner()
    assert (await mend(by_url, certain=False)).readded == 0
    assert (await findings(by_url, certain=False))["orphans"][0] == "ok"


# -- several servers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
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
@pytest.mark.timeout(120)
async def test_behind_sentinels_the_primary_is_examined(tmp_path: Path, make_runner: MakeRunner) -> None:
    async with Sentinels(tmp_path / "sentinels") as sentinels:
        runner = make_runner(sentinels.url)
        await runner.declare("work").dispatch()
        found = await findings(runner, durability=Durability.REPLICATED)
        assert found["role"][0] == "ok"
        assert found["persistence"] == ("ok", "durability='replicated' can be confirmed")
        assert found["orphans"][0] == "ok"
        await runner.aclose()

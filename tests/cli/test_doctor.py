"""``taskrunner doctor``: it says what is wrong and what to do, mends what can be mended, and leaves all else alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobFailed, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.cli.examining import LEFT, everything
from tests.cli.terminal import Command
from tests.servers import Server

Start = Callable[..., Command]
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
    rows = [line for line in asked.out if line[:1].strip()]  # a long text goes on in the next line, below its column
    assert [row.split()[0] for row in rows[-len(CHECKS) :]] == CHECKS
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
    assert told["repaired"] == {
        "readded": 1,
        "orphaned": 1,
        "consumers": 0,
        "unique": 1,
        "seats": 0,
        "workflows": 0,
        "counts": 1,
        "busy": [],
    }
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

"""``taskrunner schedules``: listed without a further word, paused, resumed, removed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskrunner import TaskRunner
from tests.cli.conftest import Ask
from tests.cli.test_stats import Start
from tests.waiting import eventually

SCHEDULED = pytest.mark.leaves("schedules", "ticks", "fired")
pytestmark = SCHEDULED


@pytest.fixture
async def scheduled(runner: TaskRunner) -> TaskRunner:
    """A runner with two schedules, ``mails [1]`` and ``sweep``."""
    send, sweep = runner.declare("send"), runner.declare("sweep")
    await runner.schedule("mails [1]", send.job(), cron="30 9 * * mon-fri", tz="Europe/Berlin")
    await runner.schedule("sweep", sweep.job(), every=5400)
    return runner


async def test_they_are_listed_by_name(ask: Ask, scheduled: TaskRunner, namespace: str) -> None:
    lines = (await ask("schedules")).out
    [mails] = [line for line in lines if line.startswith("mails [1]")]
    [sweep] = [line for line in lines if line.startswith("sweep")]
    assert all(word in mails for word in ("send", "30 9 * * mon-fri", "Europe/Berlin", " 09:30:00, in "))
    assert all(word in sweep for word in ("every 90 min", "UTC"))
    assert (await ask("schedules", "ls")).out == (await ask("schedules")).out
    found = json.loads((await ask("schedules", "--json")).out[0])
    assert found["namespace"] == namespace
    first, second = found["schedules"]
    assert (first["name"], first["cron"], first["tz"], first["paused"]) == (
        "mails [1]", "30 9 * * mon-fri", "Europe/Berlin", False,
    )  # fmt: skip
    assert (second["name"], second["every"], second["last_fire"]) == ("sweep", 5400, None)
    assert datetime.fromisoformat(second["next_fire"]) > datetime.now(UTC)


async def test_a_lock_key_is_shown_where_there_is_one(ask: Ask, scheduled: TaskRunner) -> None:
    assert "lock key" not in " ".join((await ask("schedules")).out)
    await scheduled.schedule("locked", scheduled.tasks["send"].job(), every=60, lock_key="customer-7")
    lines = (await ask("schedules", COLUMNS="200")).out
    [head] = [line for line in lines if line.startswith("name")]
    [locked] = [line for line in lines if line.startswith("locked")]
    assert head.index("lock key") == locked.index("customer-7")
    await scheduled.unschedule("locked")


async def test_those_of_a_runner_are_listed(command: Start, scheduled: TaskRunner) -> None:
    asked = command("schedules", "app:runner", "--json")
    assert await asked.ended() == 0
    assert [one["name"] for one in json.loads(asked.out[0])["schedules"]] == ["mails [1]", "sweep"]


async def test_a_narrow_terminal_gets_paragraphs(ask: Ask, scheduled: TaskRunner) -> None:
    lines = (await ask("schedules", COLUMNS="40")).out
    assert max(map(len, lines)) <= 40
    assert "mails [1]" in lines
    assert "  when: 30 9 * * mon-fri" in lines


async def test_none_at_all_is_one_line(ask: Ask, namespace: str) -> None:
    assert (await ask("schedules")).out == [f"There are no schedules in {namespace}."]


async def test_pause_and_resume_change_what_is_listed(ask: Ask, scheduled: TaskRunner) -> None:
    await ask("schedules", "pause", "sweep")
    assert [one.paused for one in await scheduled.schedules()] == [False, True]
    [line] = [line for line in (await ask("schedules")).out if line.startswith("sweep")]
    assert line.rstrip().endswith("paused")
    await ask("schedules", "resume", "sweep")
    assert not any(one.paused for one in await scheduled.schedules())


async def test_rm_removes_one(ask: Ask, scheduled: TaskRunner) -> None:
    assert (await ask("schedules", "rm", "mails [1]")).out == ["schedule mails [1] is removed"]
    assert [one.name for one in await scheduled.schedules()] == ["sweep"]


async def test_rm_of_a_declared_one_says_that_it_comes_back(command: Start, runner: TaskRunner, folder: Path) -> None:
    with (folder / "app.py").open("a") as app:
        app.write("\n@runner.every(3600)\ndef tidy() -> None: ...\n")
    running = command("run", "app:runner")
    await eventually(runner.schedules)
    running.process.terminate()
    assert await running.ended() == 0
    removed = command("schedules", "rm", "app:runner", "tidy")
    assert await removed.ended() == 0
    assert removed.out == ["schedule tidy is removed"]
    assert "remove the decorator too" in removed.err[0]
    assert await runner.schedules() == []


@pytest.mark.parametrize("verb", ["pause", "resume", "rm"])
async def test_an_unknown_name_is_one_line_and_exit_code_1(ask: Ask, verb: str) -> None:
    [line] = (await ask("schedules", verb, "nobody", code=1)).err
    assert line == "taskrunner: there is no schedule 'nobody'; `taskrunner schedules` lists them"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "which server?"),
        (["dance"], "'dance' names no runner"),
        (["pause", "app:runner"], "give the name of one schedule"),
        (["rm", "app:runner", "a", "b"], "give the name of one schedule"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(command: Start, arguments: list[str], sentence: str) -> None:
    asked = command("schedules", *arguments)
    assert await asked.ended() == 2
    [line] = asked.err
    assert sentence in line

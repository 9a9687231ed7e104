"""``taskrunner pause``, ``resume`` and ``purge``."""

from __future__ import annotations

import json

import pytest

from taskrunner import JobStatus, TaskRunner
from tests.cli.conftest import Ask
from tests.cli.test_stats import Start

PAUSED = pytest.mark.leaves("paused", "stream:mails", "live", "due:", "letters:", "retrying:", "tallies:")
pytestmark = PAUSED


@pytest.fixture
async def waiting(runner: TaskRunner) -> TaskRunner:
    """A runner with one ready and one delayed job in the queue ``mails``."""
    runner.declare("send", queue="mails")
    await runner.dispatch("send")
    await runner.with_options(delay=3600).dispatch("send")
    return runner


async def test_a_paused_queue_is_shown_as_such_until_it_is_resumed(ask: Ask, waiting: TaskRunner) -> None:
    assert (await ask("pause", "mails")).out == ["queue mails is paused"]
    assert any("mails (paused)" in line for line in (await ask("stats")).out)
    assert json.loads((await ask("stats", "--json")).out[0])["queues"]["mails"]["paused"] is True
    assert (await ask("resume", "mails")).out == ["queue mails goes on"]
    assert not (await waiting.stats("mails")).paused


async def test_a_runner_may_be_named(command: Start, waiting: TaskRunner) -> None:
    asked = command("pause", "app:runner", "mails")
    assert await asked.ended() == 0
    assert (await waiting.stats("mails")).paused


async def test_a_pause_of_all_is_not_ended_by_the_resume_of_one(ask: Ask, waiting: TaskRunner) -> None:
    assert (await ask("pause", "--all")).out == ["all queues are paused"]
    [line] = (await ask("resume", "mails", code=1)).err
    assert "stays paused, because all queues are: `taskrunner resume --all`" in line
    assert (await ask("resume", "--all")).out == ["all queues go on"]
    assert not (await waiting.stats("mails")).paused


async def test_a_name_that_nobody_uses_is_paused_and_noted(command: Start, waiting: TaskRunner) -> None:
    asked = command("pause", "app:runner", "mail")
    assert await asked.ended() == 0
    [line] = asked.err
    assert "no job was ever dispatched to 'mail'" in line
    assert line.endswith("there are default, mails")


async def test_purge_cancels_what_waits_when_it_is_confirmed(ask: Ask, waiting: TaskRunner) -> None:
    [line] = (await ask("purge", "mails", code=2)).err
    assert "confirm it with --yes" in line
    jobs = [waiting.job(info.id) for info in await waiting.jobs("queued") + await waiting.jobs("scheduled")]
    assert (await ask("purge", "mails", "--yes")).out == ["2 jobs of mails cancelled"]
    assert [await job.status() for job in jobs] == [JobStatus.CANCELLED] * 2


async def test_purge_on_a_terminal_asks_back_with_their_number(answer: Ask, waiting: TaskRunner) -> None:
    refused = await answer("n", "purge", "mails", code=1)
    assert "Cancel the 2 jobs that wait in mails" in "\n".join(refused.err)
    assert await waiting.count("mails") == 1
    assert (await answer("y", "purge", "mails")).out == ["2 jobs of mails cancelled"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pause", "mails"], "which server?"),
        (["pause", "app:runner"], "give the name of one queue or --all"),
        (["resume", "app:runner", "mails", "--all"], "give the name of one queue or --all"),
        (["pause", "app:runner", "*"], "queue must be 1 to 64 letters"),
        (["purge", "app:runner", "--yes"], "give the name of one queue"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(command: Start, arguments: list[str], sentence: str) -> None:
    asked = command(*arguments)
    assert await asked.ended() == 2
    [line] = asked.err
    assert sentence in line


async def test_a_wrong_password_is_told_without_it(command: Start, url: str) -> None:
    asked = command("pause", "app:runner", "--all", URL=url.replace("://", "://nobody:secret@", 1))
    assert await asked.ended() == 2
    [line] = asked.err
    assert "check user name, password and ACL" in line
    assert "secret" not in line

"""``taskrunner job``: one job shown, cancelled or run again, and jobs listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taskrunner import Job, JobContext, JobNotFound, JobStatus, TaskRunner
from tests.cli.burying import HOSTILE, WRITTEN_OUT, MakeRunner, bury
from tests.cli.conftest import Ask
from tests.cli.test_stats import NOWHERE, Start
from tests.waiting import eventually

WAIT = pytest.mark.leaves("stream:default", "stream:mails", "live", "due:", "letters:", "retrying:", "tallies:")
DEAD = pytest.mark.leaves("dead")


@WAIT
async def test_show_tells_where_a_job_stands(ask: Ask, runner: TaskRunner) -> None:
    runner.declare("send", queue="mails")
    await runner.with_options(id="order:abc", delay=3600).dispatch("send")
    text = "\n".join((await ask("job", "show", "order:abc")).out)
    assert all(word in text for word in ("order:abc", "send", "mails", "scheduled", "due"))
    [line] = (await ask("job", "show", "order:abc", "--json")).out
    shown = json.loads(line)
    assert (shown["id"], shown["task"], shown["queue"], shown["status"]) == ("order:abc", "send", "mails", "scheduled")
    assert shown["due_at"] > shown["enqueued_at"]
    assert shown["ended_at"] is None


@WAIT
async def test_an_id_that_looks_like_a_runner_stands_after_one(command: Start, runner: TaskRunner) -> None:
    runner.declare("send", queue="mails")
    await runner.with_options(id="order:abc", delay=3600).dispatch("send")
    asked = command("job", "show", "app:runner", "order:abc", "--json")
    assert await asked.ended() == 0
    assert json.loads(asked.out[0])["id"] == "order:abc"


@DEAD
async def test_a_failed_job_is_shown_with_its_error_as_plain_text(ask: Ask, make_runner: MakeRunner) -> None:
    [id] = await bury(make_runner)
    text = "\n".join((await ask("job", "show", id, FORCE_COLOR="1", TERM="xterm", COLUMNS="200")).out)
    assert f"ValueError: order 0 {WRITTEN_OUT}" in text
    assert "Traceback (most recent call last):" in text
    assert "\x1b[31mred" not in text
    shown = json.loads((await ask("job", "show", id, "--json")).out[0])
    assert shown["status"] == "failed"
    assert shown["error"]["message"] == f"order 0 {HOSTILE}"
    assert shown["error"]["error_type"] == "ValueError"


@DEAD
async def test_a_dead_job_is_shown_after_its_record_has_gone(ask: Ask, make_runner: MakeRunner) -> None:
    [id] = await bury(make_runner, result_ttl=0.05)
    job = make_runner().job(id)
    await eventually(lambda: _unknown(job))
    shown = json.loads((await ask("job", "show", id, "--json")).out[0])
    assert (shown["status"], shown["task"], shown["error"]["error_type"]) == ("failed", "charge", "ValueError")


async def _unknown(job: Job[Any]) -> bool:
    try:
        await job.status()
    except JobNotFound:
        return True
    return False


@pytest.mark.leaves("stream:default")
async def test_cancel_ends_a_waiting_job_and_a_second_one_says_so(ask: Ask, runner: TaskRunner) -> None:
    runner.declare("resize")
    job = await runner.dispatch("resize")
    assert (await ask("job", "cancel", job.id)).out == [f"job {job.id} is cancelled"]
    assert await job.status() is JobStatus.CANCELLED
    again = await ask("job", "cancel", job.id, code=1)
    assert again.err == [f"taskrunner: job {job.id} has ended already, it is cancelled"]


async def test_cancel_cuts_a_running_job(command: Start, ask: Ask, declared: TaskRunner, folder: Path) -> None:
    running = command("run", "app:runner")
    await running.consuming()
    job = await declared.dispatch("hold")
    await eventually((folder / "started").exists)
    await ask("job", "cancel", job.id)
    assert await job.status() is JobStatus.CANCELLED
    after = await declared.dispatch("whoami")
    assert await after.result(timeout=20) == running.workers()[0]
    running.process.terminate()
    assert await running.ended() == 0


@DEAD
async def test_retry_runs_a_dead_job_again(ask: Ask, make_runner: MakeRunner) -> None:
    [id] = await bury(make_runner)
    assert (await ask("job", "retry", id)).out == [f"job {id} runs again"]
    mended = make_runner()

    async def succeed(order: int, note: str = "") -> str:
        return f"order {order}, {note}"

    mended.register(succeed, "charge", {})
    async with mended.start():
        assert await mended.job(id).result(timeout=20) == f"order 0, {HOSTILE}"
    assert "there is no dead letter" in (await ask("job", "retry", id, code=1)).err[0]


@WAIT
async def test_ls_lists_the_jobs_of_a_state_and_a_queue(ask: Ask, runner: TaskRunner, namespace: str) -> None:
    runner.declare("resize")
    runner.declare("send", queue="mails")
    ready = [(await runner.dispatch(name)).id for name in ("resize", "send", "send")]
    later = (await runner.with_options(delay=3600).dispatch("send")).id
    found = json.loads((await ask("job", "ls", "--json")).out[0])
    assert (found["namespace"], found["state"]) == (namespace, "queued")
    assert sorted(job["id"] for job in found["jobs"]) == sorted(ready)
    found = json.loads((await ask("job", "ls", "--queue", "mails", "--limit", "1", "--json")).out[0])
    assert [(job["id"], job["queue"]) for job in found["jobs"]] == [(ready[1], "mails")]
    text = "\n".join((await ask("job", "ls", "--state", "scheduled")).out)
    assert later in text
    assert "in 60 min" in text
    assert not any(id in text for id in ready)
    assert (await ask("job", "ls", "--state", "running")).out == [f"No job of {namespace} is running."]


@WAIT
@pytest.mark.parametrize("columns", [20, 40, 80, 200])
async def test_ids_stay_whole_and_nothing_is_wider_than_the_terminal(
    ask: Ask, runner: TaskRunner, columns: int
) -> None:
    runner.declare("a-task-with-quite-a-long-name")
    ids = [(await runner.dispatch("a-task-with-quite-a-long-name")).id for _ in range(3)]
    lines = (await ask("job", "ls", COLUMNS=str(columns))).out
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert all(id in (text if columns > 32 else text.replace("\n", "")) for id in ids)


@pytest.mark.parametrize("verb", ["show", "cancel", "retry"])
async def test_an_unknown_id_is_one_line_and_exit_code_1(ask: Ask, verb: str) -> None:
    asked = await ask("job", verb, "nobody", code=1)
    [line] = asked.err
    assert "nobody" in line
    assert asked.out == []


async def test_a_server_that_is_away_is_one_line_and_exit_code_1(command: Start) -> None:
    asked = command("job", "show", "--url", NOWHERE, "x")
    assert await asked.ended() == 1
    [line] = asked.err
    assert line.startswith("taskrunner: Redis can't be used now")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["job", "show", "x"], "which server?"),
        (["job", "show", "app:runner"], "give the ID of one job"),
        (["job", "cancel", "app:runner", "x", "y"], "give the ID of one job"),
        (["job", "retry", "app:runer", "x"], "did you mean app:runner?"),
        (["job", "ls", "app:runner", "--queue", "{mails}"], "queue must be 1 to 64 letters"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(command: Start, arguments: list[str], sentence: str) -> None:
    asked = command(*arguments)
    assert await asked.ended() == 2
    [line] = asked.err
    assert sentence in line


@pytest.mark.parametrize("arguments", [["show"], ["ls", "--state", "asleep"], ["ls", "--limit", "0"], ["dance"]])
async def test_what_the_command_does_not_know_is_a_usage_error(command: Start, arguments: list[str]) -> None:
    assert await command("job", *arguments, "--url", NOWHERE).ended() == 2


async def test_show_tells_how_far_a_job_is(ask: Ask, runner: TaskRunner) -> None:
    @runner.task
    async def load(ctx: JobContext) -> None:
        await ctx.progress(30, 40, "row 30")

    async with runner.start():
        job = await load.dispatch()
        await job.wait(timeout=20)
        text = "\n".join((await ask("job", "show", job.id)).out)
        [line] = (await ask("job", "show", job.id, "--json")).out
    assert "30 of 40 (75%): row 30" in text
    shown = json.loads(line)["progress"]
    assert (shown["done"], shown["total"], shown["message"]) == (30, 40, "row 30")

"""``taskrunner stats``: right figures, in the form that was asked for."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable

import pytest

from taskrunner import QueueStats, TaskRunner
from taskrunner.cli.durations import parse_duration, show_duration, show_rate
from taskrunner.cli.stats import as_json
from tests.cli.terminal import Command
from tests.waiting import eventually

Start = Callable[..., Command]
JOBS_WAIT = pytest.mark.leaves("stream:default", "stream:mails", "live", "due:", "letters:", "retrying:", "tallies:")
NOWHERE = "redis://127.0.0.1:1"


@JOBS_WAIT
async def test_json_has_the_right_numbers(command: Start, url: str, namespace: str, runner: TaskRunner) -> None:
    runner.declare("resize")
    runner.declare("send", queue="mails")
    for _ in range(3):
        await runner.dispatch("resize")
    await runner.with_options(delay=3600).dispatch("send")
    asked = command("stats", "--url", url, "--namespace", namespace, "--json")
    assert await asked.ended() == 0
    [line] = asked.out
    found = json.loads(line)
    assert found["namespace"] == namespace
    default, mails = found["queues"]["default"], found["queues"]["mails"]
    assert (default["waiting"], default["running"], default["scheduled"], default["dead"]) == (3, 0, 0, 0)
    assert (mails["waiting"], mails["scheduled"]) == (0, 1)
    assert default["per_task"]["resize"]["waiting"] == 3
    assert default["replicas"] == 0
    assert default["drain_time"] is None
    assert mails["drain_time"] == 0
    assert asked.err == []


async def test_json_of_a_consumed_queue_counts_its_workers_and_runs(
    command: Start, url: str, namespace: str, runner: TaskRunner
) -> None:
    @runner.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with runner.start():
        assert await (await add.dispatch(1, 2)).result(timeout=10) == 3
        asked = command("stats", "--url", url, "--namespace", namespace, "--queue", "default", "--json")
        assert await asked.ended() == 0
        queue = json.loads(asked.out[0])["queues"]["default"]
    assert (queue["workers"], queue["replicas"], queue["waiting"]) == (100, 1, 0)
    assert queue["drain_time"] == 0
    assert queue["per_task"]["add"]["succeeded"] == 1


def test_infinite_drain_time_is_null_and_all_else_survives_json() -> None:
    stats = QueueStats("mails", 3, 0, 1, 0, 2, 0, 0, 0.5, 1.0, 0.0, 7.0, math.inf)
    found = json.loads(json.dumps(as_json("shop", [stats]), allow_nan=False))
    assert found["queues"]["mails"] == {
        "waiting": 3,
        "running": 0,
        "scheduled": 1,
        "blocked": 0,
        "dead": 2,
        "workers": 0,
        "replicas": 0,
        "avg_run_time": 0.5,
        "arrival_rate": 1.0,
        "completion_rate": 0.0,
        "oldest_wait": 7.0,
        "drain_time": None,
        "per_task": {},
        "paused": False,
    }


@pytest.mark.leaves("stream:default", "live")
async def test_fail_over_exits_with_3_when_the_queue_takes_longer(
    command: Start, url: str, namespace: str, runner: TaskRunner
) -> None:
    runner.declare("resize")
    await runner.dispatch("resize")
    # Nobody consumes: it takes for ever.
    over = command("stats", "--url", url, "--namespace", namespace, "--fail-over", "30s")
    assert await over.ended() == 3
    assert any("never" in line for line in over.out)


async def test_fail_over_exits_with_0_when_the_queue_is_short(command: Start, runner: TaskRunner) -> None:
    async with runner.start():
        asked = command("stats", "app:runner", "--fail-over", "30s")
        assert await asked.ended() == 0
    assert any("default" in line for line in asked.out)


async def test_a_server_that_is_away_is_one_line_and_exit_code_1(command: Start) -> None:
    asked = command("stats", "--url", NOWHERE)
    assert await asked.ended() == 1
    assert asked.out == []
    [line] = asked.err
    assert line.startswith("taskrunner: Redis can't be used now")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which server?"),
        (["--url", "embedded://"], 2, "is seen by its own process only"),
        (["--url", "embedded:///nowhere/at/all"], 1, "no embedded server ever kept its data in /nowhere/at/all"),
        (["--url", "http://127.0.0.1"], 2, "give redis://, rediss://, unix://, redis+sentinel://"),
        (["--url", NOWHERE, "--fail-over", "soon"], 2, "'soon' is no duration"),
        (["--url", NOWHERE, "--fail-over", "3s", "--watch"], 2, "give --watch or --fail-over, not both"),
        (["app:runner", "--namespace", "x"], 2, "give MODULE:RUNNER or --namespace, not both"),
        (["app:runer"], 2, "did you mean app:runner?"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(
    command: Start, arguments: list[str], code: int, sentence: str
) -> None:
    asked = command("stats", *arguments)
    assert await asked.ended() == code
    [line] = asked.err
    assert sentence in line


@JOBS_WAIT
async def test_an_unknown_queue_is_no_empty_queue(command: Start, url: str, namespace: str, runner: TaskRunner) -> None:
    runner.declare("send", queue="mails")
    await runner.dispatch("send")
    asked = command("stats", "--url", url, "--namespace", namespace, "--queue", "mail", "--fail-over", "1h")
    assert await asked.ended() == 1
    [line] = asked.err
    assert line.endswith("there are mails")


@JOBS_WAIT
async def test_no_color_is_respected(command: Start, url: str, namespace: str, runner: TaskRunner) -> None:
    runner.declare("resize")
    await runner.dispatch("resize")
    asked = command("stats", "--url", url, "--namespace", namespace, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm")
    assert await asked.ended() == 0
    text = "\n".join(asked.out)
    assert "resize" in text
    assert not {f"\x1b[{code}m" for code in ("31", "36", "1;31")} & set(_sequences(text))


def _sequences(text: str) -> list[str]:
    return ["\x1b[" + part.partition("m")[0] + "m" for part in text.split("\x1b[")[1:]]


async def test_watched_json_is_one_object_a_line_until_ctrl_c(command: Start, url: str, namespace: str) -> None:
    asked = command("stats", "--url", url, "--namespace", namespace, "--json", "--watch")
    await eventually(lambda: len(asked.out) >= 2)
    asked.process.send_signal(signal.SIGINT)
    assert await asked.ended() == 0
    assert {json.loads(line)["namespace"] for line in asked.out} == {namespace}
    assert asked.err == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("30", 30), ("500ms", 0.5), ("1.5m", 90), ("2h", 7200), ("1d", 86_400)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-3s", "3 weeks", "1e3", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0042, "4.2 ms"),
        (0.042, "42 ms"),
        (0.42, "0.4 s"),
        (4.2, "4.2 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (420, "7 min"),
        (42_000, "12 h"),
        (420_000, "5 d"),
        (math.inf, "never"),
    ],
)
def test_durations_are_shown_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0, "0/s"), (0.25, "0.25/s"), (62.13, "62.1/s"), (1234.5, "1,234/s")])
def test_rates_are_shown_in_three_digits(rate: float, text: str) -> None:
    assert show_rate(rate) == text

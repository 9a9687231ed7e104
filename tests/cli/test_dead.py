"""``taskrunner dead``: dead letters listed, shown, run again and removed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrunner import TaskRunner
from tests.cli.burying import HOSTILE, WRITTEN_OUT, MakeRunner, bury
from tests.cli.conftest import Ask
from tests.cli.test_stats import NOWHERE, Start

DEAD = pytest.mark.leaves("dead")
AGAIN = pytest.mark.leaves("dead", "stream:default", "live", "tallies:")


@DEAD
async def test_ls_pages_from_the_newest_on(ask: Ask, make_runner: MakeRunner) -> None:
    first, second, third = await bury(make_runner, 3)
    [other] = await bury(make_runner, task="send")
    found = json.loads((await ask("dead", "ls", "--task", "charge", "--limit", "2", "--json")).out[0])
    assert found["count"] == 3
    assert [dead["id"] for dead in found["dead_letters"]] == [third, second]
    assert (found["dead_letters"][0]["args"], found["dead_letters"][0]["kwargs"]) == ([2], {"note": HOSTILE})
    rest = "\n".join((await ask("dead", "ls", "--task", "charge", "--after", second)).out)
    assert first in rest
    assert not any(id in rest for id in (second, third, other))
    assert other in "\n".join((await ask("dead", "ls")).out)


@DEAD
@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_ls_keeps_ids_whole_and_takes_nothing_for_markup(ask: Ask, make_runner: MakeRunner, columns: int) -> None:
    ids = await bury(make_runner, 2)
    lines = (await ask("dead", "ls", COLUMNS=str(columns))).out
    assert max(map(len, lines)) <= columns
    assert all(any(id in line for line in lines) for id in ids)
    assert "[bold]not[/bold]" in "".join(lines)
    assert "\x1b" not in "".join(lines)


async def test_ls_of_nothing_says_so(ask: Ask) -> None:
    assert (await ask("dead", "ls")).out == ["There are no dead letters."]
    assert json.loads((await ask("dead", "ls", "--json")).out[0])["dead_letters"] == []


@DEAD
async def test_show_has_arguments_error_and_traceback(ask: Ask, make_runner: MakeRunner) -> None:
    [id] = await bury(make_runner)
    text = "\n".join((await ask("dead", "show", id, COLUMNS="200")).out)
    assert "argument 1  0" in text
    assert f"note=       {HOSTILE!r}" in text
    assert f"ValueError: order 0 {WRITTEN_OUT}" in text
    assert "in fail" in text
    assert "\x1b" not in text
    shown = json.loads((await ask("dead", "show", id, "--json")).out[0])
    assert (shown["task"], shown["args"], shown["kwargs"]) == ("charge", [0], {"note": HOSTILE})
    assert "in fail" in shown["traceback"]


@DEAD
async def test_show_fits_a_narrow_terminal_and_loses_nothing(ask: Ask, make_runner: MakeRunner) -> None:
    [id] = await bury(make_runner)
    narrow = (await ask("dead", "show", id, COLUMNS="40")).out
    assert max(map(len, narrow)) <= 40
    wide = (await ask("dead", "show", id, COLUMNS="400")).out
    assert "".join("".join(narrow).split()) == "".join("".join(wide).split())


@AGAIN
async def test_retry_runs_several_again_and_names_those_that_it_can_not(
    ask: Ask, command: Start, make_runner: MakeRunner, runner: TaskRunner
) -> None:
    first, second, third = await bury(make_runner, 3)
    asked = command("dead", "retry", "app:runner", first, "nobody", third)
    assert await asked.ended() == 1
    assert asked.out == [f"job {first} runs again", f"job {third} runs again"]
    [line] = asked.err
    assert line.startswith("taskrunner: there is no dead letter 'nobody'")
    assert [dead.id for dead in await runner.dead_letters.list()] == [second]
    assert await runner.count() == 2


@AGAIN
async def test_retry_all_of_a_task_leaves_the_others(ask: Ask, make_runner: MakeRunner, runner: TaskRunner) -> None:
    await bury(make_runner, 2)
    [other] = await bury(make_runner, task="send")
    assert (await ask("dead", "retry", "--all", "--task", "charge")).out == ["2 dead letters run again"]
    assert [dead.id for dead in await runner.dead_letters.list()] == [other]
    assert (await ask("dead", "retry", "--all")).out == ["1 dead letter run again"]
    assert await runner.count() == 3


@pytest.mark.leaves("dead", "stream:default", "live", "tallies:", "unique:")
async def test_retry_leaves_a_job_whose_equal_is_alive(ask: Ask, make_runner: MakeRunner, runner: TaskRunner) -> None:
    options: dict[str, Any] = {"unique": True, "unique_key": lambda *_, **__: "of all"}
    [id] = await bury(make_runner, **options)
    equal = await runner.declare("charge", **options).dispatch(0)
    assert equal.id in (await ask("dead", "retry", id, code=1)).err[0]
    assert await runner.dead_letters.count() == 1


@DEAD
async def test_rm_of_one_needs_no_yes_and_of_more_it_does(
    ask: Ask, make_runner: MakeRunner, runner: TaskRunner
) -> None:
    first, second, third = await bury(make_runner, 3)
    assert (await ask("dead", "rm", first)).out == [f"dead letter {first} is removed"]
    [line] = (await ask("dead", "rm", second, third, code=2)).err
    assert "confirm it with --yes" in line
    assert await runner.dead_letters.count() == 2
    asked = await ask("dead", "rm", second, first, "--yes", code=1)
    assert asked.out == [f"dead letter {second} is removed"]
    assert asked.err == [f"taskrunner: there is no dead letter {first!r}"]
    assert [dead.id for dead in await runner.dead_letters.list()] == [third]


@DEAD
async def test_rm_by_age_removes_what_is_older(ask: Ask, make_runner: MakeRunner, runner: TaskRunner) -> None:
    await bury(make_runner, 2)
    assert (await ask("dead", "rm", "--older-than", "7d", code=2)).out == []
    assert (await ask("dead", "rm", "--older-than", "7d", "--yes")).out == ["0 dead letters removed"]
    assert await runner.dead_letters.count() == 2
    assert (await ask("dead", "rm", "--older-than", "0s", "--yes")).out == ["2 dead letters removed"]
    assert await runner.dead_letters.count() == 0


@DEAD
async def test_rm_on_a_terminal_asks_back(answer: Ask, make_runner: MakeRunner, runner: TaskRunner) -> None:
    await bury(make_runner, 2)
    refused = await answer("n", "dead", "rm", "--all", code=1)
    assert "remove all 2 dead letters for good?" in "\n".join(refused.err)
    assert refused.err[-1].endswith("nothing was done")
    assert await runner.dead_letters.count() == 2
    assert (await answer("y", "dead", "rm", "--all")).out == ["2 dead letters removed"]
    assert await runner.dead_letters.count() == 0


@pytest.mark.parametrize("arguments", [["show", "x"], ["retry", "x"], ["rm", "x"], ["ls", "--after", "x"]])
async def test_an_unknown_id_is_one_line_and_exit_code_1(ask: Ask, arguments: list[str]) -> None:
    [line] = (await ask("dead", *arguments, code=1)).err
    assert "there is no dead letter 'x'" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["retry"], "give IDs or --all"),
        (["retry", "x", "--all"], "give IDs or --all"),
        (["retry", "x", "--task", "charge"], "--task goes with --all"),
        (["rm", "--yes"], "give IDs, --older-than or --all"),
        (["rm", "x", "--older-than", "7d"], "give IDs, --older-than or --all"),
        (["rm", "--all", "--older-than", "7d"], "give --older-than or --all"),
        (["rm", "--older-than", "a week", "--yes"], "'a week' is no duration"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(command: Start, arguments: list[str], sentence: str) -> None:
    asked = command("dead", *arguments, "--url", NOWHERE)
    assert await asked.ended() == 2
    [line] = asked.err
    assert sentence in line

"""The nine scenarios, once each. ``python -m tests.scenarios`` plays them in rounds and prints what was seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.__main__ import main
from tests.scenarios.stage import Figures, Stage
from tests.scenarios.table import SCENARIOS, Scenario, play

# They wait for events, up to 90 s each, and none takes longer than 35 s on an idle machine.
pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(240)]


async def stands(name: str, folder: Path) -> None:
    figures, problems = await play(name, 1, folder)
    assert not problems, f"{name}: {problems}, {figures}"


async def test_s1_killed_workers_lose_no_job_and_repeat_at_most_those_in_their_hands(tmp_path: Path) -> None:
    await stands("S1", tmp_path)


async def test_s2_a_zombie_does_not_replace_the_result_of_the_new_owner(tmp_path: Path) -> None:
    await stands("S2", tmp_path)


async def test_s2b_a_zombie_that_wakes_early_does_not_touch_the_new_owners_delivery(tmp_path: Path) -> None:
    await stands("S2b", tmp_path)


async def test_s3_a_blocked_loop_repeats_neither_its_job_nor_others(tmp_path: Path) -> None:
    await stands("S3", tmp_path)


async def test_s4_a_job_of_ten_reservations_runs_once(tmp_path: Path) -> None:
    await stands("S4", tmp_path)


async def test_s5_after_each_kill_of_the_server_both_workers_go_on_and_nothing_is_lost(tmp_path: Path) -> None:
    await stands("S5", tmp_path)


async def test_s6_both_workers_go_on_after_the_server_was_emptied(tmp_path: Path) -> None:
    await stands("S6", tmp_path)


async def test_s7_a_stop_ends_with_its_running_jobs_and_loses_and_repeats_none(tmp_path: Path) -> None:
    await stands("S7", tmp_path)


async def test_s8_a_unique_key_lets_one_of_two_hundred_in_and_outlives_a_kill(tmp_path: Path) -> None:
    await stands("S8", tmp_path)


async def test_s9_a_job_that_kills_its_workers_is_given_up_and_its_neighbours_finish(tmp_path: Path) -> None:
    await stands("S9", tmp_path)


@pytest.mark.parametrize(("lost", "code", "verdict"), [(0, 0, "stood"), (2, 1, "**did not stand**: 2 jobs were lost")])
def test_the_command_prints_a_row_per_scenario_and_tells_by_its_exit_code_whether_all_stood(
    lost: int, code: int, verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def losing(stage: Stage) -> Figures:
        stage.expect(not lost, f"{lost} jobs were lost")
        return {"lost": lost, "seconds": stage.random.random() + 1}

    monkeypatch.setitem(SCENARIOS, "S0", Scenario(losing, "a fault", "{lost} lost"))
    assert main(["S0", "--rounds", "2"]) == code
    assert f"| S0 | a fault | {lost} lost | {verdict}" in capsys.readouterr().out


def test_the_command_names_what_broke_a_scenario_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(stage: Stage) -> Figures:
        raise OSError("no server")

    monkeypatch.setitem(SCENARIOS, "S0", Scenario(broken, "a fault", "{lost} lost"))
    assert main(["S0"]) == 1
    assert "| S0 | a fault | – | **did not stand**: it broke off: OSError('no server')" in capsys.readouterr().out

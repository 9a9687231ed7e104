"""The matrix, with stand-ins for servers and for pytest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import matrix
from tests.servers import Unavailable
from tests.servers.binaries import Binary

REPORT = '<testsuites><testsuite tests="{tests}" skipped="{skipped}" failures="{failures}" errors="0"/></testsuites>'


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, list[str]]]]:
    """Gives every run of pytest this outcome. What it returns fills with (kind of server, arguments) of each run."""

    def set(code: int = 0, away: str = "", **counts: int) -> list[tuple[str, list[str]]]:
        runs: list[tuple[str, list[str]]] = []

        def obtain(kind: str) -> Binary:
            if kind == away:
                raise Unavailable("the network is away")
            return Binary("server", "1.2.3")

        def run(command: list[str], env: dict[str, str], **rest: Any) -> subprocess.CompletedProcess[bytes]:
            runs.append((env["TASKRUNNER_TEST_SERVER"], command[3:-1]))
            report = Path(command[-1].partition("=")[2])
            report.write_text(REPORT.format(**{"tests": 7, "skipped": 0, "failures": 0} | counts))
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(matrix, "obtain", obtain)
        monkeypatch.setattr(matrix.subprocess, "run", run)
        return runs

    monkeypatch.delenv("CI", raising=False)
    return set


def test_every_kind_of_server_has_its_turn(pretend: Any) -> None:
    runs = pretend()
    assert matrix.main([]) == 0
    assert [kind for kind, _ in runs] == ["valkey-9.1", "redis-6.2", "redis-7.0", "redis-8.2", "valkey-8.1"]
    assert runs[0][1] == ["tests/store", "tests/worker", "tests/faults", "-q", "-n", "4", "--dist", "worksteal"]


def test_legs_tests_and_arguments_of_pytest_can_be_chosen(pretend: Any) -> None:
    runs = pretend()
    assert matrix.main(["--store", "redis-7.0", "--", "-x"]) == 0
    assert runs == [("redis-7.0", ["tests/store", "-x"])]


def test_one_leg_that_fails_is_enough_and_the_others_run_all_the_same(
    pretend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = pretend(code=1, failures=2)
    assert matrix.main(["redis-6.2", "redis-7.0"]) == 1
    assert len(runs) == 2
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split()[:6] for row in rows] == [[kind, "1.2.3", "7", "0", "2", "0"] for kind, _ in runs]
    assert all(row.endswith("FAILED: pytest ended with 1") for row in rows)


def test_a_server_that_can_not_be_had_is_skipped_with_the_reason(
    pretend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = pretend(away="redis-6.2")
    assert matrix.main(["redis-6.2", "redis-7.0"]) == 0
    assert [kind for kind, _ in runs] == ["redis-7.0"]
    assert "skipped: the network is away" in capsys.readouterr().out


def test_a_server_that_can_not_be_had_is_a_failure_in_ci(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(away="redis-6.2")
    monkeypatch.setenv("CI", "true")
    assert matrix.main(["redis-6.2", "redis-7.0"]) == 1


def test_a_leg_that_ran_no_test_has_failed(pretend: Any) -> None:
    pretend(tests=7, skipped=7)
    assert matrix.main(["redis-6.2"]) == 1


def test_a_leg_that_does_not_exist_is_a_wrong_call(pretend: Any) -> None:
    runs = pretend()
    with pytest.raises(SystemExit) as ended:
        matrix.main(["redis-9"])
    assert ended.value.code == 2
    assert runs == []

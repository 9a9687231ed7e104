"""``taskrunner demo``: it shows what it promises, and would notice if that were not so."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from taskrunner import QueueStats
from taskrunner.cli.demo.counting import Count, count_at_once, count_by_line, library_files
from taskrunner.cli.demo.harvest import Harvest
from taskrunner.cli.demo.leftovers import Leftovers
from taskrunner.cli.demo.scene import Process, Scene
from taskrunner.cli.demo.screen import picture, show_verdict, sparkline
from taskrunner.cli.demo.verdict import Check, differences, judge
from taskrunner.cli.demo.work import Report
from tests.cli.terminal import Command
from tests.programs import Program
from tests.waiting import eventually

PLAIN = {"a": Count(10, 2, 3, "aa"), "b": Count(20, 4, 6, "bb"), "c": Count(30, 6, 9, "cc")}
KILLED, OTHER = 1, 2


def good_harvest() -> Harvest:
    """What a demo comes to in which worker 1 was killed while it held the job of ``b``."""
    reports = {
        path: Report(dataclasses.replace(count, packed=5, sampled=10), OTHER, 1) for path, count in PLAIN.items()
    }
    reports["b"] = dataclasses.replace(reports["b"], deliveries=2)
    return Harvest(reports, held=["b"], victim=KILLED)


def failed(harvest: Harvest, recorded: int = 3, left: Leftovers | None = None) -> list[str]:
    """The checks that fail."""
    checks = judge(harvest, PLAIN, [Process(KILLED), Process(OTHER)], recorded, left or Leftovers())
    return [check.what for check in checks if not check.good]


def test_everything_as_it_must_be_passes() -> None:
    assert failed(good_harvest()) == []


@pytest.mark.parametrize(("field", "check"), [("size", "bytes"), ("lines", "lines"), ("words", "words")])
def test_a_wrong_count_is_noticed(field: str, check: str) -> None:
    harvest = good_harvest()
    right = harvest.reports["a"]
    wrong = dataclasses.replace(right.count, **{field: getattr(right.count, field) + 1})
    harvest.reports["a"] = dataclasses.replace(right, count=wrong)
    assert failed(harvest) == [check, "each SHA-256"]


def test_a_wrong_hash_is_noticed_and_named() -> None:
    harvest = good_harvest()
    right = harvest.reports["a"]
    harvest.reports["a"] = dataclasses.replace(right, count=dataclasses.replace(right.count, sha256="xx"))
    assert failed(harvest) == ["each SHA-256"]
    assert differences({"a": harvest.reports["a"].count}, {"a": PLAIN["a"]}) == ["a: sha256 xx, not aa"]


def test_errors_that_cancel_out_in_the_totals_are_noticed() -> None:
    harvest = good_harvest()
    one, other = harvest.reports["a"], harvest.reports["b"]
    harvest.reports["a"] = dataclasses.replace(one, count=dataclasses.replace(one.count, lines=3))
    harvest.reports["b"] = dataclasses.replace(other, count=dataclasses.replace(other.count, lines=3))
    assert failed(harvest) == ["each SHA-256"]


def test_a_missing_file_is_noticed() -> None:
    harvest = good_harvest()
    del harvest.reports["c"]
    assert "files" in failed(harvest)


def test_a_file_that_came_twice_is_noticed() -> None:
    harvest = good_harvest()
    harvest.twice.append("a")
    assert failed(harvest) == ["files"]


def test_a_failed_job_is_noticed() -> None:
    harvest = good_harvest()
    del harvest.reports["c"]
    harvest.failed["c"] = "JobFailed: OSError"
    [files, *_] = judge(harvest, PLAIN, [], 3, Leftovers())
    assert (files.good, files.jobs) == (False, "2 (1 failed, JobFailed: OSError)")


def test_jobs_of_the_killed_worker_that_did_not_run_elsewhere_are_noticed() -> None:
    harvest = good_harvest()
    harvest.reports["b"] = dataclasses.replace(harvest.reports["b"], pid=KILLED)
    assert failed(harvest) == ["killed worker"]


def test_a_job_that_was_held_and_not_delivered_again_is_noticed() -> None:
    harvest = good_harvest()
    harvest.reports["b"] = dataclasses.replace(harvest.reports["b"], deliveries=1)
    assert failed(harvest) == ["killed worker"]


def test_a_job_recorded_twice_is_noticed() -> None:
    assert failed(good_harvest(), recorded=4) == ["recorded once"]


def test_what_is_left_behind_is_noticed() -> None:
    assert failed(good_harvest(), left=Leftovers(["1 consumers in stream:files"])) == ["left behind"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    content=st.lists(st.sampled_from([b"word", b" ", b"\n", b"\r\n", b"\t", b"\0", b"\x0b\x0c", b"\xff"])).map(b"".join)
)
def test_both_ways_to_count_agree_on_any_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    by_line, at_once = (count(str(tmp_path / "file")) for count in (count_by_line, count_at_once))
    assert differences({"file": by_line}, {"file": at_once}) == []
    assert by_line.sampled == len(content)


def test_library_files_are_those_of_the_standard_library_alone() -> None:
    files = library_files()
    names = {path.rpartition("/")[2] for path in files}
    assert {"json", "asyncio"} <= {path.rpartition("/")[0].rpartition("/")[2] for path in files}
    assert "os.py" in names
    assert not any("site-packages" in path or "__pycache__" in path for path in files)
    assert len(files) == len(set(files))


def test_sparkline_fits_and_survives_infinity() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([0.0, 0.0], 10) == ""
    assert sparkline([1.0, 2.0, float("inf"), 0.0], 10) == "▄██ "
    assert len(sparkline([float(n) for n in range(1000)], 40)) <= 40


def test_the_picture_fits_a_terminal_of_80_by_24() -> None:
    scene = Scene("title", 10, dispatched=0.0, done=3, bytes_done=1000)
    for pid in (1, 2, 3):
        scene.processes[pid] = Process(pid, "working", taken_over=1)
    scene.processes[1].held = 8
    for event in range(20):
        scene.tell(f"event {event}")
    scene.long_queue({"is_long": True, "waiting": 1234, "drain_time": 5.0})
    scene.measured(QueueStats("files", 1234, 16, 0, 0, 0, 8, 2, 0.1, 0, 99, 3.0, 5.0), [])
    console = Console(width=80, height=24, force_terminal=True, color_system=None)
    lines = console.render_lines(picture(scene, 80, 3), pad=False)
    assert len(lines) < 24
    assert all(len("".join(part.text for part in line)) <= 80 for line in lines)


def test_the_verdict_marks_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene("title", 3, dispatched=0.0, ended=1.0, done=3)
    console = Console(width=80)
    show_verdict(console, scene, [Check("lines", False, "7", "8"), Check("left behind", True, "nothing")])
    printed = capsys.readouterr().out
    assert re.search(r"✗ +lines +7 +8", printed)
    assert re.search(r"✓ +left behind +nothing", printed)
    assert "Not as it must be" in printed


async def test_ctrl_c_ends_the_demo_and_its_workers(command: Callable[..., Command]) -> None:
    demo = command("demo")
    await eventually(lambda: any("jobs dispatched" in line for line in demo.out))
    workers = psutil.Process(demo.process.pid).children()
    demo.process.send_signal(signal.SIGINT)
    assert await demo.ended() == 130
    assert demo.err == ["taskrunner: interrupted"]
    assert len(workers) == 2
    assert not any(worker.is_running() for worker in workers)


async def test_stay_goes_on_until_ctrl_c_and_leaves_nothing_behind(program: Callable[..., Program]) -> None:
    staying = program("""
        import asyncio, sys
        from taskrunner.cli.console import make_console
        from taskrunner.cli.demo.stay import stay_busy
        sys.exit(asyncio.run(stay_busy(make_console())))
    """)
    lines: list[str] = []
    while not any(re.search(r"[1-9]\d*/s, drains in", line) for line in lines):
        lines.append(await staying.line())
    staying.signal(signal.SIGINT)
    assert await staying.ended() == 0
    assert staying.process.stdout is not None
    assert any(line.startswith("taskrunner stats --url unix://") for line in lines)
    assert "left behind: no entry, no pending entry, no consumer" in staying.process.stdout.read()


@pytest.mark.slow
@pytest.mark.crash
async def test_the_demo_runs_to_its_end_and_all_checks_hold(command: Callable[..., Command]) -> None:
    demo = command("demo")
    assert await demo.ended(deadline=110) == 0, "\n".join(demo.out + demo.err)
    text = "\n".join(demo.out)
    assert "✗" not in text
    assert "Nothing lost, nothing twice." in text
    assert re.search(r"worker \d+ was killed by SIGKILL; a new one starts at once", text)
    [(held, again)] = re.findall(r"held (\d+) jobs; (\d+) of them ran again elsewhere", text)
    assert held == again != "0"
    assert demo.err == []

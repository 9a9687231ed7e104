"""The oracle of the chaos runs: what it makes of the time after a fault, and what it is made of itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos import plan, recovery, story
from tests.chaos.journal import LONG, Journal, read
from tests.chaos.tale import WALL, WORKER, Tale


@pytest.fixture
def tale() -> Tale:
    return Tale()


def test_work_that_goes_on_late_after_a_fault_is_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", at=14, end=16)
    tale.record("a")
    tale.fault(2, 4)
    tale.is_red("I12", "no run ended for 12.0 s after the fault 'kill server'")


def test_the_time_without_work_is_not_counted_after_a_fault(tale: Tale) -> None:
    tale.dispatch("a", at=13)
    tale.run("a", at=14, end=16)
    tale.record("a")
    tale.fault(2, 4)
    assert tale.found() == []


def test_a_fault_that_another_one_follows_is_not_counted(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", at=15.5, end=16)
    tale.record("a")
    tale.fault(2, 4)
    tale.fault(5, 15, "1")
    assert tale.found() == []
    assert [round(one.waited, 3) for one in recovery.recoveries(tale.history())] == [1.0]


def test_a_worker_that_never_goes_on_is_seen(tale: Tale) -> None:
    tale.job("a")
    tale.line("worker up", 0.5, WORKER)
    tale.line("called", 20, of=WORKER, began=5.0)
    tale.is_red("I12", "ended no run")


def test_a_worker_whose_loop_is_blocked_is_waited_for(tale: Tale) -> None:
    tale.line("worker up", 0.5, WORKER)
    tale.dispatch("a", kind="blocking")
    tale.run("a", at=4, end=20, kind="blocking")
    tale.record("a", task="blocking")
    tale.line("called", 21, of=WORKER, began=5.0)
    assert tale.found() == []


# -- what it is made of ------------------------------------------------------------------------------------------------


def test_journals_of_several_processes_are_read_in_the_order_of_time_without_torn_lines(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, "worker"), Journal(tmp_path, "producer")
    first.write("start", "a", fence=1)
    second.write("accepted", "a")
    first.write("end", "a", fence=1)
    first.close()
    second.close()
    with next(tmp_path.glob("worker-*")).open("a") as file:
        file.write('["end", 12')
    assert [line.event for line in read(tmp_path)] == ["start", "accepted", "end"]


def test_a_standstill_is_told_before_the_first_word_after_it_which_may_be_the_last_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    journal = Journal(tmp_path, "worker")
    journal.write("worker up")
    journal.turn()
    now += LONG / 2
    journal.write("start", "a")
    now += 2.0
    journal.write("start", "poison")
    journal.close()
    told = read(tmp_path)
    assert [line.event for line in told] == ["worker up", "start", "stood still", "start"]
    assert told[2].more == {"since": 100.0, "until": now}


def test_the_story_of_a_violation_tells_the_job_the_faults_around_it_and_the_logs_of_its_workers(
    tale: Tale, tmp_path: Path
) -> None:
    tale.dispatch("a")
    tale.run("a")
    tale.fault(2.2, 2.4)
    tale.fault(50, 51, "1", kind="far away")
    (tmp_path / f"worker-{WORKER}.log").write_text(f"{WALL + 2.05:.6f} WARNING taskrunner.worker heartbeat failed\n")
    [*_, lost] = tale.found()
    told = story.tell(lost, tale.history(), tale.final, tmp_path)
    order = ["no record", "intended", "accepted", "start a", "heartbeat failed", "end a", "kill server"]
    assert [told.index(words) for words in order] == sorted(told.index(words) for words in order)
    assert "far away" not in told


def test_a_seed_makes_the_same_plan_and_the_same_faults_again() -> None:
    one, other = plan.make(7, 30), plan.make(7, 30)
    assert one == other != plan.make(8, 30)
    for lane in ("worker_faults", "common_faults"):
        first, second = getattr(one, lane)(), getattr(other, lane)()
        assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]

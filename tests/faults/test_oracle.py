"""The oracle of the chaos runs itself: made-up journals, each with one thing wrong, and what it makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.tale import PRODUCER, WORKER, Tale


@pytest.fixture
def tale() -> Tale:
    return Tale()


def test_a_run_without_a_flaw_is_green(tale: Tale) -> None:
    tale.job("a")
    tale.job("b", kind="unique", key="k")
    tale.dispatch("a", at=5, outcome="deduplicated", id="a")
    tale.dispatch("c", outcome="uncertain")
    tale.dispatch("d", outcome="rejected")
    tale.dispatch("e", outcome="")
    assert tale.found() == []


def test_a_dispatch_that_was_given_up_may_have_made_a_job(tale: Tale) -> None:
    for job, outcome in (("a", "uncertain"), ("b", "")):
        tale.dispatch(job, outcome=outcome)
        tale.run(job)
        tale.record(job)
    assert tale.found() == []


# -- I1 ----------------------------------------------------------------------------------------------------------------


def test_an_accepted_job_without_an_outcome_is_lost(tale: Tale) -> None:
    tale.dispatch("a")
    tale.is_red("I1", "it was accepted and has no outcome")


def test_a_job_that_has_run_and_has_no_outcome_is_lost(tale: Tale) -> None:
    tale.dispatch("a", outcome="uncertain")
    tale.run("a")
    tale.is_red("I1", "it has run and has no outcome")


def test_a_dispatch_that_makes_two_jobs_is_seen(tale: Tale) -> None:
    tale.job("a")
    tale.run("b", serial="serial of a")
    tale.record("b")
    tale.is_red("I1", "made 2 jobs")


def test_a_job_that_nobody_dispatched_is_seen(tale: Tale) -> None:
    tale.run("a")
    tale.record("a")
    tale.is_red("I1", "nobody dispatched")


def test_a_rejected_job_that_runs_is_seen(tale: Tale) -> None:
    tale.dispatch("a", outcome="rejected")
    tale.run("a")
    tale.record("a")
    tale.is_red("I1", "was rejected, and it runs")


def test_an_accepted_job_that_is_unknown_afterwards_is_seen(tale: Tale) -> None:
    tale.job("a")
    tale.line("gone", 3, PRODUCER, "a", error="JobNotFound()")
    tale.is_red("I1", "then unknown")


def test_a_queue_that_never_comes_to_rest_is_seen(tale: Tale) -> None:
    tale.final.backlog = "3 pending"
    tale.is_red("I1", "3 pending")


# -- I2 ----------------------------------------------------------------------------------------------------------------


def test_a_second_completion_is_seen_in_the_figures(tale: Tale) -> None:
    tale.job("a")
    tale.figures["plain"] = (2, 0, 0)
    tale.is_red("I2", "the server counted (")


def test_an_id_that_is_accepted_twice_is_seen(tale: Tale) -> None:
    tale.job("a", id="a")
    tale.dispatch("a", at=5, id="a")
    tale.is_red("I2", "accepted 2 times")


@pytest.mark.parametrize("change", [{"attempts": 2}, {"ended": 5}, {"result": [WORKER, 7]}, {"status": "failed"}])
def test_a_record_that_changes_is_seen(tale: Tale, change: dict[str, Any]) -> None:
    tale.job("a")
    seen = {"status": "succeeded", "attempts": 1, "ended": 0, "result": [WORKER, 1]} | change
    tale.line("seen", 3, PRODUCER, "a", **seen)
    tale.is_red("I2", "its record was")


@pytest.mark.parametrize("verdict", ["", "cancelled"])
def test_a_record_of_a_run_that_did_not_end_is_seen(tale: Tale, verdict: str) -> None:
    tale.dispatch("a")
    tale.run("a", verdict=verdict)
    tale.record("a")
    tale.is_red("I2", "did not end so")


def test_a_failure_without_its_dead_letter_is_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="poison")
    tale.run("a", kind="poison", verdict="")
    tale.record("a", "failed", "poison", reason="delivery limit")
    tale.final.dead = {}
    tale.is_red("I2", "a dead letter is not there")


def test_a_cancelled_job_may_have_run_and_one_that_was_cancelled_too_late_has_succeeded(tale: Tale) -> None:
    for job, status in (("a", "cancelled"), ("b", "succeeded"), ("c", "cancelled")):
        tale.dispatch(job, kind="unwanted")
        tale.run(job, kind="unwanted", verdict="cancelled" if status == "cancelled" else "end")
        tale.record(job, status, task="unwanted")
        tale.line("cancelling", 2.0, PRODUCER, job)
        if job != "c":  # whose producer was killed before it was told
            tale.line("cancel told", 2.05, PRODUCER, job, cancelled=status == "cancelled")
    assert tale.found() == []


@pytest.mark.parametrize(("told", "status"), [(True, "succeeded"), (False, "cancelled")])
def test_who_was_told_something_else_of_a_cancelled_job_is_seen(tale: Tale, told: bool, status: str) -> None:
    tale.dispatch("a", kind="unwanted")
    tale.run("a", kind="unwanted")
    tale.record("a", status, task="unwanted")
    tale.line("cancelling", 2.0, PRODUCER, "a")
    tale.line("cancel told", 2.05, PRODUCER, "a", cancelled=told)
    tale.is_red("I2", "it was told to be")


def test_a_job_that_is_cancelled_without_being_asked_is_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="unwanted")
    tale.record("a", "cancelled", task="unwanted")
    tale.is_red("I2", "nobody asked for it")


# -- I3 ----------------------------------------------------------------------------------------------------------------


def test_two_living_jobs_of_one_unique_key_are_seen(tale: Tale) -> None:
    tale.job("a", kind="unique", key="k")
    tale.job("b", at=1.5, kind="unique", key="k")
    tale.is_red("I3", "lived at once under k")


def test_a_unique_job_that_its_dispatcher_does_not_know_of_counts_from_its_first_run(tale: Tale) -> None:
    tale.job("a", kind="unique", key="k")
    tale.dispatch("b", outcome="uncertain", kind="unique", key="k")
    tale.run("b", at=2.05, end=2.2, kind="unique")
    tale.record("b", task="unique")
    tale.is_red("I3", "lived at once under k")


def test_a_stale_run_that_outlives_its_job_is_no_second_holder(tale: Tale) -> None:
    tale.dispatch("a", kind="unique", key="k")
    tale.run("a", at=1.1, end=9, kind="unique", pid=11, fence=0, verdict="cancelled")
    tale.run("a", kind="unique", fence=1, deliveries=2)
    tale.record("a", task="unique")
    tale.dispatch("b", at=3, kind="unique", key="k")
    tale.run("b", at=4, end=5, kind="unique")
    tale.record("b", task="unique")
    assert tale.found() == []


def test_a_job_that_waits_for_another_of_its_key_is_no_second_one_until_it_runs(tale: Tale) -> None:
    tale.job("a", kind="latest", key="k")
    tale.dispatch("b", at=1.5, serial="old", kind="latest", key="k")
    tale.dispatch("b", at=1.6, outcome="deduplicated", serial="new", kind="latest", key="k")
    tale.run("b", at=2.15, end=2.2, kind="latest", serial="new")
    tale.record("b", task="latest")
    assert tale.found() == []


def test_two_of_latest_that_run_at_once_are_seen(tale: Tale) -> None:
    tale.job("a", kind="latest", key="k")
    tale.dispatch("b", at=1.5, kind="latest", key="k")
    tale.run("b", at=2.05, end=2.2, kind="latest")
    tale.record("b", task="latest")
    tale.is_red("I3", "lived at once under k")


def test_arguments_that_were_older_than_those_of_a_later_dispatch_are_seen(tale: Tale) -> None:
    tale.dispatch("b", at=1.5, serial="old", kind="latest", key="k")
    tale.dispatch("b", at=1.6, outcome="deduplicated", serial="new", kind="latest", key="k")
    tale.run("b", kind="latest", serial="old")
    tale.record("b", task="latest")
    tale.is_red("I3", "though new came after them")


def test_a_key_that_is_held_by_an_ended_job_is_seen(tale: Tale) -> None:
    tale.job("a", kind="unique", key="k")
    tale.line("seen", 3, PRODUCER, "a", status="succeeded", attempts=1, ended=0, result=[WORKER, 1])
    tale.dispatch("a", at=4, outcome="deduplicated", serial="another", kind="unique", key="k")
    tale.is_red("I3", "after its end")


def test_a_plain_job_that_is_called_a_duplicate_is_seen(tale: Tale) -> None:
    tale.job("a")
    tale.dispatch("a", at=4, outcome="deduplicated", serial="another")
    tale.is_red("I3", "was called a duplicate")


# -- I6, I9, I11 -------------------------------------------------------------------------------------------------------


def test_what_is_left_behind_is_seen(tale: Tale) -> None:
    tale.final.leftovers = ["taskrunner:{x.0}:live: stays for ever"]
    tale.is_red("I6", "stays for ever")


def test_jobs_that_the_figures_still_count_as_waiting_are_seen(tale: Tale) -> None:
    tale.job("a")
    tale.figures["plain"] = (1, 0, 1)
    tale.is_red("I6", "1 waiting")


def test_too_many_runs_of_an_attempt_are_seen(tale: Tale) -> None:
    tale.dispatch("a")
    for fence in range(5):
        tale.run("a", fence=fence - 3, verdict="end" if fence == 4 else "")
    tale.record("a")
    tale.is_red("I9", "attempt 1 was run 5 times")


def test_too_many_deliveries_are_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", deliveries=5)
    tale.record("a")
    tale.is_red("I9", "delivered more than 4 times")


def test_too_many_attempts_are_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="failing")
    for attempt in range(1, 6):
        tale.run("a", at=attempt, end=attempt + 0.1, verdict="raised", kind="failing", attempt=attempt, fence=attempt)
    tale.record("a", "failed", "failing", attempts=4, error="Doomed")
    tale.is_red("I9", "more than 4 attempts")


def test_the_record_of_a_zombie_is_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", fence=1)
    tale.run("a", at=2.05, end=2.3, fence=2, pid=11)
    tale.record("a")
    tale.is_red("I11", "fence 1 was recorded, and 2 was given out")


def test_a_fence_that_is_given_out_twice_is_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a")
    tale.run("a", at=2.05, end=2.3, pid=11)
    tale.record("a")
    tale.is_red("I11", "2 runs have the fence 1")


# -- I13, due times, hooks, ourselves ----------------------------------------------------------------------------------


def test_a_plain_job_that_fails_is_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", verdict="raised")
    tale.record("a", "failed", error="RedisUnavailable")
    tale.is_red("I13", "a plain job ended failed: RedisUnavailable")


def test_an_attempt_that_an_outage_has_spent_is_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="retrying")
    tale.run("a", kind="retrying", attempt=2)
    tale.record("a", task="retrying", attempts=2)
    tale.is_red("I13", "0 runs raised, and 2 attempts were counted")


def test_a_failing_job_that_fails_too_early_is_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="failing")
    tale.run("a", verdict="raised", kind="failing")
    tale.record("a", "failed", "failing", error="Doomed")
    tale.is_red("I13", "failed with Doomed after 1 attempts")


def test_a_delivery_limit_without_deaths_of_workers_is_seen(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", verdict="")
    tale.record("a", "failed", reason="delivery limit")
    tale.line("died", 3, process="w1", of=WORKER, code=-9)
    tale.is_red("I13", "without that many faults")


def test_a_delivery_limit_with_as_many_deaths_is_none(tale: Tale) -> None:
    tale.dispatch("a")
    tale.run("a", verdict="")
    tale.record("a", "failed", reason="delivery limit")
    for at in (3, 4, 5, 6):
        tale.line("died", at, process="w1", of=WORKER, code=-9)
    assert tale.found() == []


def test_a_job_that_runs_before_its_time_is_seen(tale: Tale) -> None:
    tale.job("a", kind="delayed", delay=1.01)
    tale.is_red("due", "10.0 ms early")


def test_a_retry_that_runs_before_its_time_is_seen(tale: Tale) -> None:
    tale.dispatch("a", kind="retrying")
    tale.run("a", verdict="raised", kind="retrying", fence=0)
    tale.run("a", at=2.25, end=2.3, kind="retrying", attempt=2)
    tale.record("a", task="retrying", attempts=2)
    tale.is_red("due", "attempt 2 ran 50.0 ms early")


def test_a_hook_that_is_never_called_is_seen(tale: Tale) -> None:
    tale.job("a")
    tale.lines = [line for line in tale.lines if line.event != "on_success"]
    tale.is_red("hooks", "on_success was not called")


@pytest.mark.parametrize("code", [1, -11, 0])
def test_a_worker_that_ends_by_itself_is_seen(tale: Tale, code: int) -> None:
    tale.line("died", 3, process="w1", of=WORKER, code=code)
    tale.is_red("own", f"ended by itself with {code}")


@pytest.mark.parametrize("code", [None, 1])
def test_a_worker_that_does_not_stop_as_it_should_is_seen(tale: Tale, code: int | None) -> None:
    tale.line("stopped", 3, process="w1", of=WORKER, code=code)
    tale.is_red("own", "was told to stop")


def test_what_a_worker_says_of_its_own_bugs_is_seen(tale: Tale) -> None:
    tale.final.noise = ["w1 logged: fetcher failed and is started anew"]
    tale.is_red("own", "started anew")

"""Tasqueue, the Go queue whose users should feel at home here: what its jobs promise, and which test shows it for us.

``PROMISES`` goes through its server (s), its jobs (j), groups (g) and chains (c) one by one, ``WEAKNESSES`` through
what goes wrong in it and must not here. Its ``Enqueue`` is our ``dispatch``, ``GetJob`` is ``job.info()``,
``GetResult`` of saved bytes is ``info().saved``, ``GetPending``, ``GetSuccess`` and ``GetFailed`` are
``runner.jobs(state)``, ``DeleteJob`` is ``runner.delete``, its ``OnSuccess`` and ``OnError`` jobs are ``on_success=``
and ``on_failure=`` with a job. Where the two differ on purpose, the line says how ours is. What no other file shows
stands here and in the three files beside as a test of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import (
    Backoff,
    JobContext,
    JobEvent,
    QueueConflict,
    TaskRunner,
)
from tests.guide.references import every, is_there
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
HERE = "guide/test_tasqueue_checklist.py::"
JOBS = "guide/test_tasqueue_jobs.py::"
SCHEDULES = "guide/test_tasqueue_schedules.py::"
GROUPS = "workflows/test_group_jobs.py::"
CHAINS = "workflows/test_chain_jobs.py::"
WORKFLOWS = "workflows/test_dispatching.py::"
FLOWS = "guide/test_tasqueue_workflows.py::"

PROMISES: dict[str, tuple[str, ...]] = {
    "s3 a task has a queue, a concurrency and callbacks; tasks may share a queue": (
        HERE + "test_tasks_share_a_queue_and_have_callbacks",
    ),
    "s4 the first task of a queue fixes its concurrency, others inherit it or name the same": (
        HERE + "test_the_first_task_of_a_queue_fixes_its_concurrency",
        HERE + "test_no_more_of_a_queue_run_at_once_than_its_concurrency",
    ),
    "s5 queues do not hold each other up; a stop drains what was fetched": (
        HERE + "test_a_slow_queue_does_not_hold_up_another",
        "worker/test_stop.py::test_what_was_fetched_and_has_not_started_goes_back_at_once",
    ),
    "s6 the names of the tasks can be asked for": (HERE + "test_tasks_share_a_queue_and_have_callbacks",),
    "j8 a job has an id, a queue, retries, a schedule, a timeout and a time; the queue is the job's own": (
        JOBS + "test_a_job_goes_to_its_own_queue_and_its_handler_is_found_by_name",
    ),
    "j9 its own id is kept, else it gets one; its status is known before it runs": (
        JOBS + "test_an_id_is_kept_or_made_and_known_at_once",
    ),
    "j10 all that is known of a job can be asked for; an unknown one is told": (
        JOBS + "test_all_that_is_known_of_a_job_can_be_asked_for",
    ),
    "j11 queued, running, retrying, running, succeeded or failed; these are the exact words here": (
        JOBS + "test_the_words_for_the_states_and_their_order",
    ),
    "j12 n retries are n + 1 runs under one id; here three are the default, and they wait for their backoff": (
        JOBS + "test_retries_keep_the_id_and_know_the_attempt",
        "features/test_retries.py::test_the_default_is_three_retries",
    ),
    "j13 over its timeout a run has failed, and is retried like any other": (
        JOBS + "test_a_timeout_is_a_failure_like_any_other",
    ),
    "j14 a handler saves a value, the last one wins, and a failed job may have one": (
        JOBS + "test_the_last_value_that_was_saved_is_there_after_success_and_after_failure",
    ),
    "j15 callbacks come before the outcome is told, and get the error": (
        JOBS + "test_callbacks_are_called_in_order_before_the_outcome_is_known",
    ),
    "j16 deleting a job takes its result and its places in the lists away; here a waiting one too": (
        JOBS + "test_a_deleted_job_leaves_nothing_of_its_own",
    ),
    "j17 what waits, what succeeded and what failed is listed, the latest first": (
        JOBS + "test_what_waits_succeeded_and_failed_is_listed_and_the_latest_first",
    ),
    "j18 cron texts of five fields, names, lists, steps, aliases, @every and a zone": (
        SCHEDULES + "test_a_cron_text_fires_when_it_says",
        SCHEDULES + "test_every_so_long_is_a_cron_text_too",
        SCHEDULES + "test_a_zone_is_that_of_the_text_or_of_tz_and_else_utc",
        SCHEDULES + "test_either_of_two_days_will_do_and_a_step_counts_as_restricted",
        "features/test_bad_schedules.py::test_a_schedule_that_can_not_be_is_refused_and_nothing_is_written",
    ),
    "j19 the first run is at the next match or at its start, each with an id of its own; a time alone is one run": (
        SCHEDULES + "test_the_first_tick_is_the_next_match_or_the_start",
        SCHEDULES + "test_every_tick_is_a_job_with_an_id_of_its_own",
        SCHEDULES + "test_a_time_alone_is_one_run",
    ),
    "j20 a job follows on success, with the result of the one before; another on the final failure": (
        JOBS + "test_a_job_follows_on_success_with_the_result_and_another_on_the_final_failure",
        FLOWS + "test_several_jobs_follow_a_success_and_others_the_final_failure",
    ),
    "g21 a group has an id, a status, and the status of each of its jobs; all of them start at once": (
        GROUPS + "test_the_info_of_a_group_tells_how_each_of_its_jobs_stands",
        GROUPS + "test_the_results_of_a_group_are_those_of_its_members_in_order",
        WORKFLOWS + "test_the_same_id_gives_the_handle_of_the_first",
        FLOWS + "test_a_group_has_its_id_or_gets_one_and_all_of_its_jobs_are_there_at_once",
        FLOWS + "test_what_is_known_of_a_group_is_its_id_its_status_and_that_of_each_job",
    ),
    "g22 failed as soon as one is, succeeded when all are, else running; a retry is no failure, others go on": (
        GROUPS + "test_a_group_is_failed_at_once_though_the_others_go_on",
        GROUPS + "test_a_retry_is_no_failure_of_the_group",
        FLOWS + "test_a_group_fails_at_once_cancels_nobody_and_goes_on_telling_how_the_others_stand",
        FLOWS + "test_the_retries_of_a_job_come_first",
    ),
    "g23 where a group has come to it stays; an empty one has succeeded; an unknown one is told": (
        GROUPS + "test_a_cancelled_group_that_then_fails_stays_cancelled",
        GROUPS + "test_an_empty_group_has_succeeded_at_once",
        WORKFLOWS + "test_an_unknown_workflow_is_said_to_be_unknown",
        FLOWS + "test_a_group_fails_at_once_cancels_nobody_and_goes_on_telling_how_the_others_stand",
        FLOWS + "test_a_group_without_jobs_has_succeeded",
    ),
    "c24 a chain has two steps at least, an id, a status, the step it is at, and those that have finished in order": (
        "unit/test_workflow_definitions.py::test_a_chain_has_at_least_two_steps",
        CHAINS + "test_the_info_of_a_chain_goes_with_it_from_step_to_step",
        FLOWS + "test_a_chain_has_its_id_or_gets_one_and_two_steps_at_least",
        FLOWS + "test_what_is_known_of_a_chain_moves_on_with_it_however_often_one_asks",
    ),
    "c25 a step starts after the one before it succeeded, with its value, or none if there was none": (
        CHAINS + "test_the_result_of_a_chain_is_that_of_its_last_step",
        CHAINS + "test_a_step_that_returns_nothing_hands_on_none_and_the_chain_goes_on",
        FLOWS + "test_a_step_exists_only_when_the_one_before_has_succeeded_and_sees_its_result",
        FLOWS + "test_steps_that_save_nothing_hand_on_nothing_and_the_chain_goes_on_to_its_end",
    ),
    "c26 running from the start; a failed step fails it and is the last that finished; the last one makes it succeed": (
        CHAINS + "test_a_failed_step_ends_the_chain_and_is_the_last_that_finished",
        CHAINS + "test_the_info_of_a_chain_goes_with_it_from_step_to_step",
        GROUPS + "test_the_info_of_a_group_tells_how_each_of_its_jobs_stands",
        FLOWS + "test_a_step_that_fails_for_good_is_the_last_that_finished_and_no_later_one_ever_exists",
        FLOWS + "test_the_retries_of_a_job_come_first",
        FLOWS + "test_the_steps_of_a_chain_may_be_on_different_queues_with_their_own_concurrency",
    ),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 a crash, an unreadable message or an unknown handler loses the job": (
        "faults/test_killed_workers.py::test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again",
        "faults/test_foreign_data.py::test_an_entry_that_cannot_be_read_is_dead_lettered_whole_and_the_next_job_runs",
        "features/test_unknown_tasks.py::test_another_runner_that_knows_the_task_gets_the_job",
        "faults/test_workflow_faults.py::test_a_worker_that_dies_around_the_end_of_a_step_starts_the_next_one_once",
    ),
    "W2 last in, first out: old jobs starve": (JOBS + "test_the_oldest_job_runs_first",),
    "W3 a job that saves nothing ends its schedule and what follows it": (
        SCHEDULES + "test_a_schedule_goes_on_whatever_its_jobs_return_or_raise",
        JOBS + "test_a_job_follows_one_that_returned_nothing",
        CHAINS + "test_a_step_that_returns_nothing_hands_on_none_and_the_chain_goes_on",
        FLOWS + "test_steps_that_save_nothing_hand_on_nothing_and_the_chain_goes_on_to_its_end",
    ),
    "W4 a recurrence ends at a failure, reuses its id, doubles, can't be listed or removed, or never comes true": (
        SCHEDULES + "test_a_schedule_goes_on_whatever_its_jobs_return_or_raise",
        SCHEDULES + "test_every_tick_is_a_job_with_an_id_of_its_own",
        SCHEDULES + "test_a_schedule_of_two_processes_is_one_schedule",
        SCHEDULES + "test_schedules_are_listed_and_removed",
        SCHEDULES + "test_callbacks_are_there_for_every_tick",
        "features/test_schedule_deploys.py::test_many_runners_fire_each_tick_once",
        "features/test_bad_schedules.py::test_a_schedule_that_can_not_be_is_refused_and_nothing_is_written",
        "guide/test_lockq_schedules.py::test_missed_ticks_are_one",
    ),
    "W5 due jobs one per second, the newest first, and doubled by several servers": (
        "store/test_promote_script.py::test_equals_keep_the_order_of_their_ids_and_earlier_ones_go_first",
        "store/test_promote_script.py::test_many_promoters_at_once_move_each_job_once",
        "features/test_due_times.py::test_a_thousand_jobs_that_are_due_at_once_run_once_each_though_two_workers_promote",
    ),
    "W6 a stop or a cancelled handler counts as success": (
        "features/test_lifecycle.py::test_a_run_that_is_cut_short_by_a_stop_is_handed_back_and_spends_nothing",
        JOBS + "test_a_cancelled_handler_is_no_success",
        FLOWS + "test_a_step_whose_handler_is_cancelled_or_gives_up_starts_nothing_after_it",
        FLOWS + "test_a_stop_in_the_middle_of_a_step_starts_nothing_after_it_before_the_step_has_run_to_its_end",
    ),
    "W7 timed-out handlers run on, panics kill, no backoff, saving fails late, a running job is called queued": (
        "features/test_timeouts.py::test_a_run_over_its_timeout_is_cancelled_and_fails_with_job_timeout",
        "features/test_nasty_errors.py::test_in_a_coroutine",
        "features/test_retries.py::test_the_backoff_says_when_the_next_run_is_due",
        JOBS + "test_the_last_value_that_was_saved_is_there_after_success_and_after_failure",
        JOBS + "test_the_words_for_the_states_and_their_order",
    ),
    "W8 a chain stays at its first step and doubles those that finished; half a group runs; its map freezes": (
        CHAINS + "test_the_info_of_a_chain_goes_with_it_from_step_to_step",
        WORKFLOWS + "test_arguments_that_can_not_travel_leave_nothing_of_the_workflow",
        GROUPS + "test_a_group_is_failed_at_once_though_the_others_go_on",
        FLOWS + "test_what_is_known_of_a_chain_moves_on_with_it_however_often_one_asks",
        FLOWS + "test_a_group_that_can_not_be_dispatched_as_a_whole_is_not_dispatched",
        FLOWS + "test_a_group_fails_at_once_cancels_nobody_and_goes_on_telling_how_the_others_stand",
        FLOWS + "test_several_jobs_follow_a_success_and_others_the_final_failure",
    ),
    "W9 deleting leaves a rest, writes are apart, whole lists are read, lists hold empty ids": (
        JOBS + "test_a_deleted_job_leaves_nothing_of_its_own",
        JOBS + "test_what_waits_succeeded_and_failed_is_listed_and_the_latest_first",
        "store/test_batches.py::test_a_settle_whose_reply_was_lost_records_nothing_twice",
        FLOWS + "test_a_late_end_of_a_step_lets_nobody_go",
        FLOWS + "test_what_follows_a_group_starts_once_though_its_members_run_twice",
    ),
}


# -- the server -----------------------------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
async def test_tasks_share_a_queue_and_have_callbacks(runner: TaskRunner) -> None:
    told = list[tuple[str, str]]()

    def tell(kind: str) -> Callable[[JobEvent], None]:
        return lambda event: told.append((kind, event.task))

    @runner.task(queue="shared", concurrency=5, on_start=tell("start"), on_success=tell("success"))
    async def good() -> None: ...

    @runner.task(
        queue="shared", max_retry=1, backoff=Backoff.constant(0), on_retry=tell("retry"), on_failure=tell("failure")
    )
    async def bad() -> None:
        raise ValueError

    async with runner.start():
        await (await good.dispatch()).wait(timeout=20)
        await (await bad.dispatch()).wait(timeout=20)
        await eventually(lambda: len(told) == 4)
    assert told == [("start", "good"), ("success", "good"), ("retry", "bad"), ("failure", "bad")]
    assert list(runner.tasks) == ["good", "bad"]
    assert {task.queue for task in runner.tasks.values()} == {"shared"}


def test_the_first_task_of_a_queue_fixes_its_concurrency(runner: TaskRunner) -> None:
    """Tasqueue's own second example fails, as it takes "unset" for the number of processors; here unset inherits."""

    def add(name: str, **options: Any) -> None:
        runner.task(name=name, **options)(nothing)

    add("first", queue="shared", concurrency=5)
    add("inherits", queue="shared")
    add("the same", queue="shared", concurrency=5)
    with pytest.raises(QueueConflict, match=r"'shared' has concurrency=5 already, not 10"):
        add("another", queue="shared", concurrency=10)
    add("elsewhere", queue="other", concurrency=10)
    add("unset first", queue="third")
    add("fixes later", queue="third", concurrency=2)
    with pytest.raises(QueueConflict, match="'third' has concurrency=2"):
        add("too late", queue="third", concurrency=3)
    assert "another" not in runner.tasks
    add("another", queue="fourth", concurrency=10)


async def nothing() -> None: ...


async def test_no_more_of_a_queue_run_at_once_than_its_concurrency(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=20)
    running, most = {"two": 0, "free": 0}, {"two": 0, "free": 0}

    async def work(ctx: JobContext) -> None:
        running[ctx.queue] += 1
        most[ctx.queue] = max(most[ctx.queue], running[ctx.queue])
        await asyncio.sleep(0.03)
        running[ctx.queue] -= 1

    two = runner.task(name="two", queue="two", concurrency=2)(work)
    also = runner.task(name="also", queue="two")(work)
    free = runner.task(name="free", queue="free")(work)
    jobs = await runner.dispatch_many([task.job() for _ in range(10) for task in (two, also, free)])
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert most["two"] == 2
    assert most["free"] > 2


async def test_a_slow_queue_does_not_hold_up_another(make_runner: MakeRunner) -> None:
    runner, go, started = make_runner(num_workers=3), asyncio.Event(), list[int]()

    @runner.task(queue="slow", concurrency=2)
    async def slow() -> None:
        started.append(1)
        await go.wait()

    @runner.task(queue="fast")
    async def fast(n: int) -> int:
        return n

    held = await runner.dispatch_many([slow.job() for _ in range(50)])
    async with runner.start():
        await eventually(lambda: len(started) == 2)
        jobs = await runner.dispatch_many([fast.job(n) for n in range(50)])
        assert [await job.result(timeout=20) for job in jobs] == list(range(50))
        assert len(started) == 2
        go.set()
        for job in held:
            await job.wait(timeout=20)


@pytest.mark.parametrize("reference", every(PROMISES, WEAKNESSES))
def test_the_tests_that_are_named_here_exist(reference: str) -> None:
    assert is_there(reference)


def test_no_promise_is_left_out() -> None:
    server, jobs = {f"s{n}" for n in range(3, 7)}, {f"j{n}" for n in range(8, 21)}
    assert {line.split()[0] for line in PROMISES} == server | jobs | {"g21", "g22", "g23", "c24", "c25", "c26"}
    assert {line.split()[0] for line in WEAKNESSES} == {f"W{n}" for n in range(1, 10)}

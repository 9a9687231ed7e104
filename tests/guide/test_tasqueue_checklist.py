"""Tasqueue, the Go queue whose users should feel at home here: what its jobs promise, and which test shows it for us.

``PROMISES`` goes through its server (s) and its jobs (j) one by one, ``WEAKNESSES`` through what goes wrong in it and
must not here. Its ``Enqueue`` is our ``dispatch``, ``GetJob`` is ``job.info()``, ``GetResult`` of saved bytes is
``info().saved``, ``GetPending``, ``GetSuccess`` and ``GetFailed`` are ``runner.jobs(state)``, ``DeleteJob`` is
``runner.delete``, its ``OnSuccess`` and ``OnError`` jobs are ``on_success=`` and ``on_failure=`` with a job. Where the
two differ on purpose, the line says how ours is. What no other file shows stands here and in the two files beside as a
test of its own. Groups and chains are not part of this version.
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
    ),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 a crash, an unreadable message or an unknown handler loses the job": (
        "faults/test_killed_workers.py::test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again",
        "faults/test_foreign_data.py::test_an_entry_that_cannot_be_read_is_dead_lettered_whole_and_the_next_job_runs",
        "features/test_unknown_tasks.py::test_another_runner_that_knows_the_task_gets_the_job",
    ),
    "W2 last in, first out: old jobs starve": (JOBS + "test_the_oldest_job_runs_first",),
    "W3 a job that saves nothing ends its schedule and what follows it": (
        SCHEDULES + "test_a_schedule_goes_on_whatever_its_jobs_return_or_raise",
        JOBS + "test_a_job_follows_one_that_returned_nothing",
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
    ),
    "W7 timed-out handlers run on, panics kill, no backoff, saving fails late, a running job is called queued": (
        "features/test_timeouts.py::test_a_run_over_its_timeout_is_cancelled_and_fails_with_job_timeout",
        "features/test_nasty_errors.py::test_in_a_coroutine",
        "features/test_retries.py::test_the_backoff_says_when_the_next_run_is_due",
        JOBS + "test_the_last_value_that_was_saved_is_there_after_success_and_after_failure",
        JOBS + "test_the_words_for_the_states_and_their_order",
    ),
    "W9 deleting leaves a rest, writes are apart, whole lists are read, lists hold empty ids": (
        JOBS + "test_a_deleted_job_leaves_nothing_of_its_own",
        JOBS + "test_what_waits_succeeded_and_failed_is_listed_and_the_latest_first",
        "store/test_batches.py::test_a_settle_whose_reply_was_lost_records_nothing_twice",
    ),
}

WORKFLOWS = {8}
"""Weaknesses of groups and chains, which are not part of this version."""


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
    assert {line.split()[0] for line in PROMISES} == {f"s{n}" for n in range(3, 7)} | {f"j{n}" for n in range(8, 21)}
    assert {line.split()[0] for line in WEAKNESSES} == {f"W{n}" for n in range(1, 10) if n not in WORKFLOWS}

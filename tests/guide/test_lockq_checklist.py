"""lockq, the Go queue whose users should feel at home here: what it promises, and which test shows it for us.

``PROMISES`` goes through its behaviours one by one, ``WEAKNESSES`` through what goes wrong in it and must not here.
Its ``Enqueue`` is our ``dispatch``, ``EnqueueRepeat`` is ``runner.every`` and ``runner.schedule``, its dead-letter
queue ``runner.dead_letters``, ``Count`` is ``runner.count(queue, task, state)``. Where the two differ on purpose, the
line says how ours is. What no other file shows stands here and in the two files beside as a test of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskrunner import (
    Backoff,
    JobContext,
    JobEvent,
    TaskRunner,
)
from tests.faults.fixtures import own_server
from tests.guide.references import every, is_there
from tests.servers import Server
from tests.waiting import eventually

__all__ = ["own_server"]

MakeRunner = Callable[..., TaskRunner]
HERE = "guide/test_lockq_checklist.py::"
SCHEDULES = "guide/test_lockq_schedules.py::"
OPERATION = "guide/test_lockq_operation.py::"
LOCKS = "guide/test_lockq_locks.py::"
HOLDERS = "faults/test_lock_holders.py::"

PROMISES: dict[str, tuple[str, ...]] = {
    "1 what is left out has a default; here a zero can be asked for, too": (
        HERE + "test_a_zero_is_a_zero_and_no_default",
        "guide/test_taskrunner_checklist.py::test_a_runner_with_nothing_but_a_server_works_with_its_defaults",
    ),
    "2 a dispatch takes a delay to the millisecond, by the server's clock; a negative one, here, is refused": (
        "features/test_due_times.py::test_no_job_starts_early_by_the_servers_clock",
        "features/test_bad_input.py::test_an_option_of_a_dispatch_that_can_not_be_is_refused_and_nothing_is_written",
        "faults/test_clocks.py::test_a_delayed_job_comes_by_the_clock_of_the_server",
    ),
    "3 a job has a lock key or none, here in the same queue; a producer needs no handler": (
        LOCKS + "test_a_producer_without_a_handler_gives_a_job_a_lock_key_or_none",
        "features/test_registration.py::test_a_task_that_lives_elsewhere_is_declared_and_dispatched_by_name",
    ),
    "4 first in, first out; what waits for its time is counted apart and never early": (
        HERE + "test_jobs_run_in_the_order_of_their_dispatch_and_what_is_delayed_is_counted_apart",
    ),
    "5 at most one job of a lock key runs at a time, over all processes and tasks; other keys run beside it": (
        LOCKS + "test_jobs_of_a_key_are_alone_over_processes_and_tasks_and_those_of_others_run_beside_them",
        "features/test_locks.py::test_jobs_of_one_key_run_one_at_a_time_in_their_order_over_two_tasks_and_runners",
        "features/test_locks.py::test_many_keys_over_two_runners_and_any_number_of_partitions",
    ),
    "6 a lock is taken in the step that lets a job run, and only that run frees it": (
        LOCKS + "test_only_the_end_of_its_holder_frees_a_key",
        "features/test_locks.py::test_a_job_that_waits_for_its_time_or_in_a_paused_queue_holds_no_key",
        HOLDERS + "test_the_late_outcome_of_a_frozen_holder_frees_nobodys_lock",
    ),
    "7 a job whose key is held is not waited for; here it takes its place in line, however many there are": (
        "features/test_locks.py::test_a_job_waits_as_blocked_takes_no_slot_and_shows_its_key",
        LOCKS + "test_a_thousand_jobs_of_a_held_key_keep_none_of_another_key_from_running",
    ),
    "8 a handler serves jobs with a key, those without, or both; what none serves stays": (
        LOCKS + "test_a_job_that_no_handlers_mode_serves_waits_for_one_that_does",
        "features/test_locks.py::test_each_handler_serves_the_jobs_of_its_mode",
    ),
    "9 two run at once of a task in a process; here as many as there are slots": (
        LOCKS + "test_one_task_runs_as_many_jobs_at_once_as_there_are_slots_locked_or_not",
    ),
    "10 a handler has a deadline, here its timeout; a stop does not cancel what runs": (
        "features/test_timeouts.py::test_a_run_over_its_timeout_is_cancelled_and_fails_with_job_timeout",
        "worker/test_stop.py::test_a_running_job_gets_its_time_and_nothing_new_is_taken",
    ),
    "11 the n-th retry waits n² seconds, 300 at most; there are max_retry + 1 runs": (
        "unit/test_backoff.py::test_the_delay_after_each_attempt",
        HERE + "test_the_default_backoff_is_quadratic_up_to_five_minutes",
        "features/test_retries.py::test_max_retry_counts_the_runs_after_the_first",
    ),
    "12 while a job waits for its retry its key is free, and others overtake it": (
        LOCKS + "test_others_of_the_key_overtake_a_job_that_waits_for_its_retry",
        HERE + "test_others_overtake_a_job_that_waits_for_its_retry",
    ),
    "13 a job without a retry left is a dead letter with its error and instant, and does not expire": (
        OPERATION + "test_a_dead_letter_keeps_error_and_instant_and_outlives_the_outcome",
    ),
    "14 a repeat counts from the start of its tick, missed ticks are one, and it stays while its job runs": (
        SCHEDULES + "test_a_repeat_counts_from_its_ticks_and_stays_while_its_job_runs",
        SCHEDULES + "test_a_repeat_without_a_positive_interval_is_refused",
        SCHEDULES + "test_missed_ticks_are_one",
        "features/test_schedule_deploys.py::test_a_restart_keeps_the_next_tick",
    ),
    "15 one repeat per task and lock key; without a key, here, the name is what there is one of": (
        SCHEDULES + "test_there_is_one_schedule_per_task_and_lock_key",
        "features/test_locks.py::test_the_lock_key_of_a_schedule_is_that_of_its_jobs",
    ),
    "16 a repeat's next run begins with no attempts spent; here a retry does not move the next tick": (
        SCHEDULES + "test_a_tick_that_fails_is_retried_and_the_next_one_begins_anew",
    ),
    "17 a repeat that fails for good is a dead letter; here its schedule goes on": (
        SCHEDULES + "test_a_tick_that_fails_for_good_is_a_dead_letter_and_the_schedule_goes_on",
    ),
    "18 deleting takes a job out of everything, and frees no lock but its own; what is not there is no error": (
        OPERATION + "test_deleting_takes_a_job_out_of_whatever_it_is_in",
        LOCKS + "test_only_the_end_of_its_holder_frees_a_key",
    ),
    "19 repeats are deleted by their lock key, here also by name; how many there were is told, no key is an error": (
        SCHEDULES + "test_the_schedules_of_a_lock_key_are_deleted_by_it_and_none_is_no_error",
        SCHEDULES + "test_a_schedule_that_was_removed_fires_no_more_and_its_name_is_free",
    ),
    "20 a dead letter runs again from the start, now, in its own queue; an equal job that lives prevents it": (
        OPERATION + "test_a_dead_letter_that_is_run_again_begins_anew_in_its_own_queue",
        OPERATION + "test_a_dead_letter_stays_when_an_equal_job_has_taken_its_key",
        "features/test_locks.py::test_a_dead_letter_that_runs_again_waits_for_its_key",
    ),
    "21 what is due, what waits, what is dead: by task and queue, here also for tasks that this process never saw": (
        OPERATION + "test_counts_are_by_task_and_queue_for_any_process_and_what_runs_is_a_state_of_its_own",
    ),
    "22 hooks of start, success, final failure and each retry; here several of each": (
        "features/test_hooks.py::test_hooks_of_the_runner_are_told_of_every_run_and_its_end",
        "features/test_hooks.py::test_several_hooks_of_a_kind_are_called_in_the_order_of_their_registration",
        HERE + "test_hooks_know_the_job_its_attempt_its_payload_and_how_long_it_took",
    ),
    "23 a hook knows the job: here an event with id, task, queue, payload, attempt": (
        HERE + "test_hooks_know_the_job_its_attempt_its_payload_and_how_long_it_took",
    ),
    "24 an idle worker does not hammer the server; here it does not poll, and an error is waited out": (
        HERE + "test_an_idle_runner_waits_on_the_server_and_does_not_poll",
        "worker/test_roles.py::test_a_role_that_fails_is_told_and_comes_back",
    ),
    "25 a start blocks until it is stopped and then waits for what runs; stopping twice is safe": (
        "worker/test_signals.py::test_a_signal_drains_and_a_second_one_ends_the_drain",
        HERE + "test_stopping_and_closing_twice_is_safe",
    ),
    "26 a worker without handlers, here, discards nothing": (
        SCHEDULES + "test_a_worker_without_handlers_discards_neither_jobs_nor_schedules",
    ),
    "27 64 keys that repeat never overlap; with healthy workers each job runs exactly once": (
        LOCKS + "test_sixty_four_keys_that_repeat_never_overlap_and_jobs_beside_them_run_exactly_once",
        SCHEDULES + "test_with_healthy_workers_every_job_and_every_tick_runs_exactly_once",
        "faults/test_schedule_faults.py::test_eight_runners_that_are_killed_and_restarted_fire_each_tick_exactly_once",
    ),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 a crash loses what ran": (
        "faults/test_killed_workers.py::test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again",
    ),
    "W2 a run over its time has lost its lock, and nothing tells it from its successor": (
        LOCKS + "test_a_run_of_several_reservations_keeps_its_key",
        "faults/test_lost_seats.py::test_without_a_server_runs_that_hold_a_lock_are_cut_in_time_and_the_others_go_on",
        "faults/test_lost_seats.py::"
        "test_a_run_that_was_frozen_for_too_long_is_cut_when_it_wakes_and_its_fence_is_the_smaller_one",
    ),
    "W3 a run over its time that fails leaves a dead letter without its payload": (
        OPERATION + "test_a_run_over_its_time_leaves_a_dead_letter_that_can_be_run_again",
    ),
    "W4 putting aside and letting go are two steps, and by two clocks": (
        "store/test_settle_script.py::test_a_retry_waits_with_its_next_attempt",
        LOCKS + "test_others_of_the_key_overtake_a_job_that_waits_for_its_retry",
        "faults/test_torn_admissions.py::test_a_line_goes_on_in_order_when_what_hands_the_lock_on_is_lost",
        HOLDERS + "test_when_a_worker_dies_at_any_point_the_line_goes_on_in_order",
        "faults/test_clocks.py::test_nothing_is_measured_by_the_clock_of_a_worker",
    ),
    "W5 a hundred jobs of a held key in front hold up those behind them": (
        LOCKS + "test_a_thousand_jobs_of_a_held_key_keep_none_of_another_key_from_running",
    ),
    "W6 not for a cluster; scripts that a restart forgot are never sent again": (
        "store/test_keys.py::test_all_keys_of_a_partition_are_in_one_slot_whatever_the_users_names_are",
        "store/test_batches.py::test_a_server_that_forgot_the_scripts_gets_them_again",
        "faults/test_cluster.py::test_a_namespace_works_over_several_slots",
    ),
    "W7 a stop that never ends, a start that panics, a handler that kills the process, zeros that are none": (
        "features/test_lifecycle.py::test_a_worker_with_all_slots_taken_stops_within_its_shutdown_timeout",
        "features/test_lifecycle.py::test_a_second_start_while_it_runs_is_refused_and_harms_nothing",
        "features/test_nasty_errors.py::test_in_a_coroutine",
        "features/test_nasty_errors.py::test_in_a_plain_function",
        HERE + "test_a_zero_is_a_zero_and_no_default",
    ),
    "W8 what nobody handles is thrown away; a deleted job's lock is free while it runs; no results, only polling": (
        SCHEDULES + "test_a_worker_without_handlers_discards_neither_jobs_nor_schedules",
        OPERATION + "test_deleting_a_running_job_ends_its_run",
        LOCKS + "test_the_key_of_a_deleted_job_is_held_until_its_run_has_ended",
        OPERATION + "test_only_a_dead_letter_is_run_again",
        OPERATION + "test_dead_letters_are_listed_looked_at_and_purged",
        "features/test_results.py::test_plain_data_comes_back_as_it_was",
        "features/test_dispatch_many.py::test_a_thousand_jobs_keep_their_order_and_cost_a_round_trip_per_two_hundred",
        "features/test_due_times.py::test_a_job_that_comes_due_on_an_idle_worker_starts_without_a_tick",
    ),
}


async def test_a_zero_is_a_zero_and_no_default(make_runner: MakeRunner) -> None:
    runner, runs = make_runner(shutdown_timeout=0), list[int]()

    @runner.task(max_retry=0, backoff=Backoff.constant(0, jitter=0.0))
    async def bad(ctx: JobContext) -> None:
        runs.append(ctx.max_retry)
        raise ValueError

    async with runner.start():
        job = await bad.with_options(delay=0).dispatch()
        await job.wait(timeout=20)
    assert runs == [0]
    assert await runner.dead_letters.delete(job.id)


async def test_jobs_run_in_the_order_of_their_dispatch_and_what_is_delayed_is_counted_apart(
    make_runner: MakeRunner,
) -> None:
    runner, order = make_runner(num_workers=1), list[int]()

    @runner.task
    async def work(n: int) -> None:
        order.append(n)

    late = await work.with_options(delay=0.6).dispatch(99)
    due = (await late.info()).due_at
    assert (await runner.count(), await runner.count(state="scheduled")) == (0, 1)
    for n in range(30):
        await work.dispatch(n)
    assert (await runner.count(), await runner.count(state="scheduled")) == (30, 1)
    async with runner.start():
        await late.wait(timeout=20)
    ended = (await late.info()).ended_at
    assert due is not None
    assert ended is not None
    assert ended >= due
    assert order == [*range(30), 99]


def test_the_default_backoff_is_quadratic_up_to_five_minutes() -> None:
    backoff = Backoff.quadratic()
    assert [backoff(n) for n in (1, 2, 3, 17, 18, 19, 100)] == [1, 4, 9, 289, 300, 300, 300]


async def test_others_overtake_a_job_that_waits_for_its_retry(make_runner: MakeRunner) -> None:
    runner, order = make_runner(num_workers=1), list[str]()

    @runner.task(backoff=Backoff.constant(0.5))
    async def work(ctx: JobContext, name: str) -> None:
        order.append(name)
        if name == "first" and ctx.attempt == 1:
            raise ValueError

    jobs = [await work.dispatch(name) for name in ("first", "second", "third")]
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert order == ["first", "second", "third", "first"]


# -- hooks, idling, stops -------------------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
async def test_hooks_know_the_job_its_attempt_its_payload_and_how_long_it_took(runner: TaskRunner) -> None:
    told = list[tuple[str, JobEvent]]()
    for name in ("start", "success", "retry", "failure"):
        getattr(runner, f"on_{name}")(lambda event, name=name: told.append((name, event)))

    @runner.task(max_retry=1, backoff=Backoff.constant(0), queue="mail")
    async def work(n: int, *, good: bool) -> None:
        await asyncio.sleep(0.02)
        if not good:
            raise ValueError(n)

    async with runner.start():
        bad = await work.dispatch(1, good=False)
        await bad.wait(timeout=20)
        await eventually(lambda: [kind for kind, _ in told] == ["start", "retry", "start", "failure"])
        good = await work.dispatch(2, good=True)
        await good.wait(timeout=20)
        await eventually(lambda: len(told) == 6)
    assert [(kind, event.job_id, event.attempt) for kind, event in told] == [
        ("start", bad.id, 1), ("retry", bad.id, 1), ("start", bad.id, 2), ("failure", bad.id, 2),
        ("start", good.id, 1), ("success", good.id, 1),
    ]  # fmt: skip
    assert {(event.task, event.queue) for _, event in told} == {("work", "mail")}
    assert next(event.payload for kind, event in told if kind == "start") == ([1], {"good": False})
    assert all(event.duration >= 0.015 for kind, event in told if kind != "start" and event.duration is not None)
    errors = [(kind, event.error.error_type, event.error.message) for kind, event in told if event.error is not None]
    assert errors == [("retry", "ValueError", "1"), ("failure", "ValueError", "1")]


async def test_an_idle_runner_waits_on_the_server_and_does_not_poll(
    make_runner: MakeRunner, own_server: Server
) -> None:
    runner = make_runner(own_server.url, reservation_timeout=30)

    @runner.task
    async def work() -> int:
        return 1

    async with own_server.client() as client, runner.start():
        assert await (await work.dispatch()).result(timeout=20) == 1
        await asyncio.sleep(0.3)
        before = (await client.info("stats"))["total_commands_processed"]
        await asyncio.sleep(2.5)
        sent = (await client.info("stats"))["total_commands_processed"] - before
        assert await (await work.dispatch()).result(timeout=20) == 1
    assert sent < 60, "a poll each 25 ms would be 100 in that time, of every handler"


async def test_stopping_and_closing_twice_is_safe(make_runner: MakeRunner) -> None:
    runner = make_runner()

    @runner.task
    async def work() -> int:
        return 1

    for _ in range(2):
        async with runner.start():
            assert await (await work.dispatch()).result(timeout=20) == 1
        await runner.aclose()
        await runner.aclose()


# -- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", every(PROMISES, WEAKNESSES))
def test_the_tests_that_are_named_here_exist(reference: str) -> None:
    assert is_there(reference)


def test_no_promise_is_left_out() -> None:
    assert {int(line.split()[0]) for line in PROMISES} == set(range(1, 28))
    assert {line.split()[0] for line in WEAKNESSES} == {f"W{n}" for n in range(1, 9)}

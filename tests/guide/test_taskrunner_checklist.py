"""TaskRunner, the Go library whose users should feel at home here: what it promises, and which test shows it for us.

``PROMISES`` goes through its behaviours one by one, ``WEAKNESSES`` through what goes wrong in it and must not here.
Where the two differ on purpose, the line says how ours is. Each line names the tests that show it, by file or folder;
that these exist is a test itself, at the end. What no other file shows stands here as a test of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobContext, QueueStats, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.guide.references import every, is_there
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

PROMISES: dict[str, tuple[str, ...]] = {
    # -- the queue
    "1 a queue is one stream of its namespace; both names are settings": (
        "store/test_keys.py::test_every_key_of_a_busy_run_is_in_the_table_with_its_type",
        "features/test_queues.py::test_namespaces_and_prefixes_do_not_see_each_other",
    ),
    "2 add gives the id; the length is a figure; what an operator deletes or purges harms nothing": (
        "features/test_queues.py::test_the_figures_count_what_waits_what_runs_and_what_is_dead",
        "features/test_unique.py::test_a_key_whose_holder_an_operator_deleted_from_the_stream_is_taken_over_and_the_holder_has_failed",
        "store/test_reclaim_script.py::test_what_is_pending_but_gone_from_the_stream_is_acknowledged",
    ),
    "3 nothing to receive is no failure; a first delivery counts 1": (
        "features/test_job_context.py::test_the_context_tells_who_the_job_is",
        "worker::test_a_stop_does_not_wait_for_a_fetch_that_is_blocked_on_the_server",
    ),
    "4 the group begins at the first entry: what was added before any worker started is delivered": (
        "features/test_lifecycle.py::test_what_was_dispatched_before_any_worker_existed_is_run",
    ),
    "5 new messages and abandoned ones are consumed side by side": (
        "faults::test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again",
    ),
    "6 done is acknowledged and deleted, in one step; deleting is a setting": (
        "store/test_settle_script.py::test_a_settled_delivery_leaves_the_stream_and_the_pending_list",
        "features/test_audit_trail.py::test_finished_entries_stay_and_are_not_counted_as_waiting",
    ),
    "7 a failed task runs again, here after the backoff of its attempt": (
        "features/test_retries.py::test_the_backoff_says_when_the_next_run_is_due",
    ),
    "8 a heartbeat renews a reservation and counts no delivery": (
        "store/test_beat_script.py::test_what_is_held_is_renewed_and_no_delivery_is_counted",
    ),
    "9 a pending entry whose body is gone is skipped": (
        "store/test_registry_scripts.py::test_a_sweep_shows_an_entry_that_is_gone_without_its_fields",
        "store/test_reclaim_script.py::test_what_is_pending_but_gone_from_the_stream_is_acknowledged",
    ),
    "10 the queue has figures": ("store/test_reading_scripts.py::test_the_figures_of_a_queue_are_all_of_one_instant",),
    # -- the runner
    "13 batch size, group, prefix, workers, replication factor, failed-task handler, long-queue hook and threshold": (
        "features/test_registration.py::test_a_wrong_setting_of_a_runner_is_refused_by_its_name",
    ),
    "14 without a replication factor, here, the live ones count": (
        "features/test_long_queue.py::test_the_replicas_are_the_live_ones_unless_their_number_is_given",
    ),
    "15 a task has a name, retries, a reservation, an action, a unique key": (
        "features/test_job_context.py::test_the_context_tells_who_the_job_is",
        "worker::test_a_task_with_a_shorter_reservation_is_taken_at_its_own_age",
    ),
    "16 registering a name again, here, is an error; dispatch, here, gives a handle with the id": (
        "features/test_registration.py::test_a_name_registered_twice_is_refused",
    ),
    "17 a name that the producer doesn't know is refused; here it may be declared": (
        "features/test_registration.py::test_a_name_that_nobody_registered_is_refused_with_the_nearest",
        "features/test_registration.py::test_a_task_that_lives_elsewhere_is_declared_and_dispatched_by_name",
    ),
    "18 an envelope carries what the worker must know": ("store/test_wire.py::test_an_envelope_comes_back_as_it_was",),
    "19 a payload survives the way; one that can't be written fails the dispatch and leaves no unique key": (
        "unit/test_payload.py::test_json_carries_plain_data_unchanged",
        "features/test_unique_release.py::test_a_payload_error_leaves_no_key_and_nothing_else",
    ),
    "20 a second start is refused, of two that race one is; here it can be started again after a stop": (
        "features/test_lifecycle.py::test_a_second_start_while_it_runs_is_refused_and_harms_nothing",
        "features/test_lifecycle.py::test_of_two_starts_that_race_one_is_refused",
        "features/test_lifecycle.py::test_it_can_be_started_again_after_a_stop",
    ),
    "21 each process is a consumer of its own name, which here begins with the prefix": (
        "guide/test_taskrunner_checklist.py::test_consumers_are_named_after_the_prefix_and_never_alike",
    ),
    "23 an error of a handler is counted, told and retried": (
        "features/test_hooks.py::test_hooks_of_the_runner_are_told_of_every_run_and_its_end",
        "store/test_settle_script.py::test_runs_are_counted_by_task_and_outcome_with_their_times",
    ),
    "24 whatever a handler throws is a failure and is retried": (
        "features/test_nasty_errors.py::test_in_a_coroutine",
        "features/test_nasty_errors.py::test_in_a_plain_function",
    ),
    "25 a failure of the consuming loop itself costs no worker": (
        "worker::test_a_role_that_fails_is_told_and_comes_back",
        "features/test_nasty_errors.py::test_a_job_that_cancels_its_own_task_and_returns_costs_no_slot",
    ),
    "26 max_retry counts the runs after the first; here 0 is none, and the handler is told at once": (
        "features/test_retries.py::test_max_retry_counts_the_runs_after_the_first",
        "features/test_failed_task_handler.py::test_it_gets_the_whole_job_before_it_is_recorded",
    ),
    "27 a task that kills its workers is bounded, here by deliveries that cost no attempt": (
        "faults::test_a_job_that_kills_its_workers_ends_as_a_dead_letter_and_its_neighbours_finish",
    ),
    "28 an entry that can't be read goes to the handler with its raw bytes, without a retry": (
        "features/test_failed_task_handler.py::test_it_is_told_of_an_entry_that_nobody_can_read_with_its_raw_bytes",
    ),
    "29 an unknown name, here, goes back for a worker that knows it, and to the handler after a day": (
        "features/test_unknown_tasks.py::test_another_runner_that_knows_the_task_gets_the_job",
        "features/test_unknown_tasks.py::test_after_a_day_it_is_a_dead_letter",
    ),
    "30 the handler is told at least once; here its own failure is logged and the job is recorded all the same": (
        "features/test_failed_task_handler.py::test_its_own_failure_is_logged_and_changes_nothing",
    ),
    "31 a run longer than its reservation is kept alive by heartbeats": (
        "worker::test_a_job_ten_times_longer_than_its_reservation_runs_once",
    ),
    "32 runs, outcomes and run times are counted per task": (
        "store/test_settle_script.py::test_runs_are_counted_by_task_and_outcome_with_their_times",
        "features/test_queues.py::test_the_figures_count_what_waits_what_runs_and_what_is_dead",
    ),
    # -- unique
    "33 uniqueness, here, needs no period": (
        "features/test_unique.py::test_a_waiting_job_holds_its_key_and_an_equal_dispatch_gets_its_handle",
    ),
    "34 a second dispatch while the first lives is, here, a handle of the first": (
        "features/test_unique.py::test_a_running_job_holds_its_key",
        "features/test_unique.py::test_fifty_producers_at_once_make_one_job",
    ),
    "35 the key is, here, the arguments, or what a function makes of them": (
        "features/test_unique_key.py::test_the_default_key_is_the_arguments_however_they_are_written",
        "features/test_unique_key.py::test_a_key_function_gets_the_arguments_and_decides",
        "features/test_unique_key.py::test_any_string_is_a_key",
    ),
    "36 the key lives until the task ends; here a period is a rule of its own and both hold": (
        "features/test_unique_release.py::test_it_is_free_after_success",
        "features/test_unique_key.py::test_both_together_hold_the_key_after_the_end_of_the_job",
        "features/test_unique_key.py::test_both_together_hold_the_key_after_the_end_of_the_period",
    ),
    "37 after the end the key is gone, and only its holder could free it": (
        "store/test_settle_script.py::test_an_end_frees_the_unique_key_if_it_is_the_jobs_own",
        "features/test_unique.py::test_a_key_is_freed_by_the_job_that_holds_it_and_no_other",
    ),
    "38 a dispatch that fails leaves no key": (
        "store/test_dispatch_script.py::test_of_two_leases_neither_is_taken_when_one_is_refused",
        "features/test_unique_release.py::test_a_payload_that_is_too_large_leaves_no_key",
    ),
    # -- the long queue
    "39 drain time = mean run time × waiting ÷ (workers × replicas)": (
        "unit/test_forecast.py::test_the_drain_time_is_work_over_capacity",
        "features/test_long_queue.py::test_the_replicas_are_the_live_ones_unless_their_number_is_given",
    ),
    "40 the mean, here, is of what waits, and what runs does not count as waiting": (
        "unit/test_forecast.py::test_the_mean_is_weighted_by_what_waits_and_not_a_mean_of_means",
        "unit/test_forecast.py::test_slow_tasks_fill_the_slots_and_fast_ones_the_queue",
    ),
    "41 evaluated every half threshold, the hook is called each time that it is strictly over": (
        "unit/test_forecast.py::test_it_is_evaluated_at_half_the_threshold_within_bounds",
        "unit/test_forecast.py::test_the_threshold_itself_is_no_alert",
        "features/test_long_queue.py::test_it_is_called_at_each_evaluation_while_the_drain_time_is_over_the_threshold",
    ),
    "42 the hook gets the predicted wait and the timing of each task": (
        "guide/test_taskrunner_checklist.py::test_sixteen_tasks_for_four_workers_are_too_long_a_queue",
    ),
    "43 too many tasks for the workers call it, workers enough never do": (
        "guide/test_taskrunner_checklist.py::test_sixteen_tasks_for_four_workers_are_too_long_a_queue",
        "features/test_long_queue.py::test_it_is_not_called_while_there_are_slots_enough",
    ),
    "44 nothing registered is nothing to evaluate": (
        "guide/test_taskrunner_checklist.py::test_a_runner_with_nothing_but_a_server_works_with_its_defaults",
    ),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 a dead worker's tasks are taken up only by its namesake": (
        "store/test_reclaim_script.py::test_jobs_of_a_silent_worker_change_hands_and_their_old_tokens_are_stale",
        "faults::test_a_killed_workers_jobs_run_elsewhere_and_its_finished_ones_do_not_run_again",
    ),
    "W2 tidying a consumer away erases its pending tasks": (
        "store/test_reclaim_script.py::test_a_consumer_with_pending_entries_is_never_removed",
        "store/test_registry_scripts.py::test_the_consumer_of_a_worker_that_still_holds_jobs_stays_with_them",
    ),
    "W3 settings left out: a hammering heartbeat, a panic, a nil call": (
        "guide/test_taskrunner_checklist.py::test_a_runner_with_nothing_but_a_server_works_with_its_defaults",
    ),
    "W4 errors that nobody reads block every worker": (
        "guide/test_taskrunner_checklist.py::test_errors_that_nobody_listens_to_hold_nobody_up",
        "features/test_hooks.py::test_a_hook_that_fails_is_logged_and_changes_nothing",
    ),
    "W5 tasks that wait in a fetched batch get no heartbeat and run twice; two claimers can both win": (
        "worker::test_a_heartbeat_keeps_a_job_from_being_taken",
        "store/test_reclaim_script.py::test_of_many_at_once_one_takes_each_job",
        "store/test_beat_script.py::test_what_was_taken_over_is_told_and_not_stolen_back",
    ),
    "W6 passes over pending tasks pile up and outlive the stop": (
        "store/test_reclaim_script.py::test_a_limit_is_kept_and_the_next_call_goes_on_where_it_ended",
        "worker::test_a_stop_hands_back_what_was_being_taken_over_in_that_instant",
    ),
    "W7 the unique lock is free between attempts, or never, or lapses while the task waits": (
        "features/test_unique.py::test_a_job_that_waits_for_its_retry_holds_its_key",
        "features/test_unique.py::test_a_job_that_was_retried_still_holds_its_key_in_its_second_run",
        "features/test_unique_key.py::test_both_together_hold_the_key_after_the_end_of_the_period",
        "features/test_unique.py::test_two_jobs_of_one_key_never_live_at_once_while_fifty_producers_dispatch_and_workers_run",
    ),
    "W8 no backoff, no dead letters, acknowledging and deleting apart": (
        "unit/test_backoff.py::test_the_delay_after_each_attempt",
        "store/test_settle_script.py::test_a_failure_is_a_dead_letter_with_all_that_is_needed_to_run_it_again",
        "store/test_batches.py::test_a_settle_whose_reply_was_lost_records_nothing_twice",
    ),
    "W9 the estimate is skewed by idle types and replicas; every replica calls the hook, inline": (
        "unit/test_forecast.py::test_the_mean_is_weighted_by_what_waits_and_not_a_mean_of_means",
        "features/test_long_queue.py::test_one_runner_of_the_fleet_evaluates_and_another_takes_over_when_it_leaves",
        "features/test_long_queue.py::test_a_slow_hook_holds_up_neither_jobs_nor_evaluations_and_does_not_pile_up",
    ),
    "W10 samples freeze when the ring is full": ("store/test_settle_script.py::test_run_times_follow_a_change",),
}


async def test_consumers_are_named_after_the_prefix_and_never_alike(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    keys = PartitionKeys("taskrunner", namespace, 0)
    one, two = make_runner(consumers_prefix="mine"), make_runner(consumers_prefix="mine")
    async with one.start(), two.start():
        await eventually(lambda: one.ready and two.ready)
        names = [name.decode() for name in await redis_client.zrange(keys.workers, 0, -1)]
    assert len(set(names)) == 2
    assert all(name.startswith("mine-") for name in names)


async def test_sixteen_tasks_for_four_workers_are_too_long_a_queue(make_runner: MakeRunner) -> None:
    told = list[QueueStats]()
    runner = make_runner(num_workers=4, long_queue_threshold=0.1, long_queue_hook=told.append)

    @runner.task
    async def half_a_second() -> None:
        await asyncio.sleep(0.5)

    async with runner.start():
        jobs = await runner.dispatch_many([half_a_second.job() for _ in range(16)])
        for job in jobs:
            await job.wait(timeout=20)
    assert told
    assert all(stats.drain_time > 0.1 for stats in told)
    assert all(0.45 < stats.avg_run_time < 2 for stats in told)
    assert all(stats.per_task["half_a_second"].avg_run_time == stats.avg_run_time for stats in told)


@pytest.mark.leaves("dead")
async def test_a_runner_with_nothing_but_a_server_works_with_its_defaults(url: str, namespace: str) -> None:
    runner = TaskRunner(url, namespace=namespace)

    @runner.task(max_retry=0)
    async def bad(ctx: JobContext) -> None:
        raise ValueError

    @runner.on_long_queue
    async def never(stats: QueueStats) -> None: ...

    async with runner.start():
        await (await bad.dispatch()).wait(timeout=10)
    assert runner.settings.beat == 7.5
    assert await runner.dead_letters.count() == 1
    await runner.aclose()


@pytest.mark.leaves("dead")
async def test_errors_that_nobody_listens_to_hold_nobody_up(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=2)

    @runner.task(max_retry=0)
    async def bad(n: int) -> None:
        raise ValueError(n)

    async with runner.start():
        for job in await runner.dispatch_many([bad.job(n) for n in range(100)]):
            await job.wait(timeout=20)
    assert await runner.dead_letters.count() == 100


@pytest.mark.parametrize("reference", every(PROMISES, WEAKNESSES))
def test_the_tests_that_are_named_here_exist(reference: str) -> None:
    assert is_there(reference)


def test_no_promise_is_left_out() -> None:
    promised = {int(line.split()[0]) for line in PROMISES}
    of_later_versions = {11, 12, 22}
    assert promised == set(range(1, 45)) - of_later_versions
    assert {line.split()[0] for line in WEAKNESSES} == {f"W{n}" for n in range(1, 11)}

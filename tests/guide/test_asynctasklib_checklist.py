"""go-asynctasklib, whose users should feel at home in ``taskrunner.local``: what it promises, and which test shows it.

``PROMISES`` goes through its behaviours one by one, ``WEAKNESSES`` through what goes wrong in it and must not here. Its
``task.New(Definition{...})`` is ``LocalTask(fn, ...)``, ``Go`` is ``start``, ``Await`` is ``wait`` or ``await task``,
``Err`` is ``error``; the run that a function is given is ``current_task()``, and what a context does there, cancelling
does here. Where the two differ on purpose, the line says how ours is.
"""

from __future__ import annotations

import pytest

from tests.guide.references import every, is_there

STATES = "local/test_states.py::"
HOOKS = "local/test_hooks.py::"
RESULTS = "local/test_results.py::"
FUNCTIONS = "local/test_functions.py::"
CANCELLING = "local/test_cancelling.py::"
RETRIES = "local/test_retries.py::"
OPTIONS = "local/test_options.py::"
SEMAPHORE = "local/test_semaphore.py::"
POOL = "local/test_pool.py::"
GROUPS = "local/test_pool_groups.py::"
STOP = "local/test_pool_stop.py::"
STATS = "local/test_pool_stats.py::"
ENDS = "local/test_loop_ends.py::"
ORDER = "local/test_any_order.py::"

PROMISES: dict[str, tuple[str, ...]] = {
    "1 a definition has an id, a function, hooks, delay, retries, 30 s unless told; a new task is created": (
        OPTIONS + "test_the_defaults_are_those_of_the_contract",
        OPTIONS + "test_a_run_may_take_thirty_seconds_unless_it_is_told_otherwise",
        STATES + "test_a_new_task_is_created_and_nothing_has_run",
        HOOKS + "test_created_is_told_when_the_task_is_made",
    ),
    "2 six states with their numbers, and questions about each": (
        STATES + "test_the_states_are_numbered_in_their_order",
        STATES + "test_a_task_is_pending_when_it_was_started_and_started_when_its_function_runs",
        STATES + "test_a_task_whose_function_raises_is_failed_with_that_error",
        STATES + "test_a_cancelled_task_is_cancelled",
        STATES + "test_ids_are_those_given_or_numbers_of_their_own",
    ),
    "3 the ways from state to state; an ended task may be started again": (
        STATES + "test_an_ended_task_is_started_again_and_nothing_of_the_last_run_is_left",
        ORDER + "OneTask",
    ),
    "4 starting: refused without a context (here an event loop) or in progress; pending with the attempt, from 0; here "
    "the delay does not hold up the caller": (
        FUNCTIONS + "test_a_task_can_be_made_anywhere_and_started_only_where_an_event_loop_runs",
        STATES + "test_a_task_in_progress_is_not_started_a_second_time",
        HOOKS + "test_a_task_that_is_done_is_told_step_by_step",
    ),
    "5 cancelled in its delay, it is cancelled and the function never runs": (
        CANCELLING + "test_a_task_that_is_cancelled_in_its_delay_never_calls_its_function",
    ),
    "6 no function: failed; here refused when it is made": (
        OPTIONS + "test_a_task_without_a_function_is_refused_when_it_is_made",
    ),
    "7 done without an error; failed with the function's error, whatever it raises": (
        STATES + "test_a_task_is_pending_when_it_was_started_and_started_when_its_function_runs",
        STATES + "test_a_task_whose_function_raises_is_failed_with_that_error",
        RETRIES + "test_errors_that_are_no_exceptions_are_failures_like_any_other",
    ),
    "8 too long: failed with a timeout": (
        CANCELLING + "test_a_function_that_takes_too_long_is_cancelled_and_the_task_has_failed",
    ),
    "9 cancelled by itself, by what it runs in or by its own function; before the start nothing, many times no harm": (
        CANCELLING + "test_cancelling_what_was_not_started_or_has_ended_does_nothing",
        CANCELLING + "test_cancelling_a_run_cancels_its_function_once_however_often_it_is_done",
        CANCELLING + "test_a_cancellation_has_what_the_function_raised_as_its_cause",
        CANCELLING + "test_a_function_that_raises_a_cancellation_itself_is_cancelled",
        STOP + "test_a_block_in_a_timeout_ends_with_it",
        ENDS + "test_tasks_that_an_event_loop_leaves_behind_are_cancelled_with_it_in_whatever_state_they_are",
    ),
    "10 waiting: until the end, any number, at once before the start": (
        RESULTS + "test_any_number_may_wait",
        RESULTS + "test_wait_returns_when_the_run_has_ended_in_whatever_way",
        RESULTS + "test_wait_returns_at_once_for_what_was_not_started",
    ),
    "11 the function has its id, its context, can cancel itself and call a hook": (
        FUNCTIONS + "test_a_function_finds_its_task_in_coroutines_threads_and_what_they_begin",
        FUNCTIONS + "test_a_function_sees_the_context_of_whoever_started_it_and_changes_only_its_own",
        CANCELLING + "test_a_function_may_cancel_its_own_task",
        HOOKS + "test_reported_is_told_what_the_function_reports_between_started_and_done",
    ),
    "12 hooks with UTC instants; unset is none; what they raise is swallowed, here logged": (
        HOOKS + "test_a_task_that_is_done_is_told_step_by_step",
        HOOKS + "test_failed_is_told_the_error",
        HOOKS + "test_canceled_is_told_for_one_that_ran_and_for_one_that_did_not_begin",
        HOOKS + "test_what_a_hook_raises_is_logged_and_changes_nothing",
        HOOKS + "test_without_hooks_nothing_is_logged",
    ),
    "13 retries: only failures, the error of the last; here attempts after the first, and none are no error": (
        RETRIES + "test_max_retries_counts_the_attempts_after_the_first",
        RETRIES + "test_without_retries_there_is_one_attempt",
        RETRIES + "test_a_timeout_is_tried_again",
        RETRIES + "test_a_cancelled_task_is_not_tried_again",
        RETRIES + "test_the_delay_lies_before_the_first_attempt_only",
    ),
    "14 retries with exponential backoff, however it was started": (
        RETRIES + "test_the_waits_between_attempts_grow_exponentially_up_to_thirty_seconds",
        RETRIES + "test_the_worker_of_a_pool_is_held_until_the_last_attempt_has_ended",
    ),
    "15 the semaphore: four ways to take a slot, and figures that add up": (
        SEMAPHORE + "test_slots_are_taken_and_given_back",
        SEMAPHORE + "test_who_finds_none_waits_and_is_next_first_come_first_served",
        SEMAPHORE + "test_a_wait_that_is_over_takes_no_slot",
        SEMAPHORE + "test_who_is_cancelled_while_waiting_takes_no_slot_and_the_next_gets_it",
        ORDER + "OneSemaphore",
    ),
    "16 a pool of no workers has one; hooks for all": (
        OPTIONS + "test_a_pool_of_no_or_less_workers_has_one",
        STATS + "test_the_hooks_of_a_pool_are_told_of_each_task_before_its_own",
    ),
    "17 submit: refused after a stop, waits while all are busy, gives the slot back on an error; a failure is none": (
        STOP + "test_every_way_to_submit_is_closed_after_a_stop",
        POOL + "test_submit_waits_while_all_workers_are_busy",
        POOL + "test_a_task_in_progress_is_refused_and_the_worker_is_given_back",
        POOL + "test_a_task_that_fails_is_no_error_of_the_pool",
    ),
    "18 never more than so many at once; the slot is held through the delay and until the end": (
        POOL + "test_never_more_run_at_once_than_there_are_workers",
        POOL + "test_the_worker_is_taken_during_the_delay_as_well",
    ),
    "19 a batch in its order; on an error what was submitted and the error": (
        POOL + "test_a_batch_is_submitted_in_its_order",
        POOL + "test_a_batch_that_is_interrupted_names_what_it_has_submitted",
    ),
    "20 a group: all at once, the first error cancels the rest and is told after all have ended": (
        GROUPS + "test_the_members_run_at_once_as_far_as_there_are_workers",
        GROUPS + "test_the_first_error_cancels_the_rest_and_is_raised_when_all_have_ended",
        GROUPS + "test_a_member_that_is_cancelled_by_itself_is_no_error",
        GROUPS + "test_a_caller_that_is_cancelled_cancels_its_group_and_waits_for_its_end",
    ),
    "21 waiting for all, with a limit; the pool and the tasks go on": (
        STOP + "test_wait_returns_when_everything_submitted_has_ended_and_the_pool_goes_on",
        STOP + "test_a_wait_that_is_over_says_how_many_are_left_and_they_go_on",
    ),
    "22 stopping: no new ones, those that run go on, or are cancelled; here both wait, with a limit": (
        STOP + "test_stop_takes_no_more_tasks_and_waits_for_those_in_progress",
        STOP + "test_stop_with_cancel_cancels_what_is_in_progress_and_waits_for_it",
        STOP + "test_a_stop_that_takes_too_long_says_so_and_the_pool_is_stopped",
        POOL + "test_a_pool_keeps_tasks_in_progress_and_no_others",
    ),
    "23 statistics: the total is the sum of six; the ends for good; the workers": (
        STATS + "test_the_figures_of_a_new_pool",
        STATS + "test_each_state_is_counted_while_it_lasts_and_the_ends_for_good",
    ),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 started was written after the launch, so that a quick task stayed started for ever": (
        STATES + "test_a_task_that_ends_at_once_is_seen_as_started_before_it_is_done",
        STATS + "test_figures_agree_in_every_step_of_the_event_loop",
    ),
    "W2 a function that timed out ran on, its slot free already": (
        CANCELLING + "test_a_function_that_ignores_its_timeout_keeps_its_task_going_and_its_worker_until_it_ends",
        CANCELLING + "test_a_thread_that_takes_too_long_keeps_its_worker_until_it_returns_and_can_look",
    ),
    "W3 a submit that waited saw neither its context nor a stop, and began after it; the pool's hooks were ignored": (
        POOL + "test_who_is_cancelled_while_it_waits_for_a_worker_takes_none_and_its_function_never_runs",
        POOL + "test_who_is_cancelled_in_the_instant_in_which_a_worker_is_free_leaves_it_to_the_next",
        STOP + "test_who_waits_for_a_worker_is_refused_as_soon_as_the_pool_is_stopped_and_never_begins",
        STOP + "test_a_worker_that_is_given_in_the_instant_of_the_stop_is_given_back",
        STATS + "test_the_hooks_of_a_pool_hear_reports_and_of_tasks_that_were_made_elsewhere",
    ),
    "W4 every task was kept for ever; errors and attempts of the last run stayed; a cancelled retry was no error": (
        "local/test_memory.py::test_a_pool_does_not_grow_with_the_tasks_that_went_through_it",
        STATES + "test_an_ended_task_is_started_again_and_nothing_of_the_last_run_is_left",
        RETRIES + "test_a_task_is_tried_again_until_it_succeeds",
        RETRIES + "test_while_it_waits_for_its_retry_a_task_is_pending_and_shows_the_error",
    ),
    "W5 a release too many blocked for ever, a limit of nothing always, and a negative one panicked": (
        SEMAPHORE + "test_a_release_without_a_slot_is_an_error_and_changes_nothing",
        OPTIONS + "test_a_semaphore_of_no_slots_or_less_is_refused",
    ),
}


@pytest.mark.parametrize("reference", every(PROMISES, WEAKNESSES))
def test_the_tests_that_show_it_exist(reference: str) -> None:
    assert is_there(reference)


def test_each_of_its_lines_is_there() -> None:
    assert [int(line.split()[0]) for line in PROMISES] == list(range(1, 24))
    assert [line.split()[0] for line in WEAKNESSES] == [f"W{n}" for n in range(1, 6)]

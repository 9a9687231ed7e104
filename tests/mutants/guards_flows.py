"""The guards of workflows that are broken, and the tests that hold each."""

from __future__ import annotations

from tests.mutants.mutant import SCRIPTS, Mutant

DISPATCHING = "tests/workflows/test_dispatching.py"
DUPLICATES = "tests/faults/test_workflow_duplicates.py"
FAULTS = "tests/faults/test_workflow_faults.py"
LOSSES = "tests/faults/test_workflow_losses.py"
FOLLOW, NODES = SCRIPTS + "_follow.lua", SCRIPTS + "_nodes.lua"


def of(file: str, *names: str) -> tuple[str, ...]:
    """Some tests of a file."""
    return tuple(f"{file}::test_{name}" for name in names)


MUTANTS = (
    Mutant(
        "told-twice",
        "a member whose end is told twice counts twice, and the group calls back too early",
        NODES,
        "  if was ~= 'o' and was ~= 'w' then return end\n",
        "",
        of(DUPLICATES, "a_member_whose_end_is_told_twice_counts_once"),
    ),
    Mutant(
        "counted-down-twice",
        "a group calls back when half of its members have ended",
        NODES,
        "'b:' .. number, -n) == 0 then",
        "'b:' .. number, -2 * n) <= 0 then",
        of(DUPLICATES, "a_groups_callback_comes_exactly_once_under_duplicates_and_kills"),
    ),
    Mutant(
        "link-stays",
        "who is delivered twice is told of twice, and what jobs waited for is never forgotten",
        FOLLOW,
        "  if #gone > 0 then call('HDEL', key, unpack(gone)) end\n",
        "",
        of(DUPLICATES, "a_step_that_is_delivered_twice_is_followed_once"),
    ),
    Mutant(
        "first-of-several",
        "what waits for several starts after the first of them",
        NODES,
        "mark == '' or pcall_('HINCRBY', flow.key, 'b:' .. follower, -1) == 0 then",
        "mark == '' or pcall_('HINCRBY', flow.key, 'b:' .. follower, -1) then",
        ("tests/workflows/test_graph_jobs.py",),
    ),
    Mutant(
        "followed-after-a-failure",
        "a chain goes on after a step that has failed",
        NODES,
        "    elseif cause then\n      add('never', flow, follower, cause)\n",
        "",
        ("tests/workflows/test_chain_jobs.py",),
    ),
    Mutant(
        "clean-up-after-success",
        "what cleans up behind a failed group runs behind one that has succeeded",
        NODES,
        "add('go', flow, follower) else add('never', flow, follower, 'n') end",
        "add('go', flow, follower) else add('never', flow, follower, '-') end",
        of(LOSSES, "what_stands_aside_for_a_failure_never_runs_when_all_is_well"),
    ),
    Mutant(
        "cut-later",
        "a step that ends while its workflow is being cancelled starts the next one",
        FOLLOW,
        "  if is_cut(flow, number) then return DO.never(here, flow, number, 'c') end\n",
        "",
        of(DUPLICATES, "a_cancelled_chain_goes_no_further_though_nobody_has_told_what_waits"),
    ),
    Mutant(
        "value-for-nobody",
        "a job after a group finds nothing of what its members came to",
        NODES,
        "(words.is_kept or is_lost or number == flow.result)",
        "(is_lost or number == flow.result)",
        of(LOSSES, "what_one_step_hands_to_the_next_outlives_every_result_ttl"),
    ),
    Mutant(
        "begun-by-somebody",
        "a workflow whose first step was cut in the middle is taken for another one, and never begins",
        SCRIPTS + "begin.lua",
        "    if call('HGET', KEYS[6], 'token') ~= ARGV[9] then return '0' end\n",
        "    if true then return '0' end\n",
        of(
            "tests/workflows/test_cut_scripts.py",
            "a_script_that_was_cut_in_the_middle_is_made_good_when_it_is_sent_again",
        ),
    ),
    Mutant(
        "begun-again",
        "a dispatch whose reply was lost is told that another workflow has its id",
        SCRIPTS + "begin.lua",
        "if past then return past end\n",
        "if past then return '0' end\n",
        of(DUPLICATES, "a_workflow_whose_dispatch_loses_a_reply_begins_once"),
    ),
    Mutant(
        "half-a-workflow",
        "a workflow begins though a part of it was lost on its way",
        SCRIPTS + "begin.lua",
        "    if call('HLEN', KEYS[10]) ~= staged then return 'late' end\n",
        "",
        of(FAULTS, "a_workflow_of_which_a_part_has_been_lost_on_the_way_does_not_begin"),
    ),
    Mutant(
        "staged-for-ever",
        "what dispatchers leave behind when they die stays for ever",
        SCRIPTS + "stage.lua",
        "call('PEXPIRE', KEYS[1], ARGV[1] * 1000)\n",
        "",
        of(FAULTS, "a_dispatcher_that_dies_before_all_of_a_workflow_is_there_leaves_nothing_that_runs"),
    ),
    Mutant(
        "too-many-ids",
        "a group of 4,000 jobs with ids of their own is stored, and never begins",
        SCRIPTS + "begin.lua",
        "local NAMES = 2000\n",
        "local NAMES = 1000000\n",
        of(LOSSES, "a_group_of_jobs_with_ids_of_their_own_may_be_large"),
    ),
    Mutant(
        "applied-twice",
        "what a courier brings again, as it died before it could delete it, counts again",
        SCRIPTS + "deliver.lua",
        "  if beyond(ARGV[n], received) then\n",
        "  if true then\n",
        of(DUPLICATES, "many_couriers_at_once_deliver_each_message_once", "what_a_courier_carries_twice_counts_once"),
    ),
    Mutant(
        "ended-and-not-told",
        "an outcome is recorded, and whoever waited for it waits on",
        SCRIPTS + "settle.lua",
        "if #ended > 0 then note_ends(here, ended, hows, records) end\n",
        "",
        of(FAULTS, "a_worker_that_dies_around_the_end_of_a_step_starts_the_next_one_once"),
    ),
    Mutant(
        "unkept-and-not-handed-on",
        "what follows a job whose result is not kept sees nothing of it",
        SCRIPTS + "settle.lua",
        "      if operation == 'y' then records[#ended] = ARGV[p + 1] end\n",
        "",
        of(LOSSES, "what_follows_a_job_whose_result_is_not_kept_starts_and_sees_it"),
    ),
    Mutant(
        "deleted-and-not-told",
        "a group with a member that was deleted waits for it for ever",
        SCRIPTS + "delete.lua",
        "let_followers_go(here)\n",
        "",
        of(LOSSES, "a_group_whose_members_are_taken_away_ends_and_calls_back_once"),
    ),
    Mutant(
        "orphaned-and-not-told",
        "a group with a member whose entry was deleted waits for it for ever",
        SCRIPTS + "audit.lua",
        "  let_followers_go(here)\n",
        "",
        of(LOSSES, "a_group_whose_members_are_taken_away_ends_and_calls_back_once"),
    ),
    Mutant(
        "begun-and-refused",
        "a dispatch fails though the workflow has begun: who dispatches it again has two",
        "taskrunner/store/workflows.py",
        "        except RedisError as error:\n            log.info(",
        "        except ZeroDivisionError as error:\n            log.info(",
        of(DUPLICATES, "a_workflow_whose_dispatch_loses_a_reply_begins_once"),
    ),
    Mutant(
        "undelivered-and-deleted",
        "a job of another partition is lost when a stranger's data stands in its queue",
        "taskrunner/store/outbox.py",
        "if not _beyond(id, received)]",
        "]",
        of(LOSSES, "a_message_that_can_not_be_applied_yet_waits"),
    ),
)

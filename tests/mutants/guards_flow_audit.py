"""The guards of workflows against what operators, strangers and full servers do, and the tests that hold each."""

from __future__ import annotations

from tests.mutants.mutant import SCRIPTS, Mutant

MISSING = "tests/workflows/test_missing_parts.py::test_"
AFAR = "tests/workflows/test_missing_partitions.py::test_"
FOREIGN = "tests/workflows/test_foreign_data.py::test_"
FULL = "tests/workflows/test_full_servers.py::test_"
AUDIT, FOLLOW, NODES = (SCRIPTS + name for name in ("audit_workflows.lua", "_follow.lua", "_nodes.lua"))

MUTANTS = (
    Mutant(
        "under-way-unseen",
        "a large workflow in the middle of its beginning is taken for one that can't go on",
        AUDIT,
        "    if busy and not busy[id] then unstick(flow, states) end\n",
        "    unstick(flow, states)\n",
        (MISSING + "what_is_left_over_of_a_large_workflow_is_under_way_when_nothing_of_it_runs",),
    ),
    Mutant(
        "join-not-awaited",
        "a join ends though a part of what belongs to it waits",
        AUDIT,
        "  if string.find(string.sub(states, number + 2, past + 1), '[wo]') then return nil end\n",
        "",
        (MISSING + "a_chain_whose_job_has_forgotten_who_follows_fails_when_that_has_ended",
         MISSING + "a_join_whose_count_is_off_ends_when_all_before_it_have"),
    ),
    Mutant(
        "fork-forgotten",
        "a large group that nobody goes on with fails instead of going on",
        AUDIT,
        "  if nth and was ~= 'w' and tonumber(nth) < tonumber(past) then\n",
        "  if false then\n",
        (MISSING + "a_large_workflow_goes_on_when_what_was_left_of_it_is_forgotten",),
    ),
    Mutant(
        "look-writes",
        "the doctor writes when it only looks",
        AUDIT,
        "    if mend then add_link(",
        "    if true then add_link(",
        (MISSING + "a_job_that_does_not_know_its_node_any_more_learns_it_again",),
    ),
    Mutant(
        "value-of-the-linkless",
        "what a job came to that forgot its followers is lost to the list of its group",
        NODES,
        "words.is_kept or is_lost or",
        "words.is_kept or",
        (MISSING + "a_node_whose_jobs_outcome_is_known_ends_as_that_says",),
    ),
    Mutant(
        "message-that-stops",
        "a message that nobody can read stops all behind it",
        SCRIPTS + "deliver.lua",
        "if receive then ok, done = pcall(receive, ARGV[n + 2], ARGV[n + 3]) end",
        "if receive then done = receive(ARGV[n + 2], ARGV[n + 3]) end",
        (FOREIGN + "a_message_that_cannot_be_read_is_dropped_and_the_next_one_comes_through",),
    ),
    Mutant(
        "damage-that-stops",
        "a damaged part of a workflow keeps its jobs and others from being settled",
        FOLLOW,
        "        attempt(DO[one[1]], here, one[2], one[3], one[4], one[5], one[6])",
        "        DO[one[1]](here, one[2], one[3], one[4], one[5], one[6])",
        (FOREIGN + "a_part_of_a_workflow_that_makes_no_sense_costs_no_other_job_and_the_workflow_ends",),
    ),
    Mutant(
        "end-without-outbox",
        "an end that could not be told to another partition is forgotten",
        FOLLOW,
        "      if is_told then gone[#gone + 1] = ids[n] end\n",
        "      gone[#gone + 1] = ids[n]\n",
        (AFAR + "an_end_that_can_not_be_told_to_another_partition_is_told_later",),
    ),
    Mutant(
        "full-and-begun",
        "a workflow begins on a server whose memory is full",
        SCRIPTS + "begin.lua",
        "  call('SET', KEYS[7], string.rep('w', size)) -- first",
        "  call('DEL', KEYS[8])\n  call('SET', KEYS[7], string.rep('w', size)) -- first",
        (FULL + "a_full_server_takes_no_workflow_and_keeps_nothing_of_it",
         FULL + "a_server_that_is_full_behind_the_last_part_takes_no_workflow"),
    ),
    Mutant(
        "full-and-not-cancelled",
        "a workflow can't be cancelled on a full server",
        SCRIPTS + "halt.lua",
        "call('HDEL', KEYS[2], '')",
        "",
        (FULL + "what_runs_comes_to_its_end_on_a_full_server",),
    ),
    Mutant(
        "full-and-untold",
        "on a full server no partition hears what has ended in another one",
        SCRIPTS + "deliver.lua",
        "call('HDEL', KEYS[5], '')",
        "",
        (FULL + "what_runs_comes_to_its_end_on_a_full_server",),
    ),
)  # fmt: skip

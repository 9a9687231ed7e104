"""The guards that are broken, one by one, and the tests that hold each."""

from __future__ import annotations

from dataclasses import dataclass

SCRIPTS = "taskrunner/store/scripts/"


@dataclass(frozen=True)
class Mutant:
    """One broken guard: in ``file``, ``text`` (which stands there exactly once) becomes ``becomes``.

    ``tests`` are what is run, as pytest is told it; ``story`` says what would happen to somebody's jobs.
    """

    name: str
    story: str
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "heartbeat-steals",
        "a heartbeat takes back a job that another worker has taken over",
        SCRIPTS + "beat.lua",
        "if count == tonumber(ARGV[i + 1]) then",
        "if true then",
        ("tests/store/test_beat_script.py",),
    ),
    Mutant(
        "anybody-settles",
        "an outcome counts if the entry was pending, whoever holds it: XACK alone",
        SCRIPTS + "settle.lua",
        "if count == tonumber(ARGV[starts[item] + 1]) then",
        "if call('XACK', stream, group, id) == 1 then",
        ("tests/store/test_settle_script.py",),
    ),
    Mutant(
        "cursor-forgotten",
        "reclaiming begins at 0-0 each time: the dead hide behind the living",
        SCRIPTS + "reclaim.lua",
        "local cursor, turn, shortest = state[1] or '0-0',",
        "local cursor, turn, shortest = '0-0',",
        ("tests/store/test_reclaim_script.py", "tests/worker/test_reclaim.py"),
    ),
    Mutant(
        "no-grace",
        "after an outage all that runs is taken over at once",
        SCRIPTS + "_prelude.lua",
        "return at < grace",
        "return false",
        ("tests/store/test_reclaim_script.py", "tests/faults/test_paused_servers.py"),
    ),
    Mutant(
        "unique-key-of-another",
        "a job that ends frees the unique key of another one",
        SCRIPTS + "_release.lua",
        "if pcall_('GET', key) ~= id then return end",
        "local _ = id",
        ("tests/store/test_settle_script.py", "tests/features/test_unique_release.py"),
    ),
    Mutant(
        "unique-key-for-ever",
        "a unique key whose holder was lost blocks its jobs for ever",
        SCRIPTS + "dispatch.lua",
        "if alive(other) then rival = rival or other end",
        "rival = rival or other",
        ("tests/store/test_dispatch_script.py", "tests/features/test_unique_release.py"),
    ),
    Mutant(
        "sent-again-means-done-again",
        "a batch whose reply was lost takes effect twice",
        SCRIPTS + "_prelude.lua",
        "if known == tonumber(number) then",
        "if false then",
        ("tests/store/test_batches.py",),
    ),
    Mutant(
        "promoted-and-kept",
        "a due job stays due after it was promoted",
        SCRIPTS + "promote.lua",
        "  unwait(queue, ids, tasks)",
        "  local _ = ids",
        ("tests/store/test_promote_script.py",),
    ),
    Mutant(
        "promoted-before-its-entry",
        "a due job is taken off before its entry is written, and the entry fails",
        SCRIPTS + "promote.lua",
        "local entry = enter(queue.stream, marks, version, letter)",
        "local entry = '0-1'",
        ("tests/store/test_promote_script.py",),
    ),
    Mutant(
        "consumer-with-its-jobs",
        "a worker that signs off takes what is pending for it along",
        SCRIPTS + "leave.lua",
        "if #rows == 0 then",
        "if true then",
        ("tests/store/test_registry_scripts.py",),
    ),
    Mutant(
        "full-server-stops-workers",
        "a server without memory refuses workers their outcomes and beats",
        SCRIPTS + "_prelude.lua",
        "local function insist(zset) call('ZREM', zset, '') end",
        "local function insist(zset) end",
        ("tests/faults/test_refusing_servers.py",),
    ),
    Mutant(
        "fetch-reply-forgotten",
        "jobs in a reply that got lost wait for a reservation, and a crash is counted",
        "taskrunner/worker/fetcher.py",
        "if self._unsure or time.monotonic() > self._look_at:",
        "if time.monotonic() > self._look_at:",
        ("tests/faults/test_lost_replies.py", "tests/worker/test_roles.py"),
    ),
    Mutant(
        "takeover-reply-forgotten",
        "the same for jobs that were taken over",
        "taskrunner/worker/reclaimer.py",
        "self._lost()  # the reply",
        "pass  # the reply",
        ("tests/faults/test_lost_replies.py",),
    ),
    Mutant(
        "no-sweep-at-the-end",
        "a worker signs off with jobs that it doesn't know of",
        "taskrunner/worker/worker.py",
        "self.inventory.hand_back(await fetcher.sweep())",
        "await fetcher.sweep()",
        ("tests/worker/test_stop_races.py",),
    ),
    Mutant(
        "poison-for-ever",
        "a job that kills its workers is delivered for ever",
        "taskrunner/worker/executor.py",
        "if arrival.deliveries + crashes > self._max_deliveries:",
        "if False:",
        ("tests/faults/test_killed_workers.py",),
    ),
    Mutant(
        "busy-loop-loses-jobs",
        "an event loop that is busy for a moment loses its jobs",
        "taskrunner/worker/keeper.py",
        "if blocked <= self._max_loop_block:",
        "if blocked <= 2 * TICK:",
        ("tests/worker/test_long_jobs.py",),
    ),
    Mutant(
        "dead-loop-keeps-jobs",
        "an event loop that is wedged keeps its jobs for ever",
        "taskrunner/worker/keeper.py",
        "if blocked <= self._max_loop_block:",
        "if True:",
        ("tests/worker/test_heartbeats.py", "tests/faults/test_blocked_loops.py"),
    ),
    Mutant(
        "stale-start",
        "a job that was fetched long ago is started although another worker may have it",
        "taskrunner/worker/executor.py",
        "if started - arrival.fetched_at > self._safe and started - self._confirmed() > self._safe:",
        "if False:",
        ("tests/worker/test_stale_starts.py",),
    ),
    Mutant(
        "zombie-runs-on",
        "a run whose job was taken over is not cancelled",
        "taskrunner/worker/worker.py",
        "self.executor.interrupt(deliveries, LOST)",
        "0",
        ("tests/faults/test_stopped_workers.py",),
    ),
    Mutant(
        "old-primary-believed",
        "after a failover the old address is tried for ever",
        "taskrunner/store/links.py",
        "again=self._failed)",
        "again=False)",
        ("tests/faults/test_sentinel.py::test_a_process_that_only_dispatches_finds_the_new_primary_by_itself",),
    ),
    Mutant(
        "moved-slot-lost",
        "a slot that moves to another node is an error",
        "taskrunner/store/links.py",
        "self._deployment.moved(self._key, there.host, there.port)",
        "pass",
        ("tests/faults/test_cluster.py::test_a_key_that_has_gone_already_is_asked_for_at_its_new_node",),
    ),
    Mutant(
        "unfinished-trimmed",
        "an audit trail is trimmed past a job that is not finished",
        SCRIPTS + "trim.lua",
        "then limit = oldest end",
        "then end",
        ("tests/store/test_trim_script.py",),
    ),
    Mutant(
        "confirmed-by-nobody",
        "a dispatch that is sent again is confirmed on a connection that has written nothing",
        SCRIPTS + "_prelude.lua",
        "    call('PEXPIRE', key, seconds * 1000)\n",
        "",
        ("tests/faults/test_uncertain_dispatches.py", "tests/store/test_batches.py"),
    ),
    Mutant(
        "confirmed-elsewhere",
        "WAIT counts whatever it returns",
        "taskrunner/store/confirm.py",
        "return int(reply) >= 1",
        "return True",
        ("tests/faults/test_uncertain_dispatches.py", "tests/features/test_durability.py"),
    ),
    Mutant(
        "late-reply-believed",
        "jobs in a reply that lay unread while the loop was blocked are started twice",
        "taskrunner/worker/fetcher.py",
        "self._unsure |= late",
        "late = False",
        ("tests/worker/test_long_jobs.py",),
    ),
    Mutant(
        "swept-and-taken",
        "a sweep and a takeover give a worker the same job twice",
        "taskrunner/worker/fetcher.py",
        "async with self._inventory.claims[partition.number]:",
        "if True:",
        ("tests/worker/test_sweeps.py",),
    ),
    Mutant(
        "takes-from-itself",
        "a worker whose heartbeats don't arrive takes over its own running jobs",
        "taskrunner/worker/reclaimer.py",
        "if time.monotonic() - self._confirmed() > self._safe:",
        "if False:",
        ("tests/faults/test_bad_networks.py",),
    ),
    Mutant(
        "last-run-under-its-name",
        "a job at its last run that is put back runs with a token that was used",
        SCRIPTS + "reclaim.lua",
        "call('XCLAIM', stream, group, 'parked', 0,",
        "call('XCLAIM', stream, group, me, 0,",
        ("tests/store/test_reclaim_script.py",),
    ),
    Mutant(
        "full-before-its-worker",
        "a server that is full when the first worker comes is never drained",
        SCRIPTS + "join.lua",
        "insist(KEYS[2])",
        "local _ = KEYS",
        ("tests/faults/test_full_servers.py", "tests/store/test_join_script.py"),
    ),
    Mutant(
        "group-at-the-end",
        "jobs that were dispatched before the group was made are never seen",
        SCRIPTS + "join.lua",
        "ARGV[1], '0', 'MKSTREAM'",
        "ARGV[1], '$', 'MKSTREAM'",
        ("tests/store/test_join_script.py", "tests/store/test_registry_scripts.py"),
    ),
    Mutant(
        "orphans-stay",
        "a job whose entry an operator deleted stays queued for ever",
        SCRIPTS + "audit.lua",
        "if not queue.strays and not is_pending(queue, entry) then",
        "if false then",
        ("tests/store/test_audit_script.py",),
    ),
    Mutant(
        "the-living-are-orphans",
        "a job that a worker still runs is taken for an orphan",
        SCRIPTS + "audit.lua",
        "if not queue.strays and not is_pending(queue, entry) then",
        "if not queue.strays then",
        ("tests/store/test_audit_script.py",),
    ),
    Mutant(
        "hostile-facts",
        "a letter with facts of the wrong types kills the slot that reads it",
        "taskrunner/store/wire.py",
        "if sound is not None and not sound(value):",
        "if False:",
        ("tests/store/test_damaged_letters.py", "tests/store/test_wire.py"),
    ),
)

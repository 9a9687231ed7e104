"""The guards of progress, events and outcomes that are broken, and the tests that hold each."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SCRIPTS = "taskrunner/store/scripts/"
MUTANTS = (
    Mutant(
        "progress-unfenced",
        "a run that has lost its job tells progress over that of the new owner",
        SCRIPTS + "progress.lua",
        "rows[1][4] == tonumber(ARGV[first + 1])",
        "true",
        ("tests/store/test_progress_script.py",),
    ),
    Mutant(
        "progress-untold",
        "who follows a job sees progress only by looking",
        SCRIPTS + "progress.lua",
        "pcall_('PUBLISH', one, ARGV[first + 3])",
        "local _ = one",
        ("tests/store/test_progress_script.py", "tests/features/test_job_events.py"),
    ),
    Mutant(
        "progress-for-days",
        "progress of a job that has ended stays for a week",
        "taskrunner/store/saved.py",
        "(partition.saved(id), partition.progress(id))",
        "(partition.saved(id),)",
        ("tests/features/test_progress.py",),
    ),
    Mutant(
        "last-word-lost",
        "the last report of a run is refused, since the outcome is there first",
        "taskrunner/progress.py",
        "                    self._hurry.set()\n                    await self._round.wait()\n",
        "                    break\n",
        ("tests/features/test_progress.py",),
    ),
    Mutant(
        "followers-blind",
        "a follower whose notice was lost never hears of the end",
        "taskrunner/session.py",
        "NEWS if further else LOOK_AGAIN",
        "(3600.0, 3600.0) if further else LOOK_AGAIN",
        ("tests/features/test_job_events.py",),
    ),
    Mutant(
        "result-of-the-living",
        "delete_result takes the record of a dead letter that runs again, or what a live job has saved",
        SCRIPTS + "forget.lua",
        "call('HEXISTS', KEYS[2], ARGV[3]) == 0 and call('GET', KEYS[3])",
        "call('GET', KEYS[3]) or call('GET', KEYS[4])",
        ("tests/features/test_delete_result.py",),
    ),
    Mutant(
        "forgotten-and-listed",
        "a deleted outcome stays on the list of its queue",
        SCRIPTS + "forget.lua",
        "pcall_('LREM', ARGV[4] .. list .. row[3], 0, ARGV[3])",
        "pcall_('LREM', ARGV[4] .. list .. row[3], 0, '1')",
        ("tests/features/test_delete_result.py",),
    ),
    Mutant(
        "refusal-taken-for-nothing",
        "what a busy server has no time to tell of jobs is taken for jobs of which nothing is known",
        "taskrunner/store/links.py",
        "return [None if _is_foreign(reply) else _sound(reply) for reply in replies]",
        "return [None if isinstance(reply, theirs.ResponseError) else reply for reply in replies]",
        ("tests/store/test_links.py", "tests/store/test_glance.py"),
    ),
    Mutant(
        "foreign-data-stops-everything",
        "one key that is a stranger's keeps whoever looks at many from all of them",
        "taskrunner/store/links.py",
        "return [None if _is_foreign(reply) else _sound(reply) for reply in replies]",
        "return [_sound(reply) for reply in replies]",
        ("tests/store/test_links.py",),
    ),
)

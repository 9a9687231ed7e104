"""The oracle: holds a history against the invariants, and names each that does not hold.

I1 no accepted job is lost, an uncertain one exists at most once · I2 one recorded completion per job, and it never
changes · I3 one living job per unique key, and never a dead one in its way · I4 one run per lock key, first come first
served · I5 no limit and no rate is exceeded · I6 nothing is left behind · I9 runs and deliveries are bounded · I10 each
follower in a workflow starts once · I11 a stale token changes nothing · I12 work goes on soon after a fault · I13 an
outage is nobody's failure · due: nothing runs before its time · own: nothing of ours breaks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.chaos import flow_rules, flows, recovery, seats
from tests.chaos.history import ENDLESS, Dispatch, Final, History, Record, Run, Violation
from tests.chaos.tasks import CANCELLED, RETRY_AFTER

CLOCK = 0.002
"""Seconds: a millisecond for rounding here, and one there."""
DEADLY = ("poison",)
KILLED = (-9, 3)
"""Codes of processes that were killed, or took poison."""


Check = Callable[[History, Final], Iterator[Violation]]


def check(history: History, final: Final) -> list[Violation]:
    """All violations, those of a known time first."""
    found = [violation for one in CHECKS for violation in one(history, final)]
    return sorted(found, key=lambda violation: violation.at)


# -- dispatches and records --------------------------------------------------------------------------------------------


def nothing_is_lost(history: History, final: Final) -> Iterator[Violation]:
    for id, made in history.accepted.items():
        if id not in final.records:
            yield Violation("I1", "it was accepted and has no outcome", id, made.returned)
    for id, runs in history.runs.items():
        if id not in final.records:
            yield Violation("I1", "it has run and has no outcome", id, runs[0].start.at)
    if final.backlog:
        yield Violation("I1", f"not at rest in time: {final.backlog}")


def a_dispatch_makes_one_job(history: History, final: Final) -> Iterator[Violation]:
    ids: dict[str, set[str]] = defaultdict(set)
    for one in history.dispatches:
        if one.outcome == "accepted":
            ids[one.serial].add(one.id)
    for run in history.all_runs():
        ids[run.serial].add(run.job)
    known = {one.serial for one in history.dispatches} | flow_rules.serials(history)
    for serial, found in ids.items():
        if len(found) > 1:
            yield Violation("I1", f"dispatch {serial} made {len(found)} jobs: {', '.join(sorted(found))}", min(found))
        if serial not in known:
            yield Violation("I1", f"a job of {serial}, which nobody dispatched", min(found))


def an_id_is_accepted_once(history: History, final: Final) -> Iterator[Violation]:
    times = Counter(one.id for one in history.dispatches if one.outcome == "accepted")
    for id, count in times.items():
        if count > 1:
            yield Violation("I2", f"it was accepted {count} times", id)


def what_is_rejected_does_not_exist(history: History, final: Final) -> Iterator[Violation]:
    outcomes: dict[str, set[str]] = defaultdict(set)
    for one in history.dispatches:
        outcomes[one.serial].add(one.outcome)
    rejected = {serial for serial, found in outcomes.items() if found == {"rejected"}}
    for id, runs in history.runs.items():
        if runs[0].serial in rejected:
            yield Violation("I1", "its dispatch was rejected, and it runs", id, runs[0].start.at)


def the_figures_count_each_job_once(history: History, final: Final) -> Iterator[Violation]:
    counts: Counter[tuple[str, str]] = Counter((one.task, one.status) for one in final.records.values())
    for task, (succeeded, failed, waiting) in final.figures.items():
        ended = counts[task, "succeeded"], counts[task, "failed"]
        if (succeeded, failed) != ended:
            yield Violation(
                "I2", f"{task}: the server counted {succeeded, failed} completions, there are {ended} records"
            )
        if waiting:
            yield Violation("I6", f"{task}: the server counts {waiting} waiting jobs after the drain")


def a_record_never_changes(history: History, final: Final) -> Iterator[Violation]:
    for line in history.by_event["seen"]:
        record = final.records.get(line.job)
        more = line.more
        seen = more["status"], more["attempts"], more["ended"], more["result"]
        if record is None or seen != (record.status, record.attempts, record.ended, record.result):
            yield Violation("I2", f"its record was {seen}, and now is {record}", line.job, line.at)
    for line in history.by_event["gone"]:
        made = history.accepted.get(line.job)
        if made is not None and made.returned < line.at:
            yield Violation("I1", f"it was accepted, and then unknown: {line.more['error']}", line.job, line.at)


def cancelling_tells_the_truth(history: History, final: Final) -> Iterator[Violation]:
    """Who was told that a job is cancelled finds it so for ever, and who was told that it had ended finds it so too."""
    asked = {line.job for line in history.by_event["cancelling"]} | flow_rules.cancellable(history)
    for line in history.by_event["cancel told"]:
        record, cancelled = final.records.get(line.job), line.more["cancelled"]
        if record is not None and (record.status == "cancelled") != cancelled:
            told = "cancelled" if cancelled else "ended before"
            yield Violation("I2", f"it was told to be {told}, and {record.status}", line.job, line.at)
    for id, record in final.records.items():
        if record.status == "cancelled" and id not in asked:
            yield Violation("I2", "it is cancelled, and nobody asked for it", id)


# -- runs --------------------------------------------------------------------------------------------------------------


def recorded_run(history: History, id: str, record: Record) -> Run | None:
    """The run that a record of success speaks of."""
    return next((run for run in history.runs.get(id, ()) if [run.pid, run.fence] == record.result), None)


def a_record_is_that_of_a_run(history: History, final: Final) -> Iterator[Violation]:
    for id, record in final.records.items():
        if record.status == "succeeded":
            run = recorded_run(history, id, record)
            if run is None or run.verdict != "end":
                yield Violation("I2", f"its record speaks of a run that did not end so: {record}", id)


def a_stale_token_changes_nothing(history: History, final: Final) -> Iterator[Violation]:
    """A run with a higher fence began: so the token of the recorded one was stale, or the job was delivered anew after
    its end."""
    for id, record in final.records.items():
        if record.result is None:
            continue
        for run in history.runs.get(id, ()):
            if run.fence > record.result[1]:
                text = f"fence {record.result[1]} was recorded, and {run.fence} was given out"
                yield Violation("I11", text, id, run.start.at)


def a_token_is_given_out_once(history: History, final: Final) -> Iterator[Violation]:
    for id, runs in history.runs.items():
        for fence, count in Counter(run.fence for run in runs).items():
            if count > 1:
                yield Violation("I11", f"{count} runs have the fence {fence}", id, runs[0].start.at)


def runs_are_bounded(history: History, final: Final) -> Iterator[Violation]:
    most, retries = history.plan["max_deliveries"], history.plan["max_retry"]
    for id, runs in history.runs.items():
        at = runs[-1].start.at
        spent = (run.attempt for run in runs if run.verdict not in ("cancelled", "snoozed"))
        for attempt, count in Counter(spent).items():
            if count > most:
                yield Violation("I9", f"attempt {attempt} was run {count} times", id, at)
        if max(run.attempt for run in runs) > 1 + retries:
            yield Violation("I9", f"it had more than {1 + retries} attempts", id, at)
        if max(run.deliveries for run in runs) > most:
            yield Violation("I9", f"it was delivered more than {most} times", id, at)


def outages_are_nobodys_failures(history: History, final: Final) -> Iterator[Violation]:
    for id, record in final.records.items():
        wanted, runs = _wanted(record.task), history.runs.get(id, [])
        last = runs[-1].start.at if runs else ENDLESS
        if record.reason == "delivery limit":
            if (
                record.task not in DEADLY
                and _losses(history, runs, history.accepted.get(id)) < history.plan["max_deliveries"]
            ):
                yield Violation("I13", "it reached the delivery limit without that many faults of workers", id, last)
        elif record.status not in wanted:
            yield Violation(
                "I13", f"a {record.task} job ended {record.status}: {record.error} ({record.reason})", id, last
            )
        elif record.task == "failing" and (record.error, record.attempts) != ("Doomed", 1 + history.plan["max_retry"]):
            yield Violation("I13", f"it failed with {record.error} after {record.attempts} attempts", id, last)
        elif record.task != "failing" and record.status == "succeeded":
            failures = len({run.attempt for run in runs if run.verdict == "raised"})
            if record.attempts != 1 + failures:
                text = f"{failures} runs raised, and {record.attempts} attempts were counted"
                yield Violation("I13", text, id, last)


def _wanted(task: str) -> tuple[str, ...]:
    if task == "brief":
        return ("succeeded", "expired")
    if task in (*CANCELLED, flows.LINK):
        return ("succeeded", "cancelled")
    if task == flows.BROKEN:
        return ("failed", "cancelled")
    return ("failed",) if task in ("failing", *DEADLY) else ("succeeded",)


def _losses(history: History, runs: list[Run], made: Dispatch | None) -> int:
    """How many faults there were in a job's life that can cost it a delivery."""
    began = made.began.at if made is not None else runs[0].start.at if runs else 0.0
    deaths = sum(line.at >= began for event in ("died", "stopped") for line in history.by_event[event])
    return deaths + sum(span.ended >= began for span in history.faults if span.kind not in ("poison", "lose replies"))


def hooks_are_told(history: History, final: Final) -> Iterator[Violation]:
    told = {(line.event, line.job) for event in ("on_success", "on_failure") for line in history.by_event[event]}
    for id, record in final.records.items():
        hook = {"succeeded": "on_success", "failed": "on_failure"}.get(record.status)
        if hook and (hook, id) not in told:
            yield Violation("hooks", f"it {record.status}, and {hook} was not called", id)
        if (record.status == "failed") != (id in final.dead):
            yield Violation(
                "I2", f"it {record.status}, and a dead letter is {'' if id in final.dead else 'not '}there", id
            )


def nothing_runs_before_its_time(history: History, final: Final) -> Iterator[Violation]:
    for id, made in history.accepted.items():
        for run in history.runs.get(id, ()):
            if made.delay and run.start.wall < made.began.wall + made.delay - CLOCK:
                early = made.began.wall + made.delay - run.start.wall
                yield Violation("due", f"it ran {early * 1000:.1f} ms early", id, run.start.at)
    for id, runs in history.runs.items():
        for run in runs:
            failed = [one.ended_wall for one in runs if one.attempt == run.attempt - 1 and one.verdict == "raised"]
            if failed and run.start.wall < min(failed) + RETRY_AFTER - CLOCK:
                early = min(failed) + RETRY_AFTER - run.start.wall
                yield Violation("due", f"attempt {run.attempt} ran {early * 1000:.1f} ms early", id, run.start.at)


# -- unique keys -------------------------------------------------------------------------------------------------------


def a_unique_key_has_one_living_job(history: History, final: Final) -> Iterator[Violation]:
    """From when a job certainly was there until its recorded run ended, no other one of its key may have been. One of
    unique="latest" may be there, but not run."""
    lives: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    keys = {one.serial: one.key for one in history.dispatches if one.key}
    accepted = {id: one.returned for id, one in history.accepted.items()}
    for id, record in final.records.items():
        run = recorded_run(history, id, record)
        if run is not None and run.serial in keys:
            first = min(one.start.at for one in history.runs[id])
            there = ENDLESS if run.kind == "latest" else accepted.get(id, ENDLESS)
            lives[keys[run.serial]].append((min(there, first), run.ended, id))
    for key, spans in lives.items():
        spans.sort()
        for (_, ended, one), (began, _, other) in pairwise(spans):
            if began < ended:
                yield Violation("I3", f"{one} and {other} lived at once under {key}", other, began)


def the_newest_arguments_run(history: History, final: Final) -> Iterator[Violation]:
    """Of unique="latest": who was told that its arguments are those of a job finds that job run with them, or with
    those of a dispatch that may have come later."""
    returned = {one.serial: one.returned if one.id else ENDLESS for one in history.dispatches if one.kind == "latest"}
    for one in history.dispatches:
        for run in history.runs.get(one.id, ()) if one.kind == "latest" and one.id else ():
            if run.serial != one.serial and returned.get(run.serial, ENDLESS) < one.began.at:
                text = f"it ran with the arguments of {run.serial}, though {one.serial} came after them"
                yield Violation("I3", text, one.id, run.start.at)


def an_ended_job_is_in_nobodys_way(history: History, final: Final) -> Iterator[Violation]:
    """A dispatch was told that a job is there which had been seen to have ended before."""
    seen: dict[str, float] = {}
    for line in history.by_event["seen"]:
        seen.setdefault(line.job, line.at)
    for one in history.dispatches:
        if one.outcome == "deduplicated" and one.key and seen.get(one.id, ENDLESS) < one.began.at:
            yield Violation("I3", f"dispatch {one.serial} was refused for its sake after its end", one.id, one.returned)


def duplicates_have_a_cause(history: History, final: Final) -> Iterator[Violation]:
    known = {one.own_id for one in history.dispatches} | set(final.records)
    for one in history.dispatches:
        if one.outcome == "deduplicated" and (not (one.key or one.own_id) or one.id not in known):
            yield Violation("I3", f"dispatch {one.serial} was called a duplicate of {one.id}", one.id, one.returned)


# -- the whole ---------------------------------------------------------------------------------------------------------


def nothing_is_left_behind(history: History, final: Final) -> Iterator[Violation]:
    for text in final.leftovers:
        yield Violation("I6", f"left behind: {text}")


def no_process_ends_by_itself(history: History, final: Final) -> Iterator[Violation]:
    up = {line.pid for event in ("worker up", "producer up") for line in history.by_event[event]}
    for line in history.by_event["died"]:
        if line.more["code"] not in KILLED:
            yield Violation("own", f"{line.more['process']} ended by itself with {line.more['code']}", "", line.at)
    for line in history.by_event["stopped"]:
        code = line.more["code"]
        early = code == -15 and line.more["of"] not in up  # before it could listen to signals
        if code != 0 and code not in KILLED and not early:
            yield Violation("own", f"{line.more['process']} was told to stop, and came to {code}", "", line.at)
    for text in final.noise:
        yield Violation("own", text)


CHECKS: tuple[Check, ...] = (
    nothing_is_lost,
    a_dispatch_makes_one_job,
    an_id_is_accepted_once,
    what_is_rejected_does_not_exist,
    the_figures_count_each_job_once,
    a_record_never_changes,
    cancelling_tells_the_truth,
    a_record_is_that_of_a_run,
    a_stale_token_changes_nothing,
    a_token_is_given_out_once,
    runs_are_bounded,
    outages_are_nobodys_failures,
    hooks_are_told,
    nothing_runs_before_its_time,
    a_unique_key_has_one_living_job,
    the_newest_arguments_run,
    an_ended_job_is_in_nobodys_way,
    duplicates_have_a_cause,
    seats.no_two_run_under_one_key,
    seats.hand_overs_have_growing_fences,
    seats.first_come_first_served,
    seats.no_limit_is_exceeded,
    seats.no_rate_is_exceeded,
    flow_rules.followers_start_once,
    nothing_is_left_behind,
    recovery.work_goes_on_after_a_fault,
    recovery.every_worker_is_at_work_after_the_last_fault,
    no_process_ends_by_itself,
)

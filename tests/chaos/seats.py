"""I4 and I5, part of the oracle: one run per lock key, first come first served; no more than a limit or a rate allows.

A run counts from its start to its end. Two things end it earlier. Its process was killed: then by the last line that
it wrote, which may be a little too early and is never too late. Or its process stood still (it was stopped, or its
event loop was blocked, so that nobody could cut the run): then by the earliest end of its reservation, if the run did
not go on for long after that. This is the bound that is promised. A worker that lives cuts what it could not renew at
0.75 + 1/16 of a reservation after the last confirmed heartbeat, so whoever stands still has an eighth of it left at
least. Clocks don't drift apart here: all are those of one machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos import slots
from tests.chaos.history import ENDLESS, Dispatch, Final, History, Violation
from tests.chaos.tasks import LIMITS, RATED

LEFT = 1 / 8
"""The part of its reservation that is left at least to a run whose process stands still."""
LATENCY = 1.0
"""Seconds that a process which goes on after a standstill may take until its runs have ended."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A seat that was held. ``counted``: until when it certainly was; ``ended``: until when the holder went on."""

    job: str
    fence: int
    began: float
    counted: float
    ended: float


class _Ends:
    """Until when a hold is counted."""

    def __init__(self, history: History) -> None:
        self._left = LEFT * history.plan["reservation"]
        self._last: dict[int, float] = {line.pid: line.at for line in history.lines}
        self._standstills: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for line in history.by_event["stood still"]:
            self._standstills[line.pid].append((line.more["since"], line.more["until"]))

    def hold(self, pid: int, job: str, fence: int, began: float, ended: float) -> Hold:
        ended = min(ended, self._last[pid])
        counted = ended
        for since, until in self._standstills[pid]:
            if since < ended <= until + LATENCY and until - since >= self._left:
                counted = min(counted, max(began, since + self._left))
        return Hold(job, fence, began, counted, ended)


def locks(history: History) -> dict[str, list[Hold]]:
    """The holds of each lock key, in the order in which they began."""
    ends, found = _Ends(history), defaultdict[str, list[Hold]](list)
    for run in sorted(history.all_runs(), key=lambda run: run.start.at):
        if run.lock:
            found[run.lock].append(ends.hold(run.pid, run.job, run.fence, run.start.at, run.ended))
    return found


def limits(history: History) -> dict[tuple[str, int], list[Hold]]:
    """The holds of each limit, those of the limiter's slots among them, in the order in which they began."""
    ends, found = _Ends(history), defaultdict[tuple[str, int], list[Hold]](list)
    for run in history.all_runs():
        if run.kind in LIMITS:
            found[LIMITS[run.kind]].append(ends.hold(run.pid, run.job, run.fence, run.start.at, run.ended))
    over = {(line.pid, line.more["fence"]): line.at for line in history.by_event["slot over"]}
    for line in history.by_event["slot"]:
        ended = over.get((line.pid, line.more["fence"]), ENDLESS)
        hold = ends.hold(line.pid, line.more["id"], line.more["fence"], line.at, ended)
        found[slots.NAME, slots.LIMIT].append(hold)
    for holds in found.values():
        holds.sort(key=lambda hold: hold.began)
    return found


def largest(holds: list[Hold]) -> tuple[int, Hold]:
    """How many were held at once at most, and the one that made it so many."""
    most, by, held = 0, holds[0], list[Hold]()
    for one in holds:
        held = [other for other in held if other.counted > one.began]
        held.append(one)
        if len(held) > most:
            most, by = len(held), one
    return most, by


def no_two_run_under_one_key(history: History, final: Final) -> Iterator[Violation]:
    for key, holds in locks(history).items():
        latest = holds[0]
        for one in holds[1:]:
            if one.began < latest.counted:
                by = (latest.counted - one.began) * 1000
                text = f"it began {by:.1f} ms before {latest.job} had ended, which held {key} under {latest.fence}"
                yield Violation("I4", text, one.job, one.began)
            latest = max(latest, one, key=lambda hold: hold.counted)


def hand_overs_have_growing_fences(history: History, final: Final) -> Iterator[Violation]:
    for key, holds in locks(history).items():
        for before, one in pairwise(holds):
            if one.fence <= before.fence:
                text = f"{key} went from {before.job} to it, and from the fence {before.fence} to {one.fence}"
                yield Violation("I4", text, one.job, one.began)


def first_come_first_served(history: History, final: Final) -> Iterator[Violation]:
    """Of one key and lane, by first runs: who was accepted before another one was dispatched has run before it."""
    lines: dict[tuple[str, str], list[tuple[float, Dispatch]]] = defaultdict(list)
    for id, made in history.accepted.items():
        if made.lock and not made.delay and history.runs.get(id):
            lines[made.lock, made.lane].append((min(run.start.at for run in history.runs[id]), made))
    for (key, _), firsts in lines.items():
        firsts.sort(key=lambda first: first[0], reverse=True)
        earliest = firsts[0][1]
        for at, made in firsts[1:]:
            if earliest.returned < made.began.at:
                yield Violation("I4", f"it ran before {earliest.id}, which stood in line for {key} before", made.id, at)
            earliest = min(earliest, made, key=lambda one: one.returned)


def no_limit_is_exceeded(history: History, final: Final) -> Iterator[Violation]:
    for (name, count), holds in limits(history).items():
        most, by = largest(holds)
        if most > count:
            yield Violation("I5", f"it was the {most}th at once of {count} under {name}", by.job, by.began)


def no_rate_is_exceeded(history: History, final: Final) -> Iterator[Violation]:
    """Permits are given out by the server and starts come a little later, so they may be closer than permits. But since
    the first dispatch there were never more of them."""
    starts = sorted((run.start.at, run.job) for run in history.all_runs() if run.kind == "rated")
    began = min((one.began.at for one in history.dispatches if one.kind == "rated"), default=0.0)
    for n, (at, job) in enumerate(starts, 1):
        # Who has waited for its time is forgiven half an interval, and is charged for it.
        allowed = RATED.capacity + (at - began) * 1000 / RATED.interval + 0.5
        if n > allowed:
            yield Violation("I5", f"it was the {n}th start, and the rate allows {allowed:.1f} by then", job, at)
            return


def seen(history: History) -> dict[str, int]:
    """How much of it there was: a run without hand-overs proves nothing. "excused overlaps" are those with processes
    that stood still for longer than what was left of their reservations."""
    pairs = [pair for holds in locks(history).values() for pair in pairwise(holds)]
    repeated = [pair for runs in history.runs.values() if runs[0].lock for pair in pairwise(runs)]
    return {
        "hand-overs": len(pairs),
        "excused overlaps": sum(one.began < before.ended for before, one in pairs),
        "locked jobs that outlived a worker": sum(
            before.attempt == run.attempt and before.pid != run.pid and before.verdict in ("", "cancelled")
            for before, run in repeated
        ),
        "hand-overs of slots": max(0, len(history.by_event["slot"]) - slots.LIMIT),
    }


def most_at_once(history: History) -> dict[str, int]:
    """The largest concurrency under each limit, and under a lock key."""
    found = {f"{name} ({count})": largest(holds)[0] for (name, count), holds in limits(history).items()}
    return found | {"a lock key (1)": max((largest(holds)[0] for holds in locks(history).values()), default=0)}

"""Failpoints: places between two steps of our own at which a test kills, freezes or breaks the process.

Off, and then a call of an empty function (28 ns), unless the environment variable ``TASKRUNNER_FAILPOINTS`` is set when
this module is imported. It names points and what happens there, with ``;`` between them::

    before_settle=kill                    the process gets SIGKILL
    after_fetch=sleep:1.5                 the thread blocks for so many seconds, and with it an event loop
    before_beat=raise                     Reached is raised
    after_settle=kill@3;after_fetch=...   only the third time

Without ``@`` it happens each time. A point is reached once per batch, never once per job, and only by batches that
have something in them. For tests only: whoever sets the variable of a process can kill it.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable

log = logging.getLogger("taskrunner")

VARIABLE = "TASKRUNNER_FAILPOINTS"
POINTS = (
    "before_dispatch",  # nothing has been sent
    "after_dispatch",  # the server has the jobs, their caller doesn't know
    "after_promote",
    "before_fire",  # a tick is due, and nothing has been sent
    "after_fire",  # the server has its job, the scheduler doesn't know
    "after_fetch",  # the server gave us the jobs, our books don't have them
    "after_reclaim",  # the same for what was another worker's
    "before_admit",  # the server has not been asked yet for the seats of what needs some
    "after_admit",  # the jobs have their seats, our books don't know
    "before_run",  # they are in our books, and none has started
    "before_settle",  # they have run, and nobody knows
    "after_settle",  # recorded, and our books don't know
    "after_stage",  # a part of a large workflow is on the server, and nothing of it has begun
    "after_unfold",  # a step of what a workflow has left over is done, and there may be more
    "after_deliver",  # another partition has applied what workflows had to say, and it may still stand in the outbox
    "before_beat",  # in the thread of the heartbeats
)


class Reached(Exception):
    """What ``raise`` raises: an error that no code of ours expects."""


def actions(text: str) -> dict[str, tuple[Callable[[], None], int]]:
    """What a text enables: point → what to do, and the one time to do it (0: each time).

    Raises ValueError that says what of the text can't be used.
    """
    found: dict[str, tuple[Callable[[], None], int]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        point, _, rest = part.partition("=")
        action, at, turn = rest.partition("@")
        if point not in POINTS:
            raise ValueError(f"{VARIABLE}: {point!r} is no failpoint; there are {', '.join(POINTS)}")
        if point in found:
            raise ValueError(f"{VARIABLE}: {point!r} is named twice; give it one action")
        if at and not (turn.isdecimal() and int(turn)):
            raise ValueError(f"{VARIABLE}: what follows @ in {part!r} must be a whole number from 1")
        found[point] = _action(action, part), int(turn or 0)
    return found


def _action(action: str, part: str) -> Callable[[], None]:
    name, _, operand = action.partition(":")
    if action == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise":
        return _raise
    if name == "sleep":
        try:
            seconds = float(operand)
        except ValueError:
            seconds = -1.0
        if 0 <= seconds < float("inf"):
            return lambda: time.sleep(seconds)
    raise ValueError(f"{VARIABLE}: {part!r} has no action; give kill, raise or sleep:SECONDS, and @N for the N-th time")


def _raise() -> None:
    raise Reached("a failpoint was reached")


def _nothing(name: str) -> None:
    pass


def enabled(text: str) -> Callable[[str], None]:
    """``reach`` for such a text; raises ValueError for one that can't be used."""
    plan = {point: (act, turn, itertools.count(1)) for point, (act, turn) in actions(text).items()}
    if not plan:
        return _nothing
    log.warning("failpoints are on: %s", text)

    def reach(name: str) -> None:
        if name in plan:
            act, turn, times = plan[name]
            if next(times) == turn or not turn:
                log.warning("reached failpoint %s", name)
                act()

    return reach


reach: Callable[[str], None] = enabled(os.environ.get(VARIABLE, ""))
"""Called with the name of a point by whoever gets there."""

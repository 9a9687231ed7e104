"""Runs: the slot that a run occupies, and what it can be cut for."""

from __future__ import annotations

import asyncio
import time

from ..envelope import Arrival, Delivery, Extra
from ..outcome import Outcome, Released

SAFE = 0.75
"""The part of a reservation after which a job without a confirmed heartbeat may be another worker's."""


class Slot:
    """One place where a job runs. ``cut`` is set when the runner itself ends the run: what it then comes to."""

    __slots__ = ("cut", "delivery", "settled", "started", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.delivery: Arrival | None = None
        self.started = 0.0
        self.cut: Cut | None = None
        self.settled = False


class Cut:
    """A run that the runner ends: with this outcome, or with none because the job isn't ours any more."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Outcome | None) -> None:
        self.outcome = outcome


LOST = Cut(None)
CANCELLED = Cut(None)
"""Somebody cancelled the job. Whatever its run comes to, the server refuses it."""
SHUTDOWN = Cut(Released())
UNSAFE = Cut(Released())
"""It holds seats, and its reservation may be over: others may start what must not run beside it."""


def cancel(slot: Slot, task: asyncio.Task[None]) -> None:
    """Ends what runs in a slot. A thread can't be cancelled, but it may look at the mark."""
    if isinstance(slot.delivery, Delivery):
        slot.delivery.cancelled = True
    task.cancel()


def is_running(slot: Slot) -> bool:
    """Whether this code runs as part of the slot's task."""
    try:
        return asyncio.current_task() is slot.task
    except RuntimeError:  # there is no event loop any more
        return False


def has_lapsed(delivery: Delivery, reservation: float) -> bool:
    """Whether a job holds seats, and its reservation is over, or may be before somebody looks again."""
    if not delivery.seated:
        return False
    own = delivery.envelope.extras.get(Extra.RESERVATION)
    limit = SAFE * (own / 1000 if own else reservation)
    return time.monotonic() - delivery.fetched_at > limit

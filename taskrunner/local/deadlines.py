"""Deadlines: many time limits of one length, on one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

MANY = 16
"""Lengths in one loop from which on a timer is given up as soon as it has nothing to wait for."""


class Deadlines:
    """What is to be called after ``seconds``, if it is not dropped before.

    Limits of one length end in the order in which they were set, so that one timer of the loop, for the first of them,
    does for all. A timer for each would be a third of what a task costs that does nothing: nearly all are dropped, and
    a loop keeps a dropped timer in its heap for a while.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, table: dict[float, Deadlines]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._table = table
        self._due: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        table[seconds] = self

    def add(self, callback: Callable[[], None]) -> None:
        due = self._due[callback] = self._loop.time() + self._seconds
        if self._timer is None:
            self._wait_until(due)

    def drop(self, callback: Callable[[], None]) -> None:
        self._due.pop(callback, None)
        if not self._due and len(self._table) > MANY:
            self._give_up()

    def _wait_until(self, due: float) -> None:
        # In no context of anybody: the timer would keep the task alive that happened to come first.
        self._timer = self._loop.call_at(due, self._look, context=Context())

    def _look(self) -> None:
        now = self._loop.time()
        while self._due:
            callback, due = next(iter(self._due.items()))
            if due > now:
                self._wait_until(due)
                return
            del self._due[callback]
            callback()
        self._give_up()

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._table.get(self._seconds) is self:
            del self._table[self._seconds]


def deadlines(loop: asyncio.AbstractEventLoop, seconds: float) -> Deadlines:
    """Those of this length in this loop."""
    table = deadlines_of(loop)
    return table.get(seconds) or Deadlines(loop, seconds, table)


def deadlines_of(loop: asyncio.AbstractEventLoop) -> dict[float, Deadlines]:
    """By their length."""
    table = _tables.get(loop)
    if table is None:
        for closed in [one for one in [*_tables] if one.is_closed()]:
            _tables.pop(closed, None)  # another thread may do the same
        table = _tables[loop] = {}
    return table


_tables: dict[asyncio.AbstractEventLoop, dict[float, Deadlines]] = {}

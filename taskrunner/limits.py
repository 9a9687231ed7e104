"""Limits: how many jobs of a kind may run at once, and how many may start in a time, over the whole fleet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .errors import TaskOptionError
from .template import checked

MOST = 10**9 - 1
"""The largest count and burst: nine digits, as needs have them on their way."""
SHORTEST = 0.001
"""The shortest interval between two permits in ms: finer than any server's clock that we read."""
LONGEST = 1e12
"""Milliseconds in which a whole burst is made up for, at most: some 31 years. Sums with it are exact as doubles."""


def _whole(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise TaskOptionError(f"{what} must be a whole number of 1 to {MOST:,}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` jobs at once, over all processes.

        @runner.task(limit=Limit(10, key="tenant:{tenant}"))
        async def import_orders(tenant: str) -> None: ...

    Without a ``key`` it is a limit of the task. With one it is a limit of that key, a template over the arguments or a
    function of them that returns a string of 1 to 1,000 characters: tasks that name the same key share it, and each job
    obeys its own ``count``. Raises TaskOptionError for a count that is no whole number of at least 1, or a key that can
    be none.
    """

    count: int
    key: str | Callable[..., str] | None = None

    def __post_init__(self) -> None:
        _whole(self.count, "Limit: count")
        if self.key is not None:
            checked(self.key, "Limit: key")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many starts in a time, over all processes: ``count`` in each ``per`` (seconds or a timedelta).

        @runner.task(rate_limit=Rate(100, per=60))
        async def ask(question: str) -> str: ...

    A token bucket by the server's clock: it holds ``burst`` permits (None: ``count``) and gets another one each
    ``per / count`` seconds; a job takes one when it starts, whichever attempt that is, and one that finds none waits
    for its time. So in any span of ``per`` seconds at most ``count + burst`` jobs start. ``burst=1`` spaces them
    evenly, to within half of that time.

    ``key`` as with ``Limit``; each job takes its permit at its own rate. Raises TaskOptionError for numbers that can't
    be: at most 1,000,000 a second, and a burst must be made up for in 31 years.
    """

    count: int
    per: float | timedelta
    key: str | Callable[..., str] | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        _whole(self.count, "Rate: count")
        if self.burst is not None:
            _whole(self.burst, "Rate: burst")
        per = self.seconds
        if isinstance(per, bool) or not isinstance(per, (int, float)) or not math.isfinite(per) or per <= 0:
            raise TaskOptionError(
                f"Rate: per must be seconds (int or float) or a timedelta, more than zero, not {self.per!r}"
            )
        if self.interval < SHORTEST:
            raise TaskOptionError(f"Rate: {self.count:,} per {per:g} s must be no more than 1,000,000 a second")
        if self.interval * self.capacity > LONGEST:
            raise TaskOptionError(
                f"Rate: per={self.per!r} must be shorter: {self.capacity:,} permits would take over 31 years to come"
            )
        if self.key is not None:
            checked(self.key, "Rate: key")

    @property
    def seconds(self) -> float:
        """``per`` in seconds."""
        return self.per.total_seconds() if isinstance(self.per, timedelta) else self.per

    @property
    def interval(self) -> float:
        """Milliseconds from one permit to the next."""
        return self.seconds * 1000 / self.count

    @property
    def capacity(self) -> int:
        """Permits that the bucket holds."""
        return self.count if self.burst is None else self.burst

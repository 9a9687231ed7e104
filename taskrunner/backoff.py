"""Backoff: how long a job waits before its next attempt, as a function of the attempt that failed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from .errors import TaskOptionError

BackoffFunction = Callable[[int], float | timedelta]
"""Any ``(attempt) -> seconds``; the first failed attempt is 1."""

Kind = Literal["quadratic", "exponential", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay policy. Make one with ``quadratic``, ``exponential``, ``linear`` or ``constant``.

    ``jitter=0.2`` shortens or lengthens each delay by up to 20 %, so that jobs which failed together don't come back
    together. The delay before jitter never exceeds ``cap`` seconds.

    >>> [Backoff.quadratic()(n) for n in (1, 2, 3)]
    [1.0, 4.0, 9.0]
    """

    kind: Kind
    base: float
    factor: float = 1.0
    cap: float = 300.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("base", "factor", "cap"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise TaskOptionError(f"backoff: {name} must be a number of seconds, zero or more, not {value!r}")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise TaskOptionError(f"backoff: jitter must be between 0.0 and 1.0, not {self.jitter!r}")

    @classmethod
    def quadratic(cls, base: float = 1, cap: float = 300, *, jitter: float = 0.0) -> Backoff:
        """``base`` × attempt²: 1, 4, 9, 16 … s. The default."""
        return cls("quadratic", base, cap=cap, jitter=jitter)

    @classmethod
    def exponential(cls, base: float = 1, factor: float = 2, cap: float = 300, *, jitter: float = 0.0) -> Backoff:
        """``base`` × ``factor``^(attempt - 1): 1, 2, 4, 8 … s."""
        return cls("exponential", base, factor=factor, cap=cap, jitter=jitter)

    @classmethod
    def linear(cls, step: float = 1, cap: float = 300, *, jitter: float = 0.0) -> Backoff:
        """``step`` × attempt: 1, 2, 3 … s."""
        return cls("linear", step, cap=cap, jitter=jitter)

    @classmethod
    def constant(cls, seconds: float, *, jitter: float = 0.0) -> Backoff:
        """The same delay each time; may be zero."""
        return cls("constant", seconds, cap=seconds, jitter=jitter)

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after the given attempt failed (1 = the first run)."""
        delay = min(self._raw(attempt), self.cap)
        return delay * (1 + self.jitter * random.uniform(-1, 1)) if self.jitter else delay

    def _raw(self, attempt: int) -> float:
        match self.kind:
            case "quadratic":
                return self.base * attempt * attempt
            case "exponential":
                # An exponent that overflows a float is far past any cap.
                return self.base * self.factor ** min(attempt - 1, 1000) if self.factor <= 1 else self._power(attempt)
            case "linear":
                return self.base * attempt
            case "constant":
                return self.base

    def _power(self, attempt: int) -> float:
        try:
            return self.base * float(self.factor) ** (attempt - 1)  # whole numbers would grow without end
        except OverflowError:
            return self.cap

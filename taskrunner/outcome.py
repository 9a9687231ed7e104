"""What a run came to, as a value; and the judge that makes one from an error.

Succeeded   the task returned
Failed      it won't run again: the job goes to the dead letters
Again       it runs again later and has spent an attempt
Released    it goes back to the queue and has spent nothing: a snooze, a shutdown, a task that we don't know
Expired     it had not started in time
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from .envelope import Arrival, Delivery
from .errors import GiveUp, Retry, Snooze, TaskOptionError

TRACEBACK_LIMIT = 16_000
"""Characters of a traceback that are kept: its end, which names the error."""
MESSAGE_LIMIT = 4_000


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as text: all that is kept of it, so that no frame or object outlives the run."""

    error_type: str
    message: str
    traceback: str = ""


@dataclass(slots=True)
class Succeeded:
    result: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    delay: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Released:
    """``unknown``: the worker doesn't know the task; the envelope remembers since when."""

    delay: float = 0.0
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    pass


Outcome = Succeeded | Failed | Again | Released | Expired


@dataclass(slots=True)
class Settlement:
    """A delivery, what it came to, how long it ran, how long that is to be known (None: the runner's ttl). Seconds."""

    delivery: Arrival
    outcome: Outcome
    seconds: float
    ttl: float | None = None


class Elsewhere(Exception):
    """The cause of an error that came from another process; ``failure`` is the error as that process saw it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"\n{self.failure.traceback}"


def describe(error: BaseException) -> Failure:
    """An error as text, whatever its ``__str__``, notes or causes do."""
    if isinstance(error.__cause__, Elsewhere):
        return error.__cause__.failure
    try:
        message = str(error)[:MESSAGE_LIMIT]
    except Exception:
        message = "(its text can't be shown: __str__ raised)"
    try:
        lines = "".join(traceback.TracebackException.from_exception(error, limit=50).format())[-TRACEBACK_LIMIT:]
    except Exception:
        lines = ""
    return Failure(type(error).__name__, _clean(message), _clean(lines))


def _clean(text: str) -> str:
    """Lone surrogates can't be written as UTF-8, and so not as JSON."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed run is worth another one, and after which wait."""

    max_retry: int
    backoff: Callable[[int], float | timedelta]
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    give_up_on: type[BaseException] | tuple[type[BaseException], ...]

    def judge(self, error: BaseException, delivery: Delivery) -> Outcome:
        """What becomes of a run that ended with ``error``. Pure: decides, and does nothing."""
        if isinstance(error, Snooze):
            try:
                return Released(_seconds(error.delay, "Snooze"))
            except Exception as trouble:
                return Failed(describe(error), f"its delay can't be used: {trouble!r}")
        failure = describe(error)
        if isinstance(error, GiveUp):
            return Failed(failure, "gave up")
        asked = isinstance(error, Retry)
        if not asked and (isinstance(error, self.give_up_on) or not self.retryable(error)):
            return Failed(failure, f"{failure.error_type} is not retried")
        attempt = delivery.envelope.attempt
        if attempt > self.max_retry:
            return Failed(failure, "no retries left" if self.max_retry else "no retries")
        delay = error.delay if isinstance(error, Retry) and error.delay is not None else None
        try:
            return Again(_seconds(self.backoff(attempt) if delay is None else delay, "backoff"), failure)
        except Exception as trouble:
            return Failed(failure, f"its backoff can't be used: {trouble!r}")

    def retryable(self, error: BaseException) -> bool:
        # A task that raises SystemExit or a stray CancelledError has failed like any other; with the default
        # retry_on=Exception nobody means that those should skip the retries.
        return isinstance(error, self.retry_on) or not isinstance(error, Exception)


def _seconds(value: float | timedelta, what: str) -> float:
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= number < 1e10:
        raise TaskOptionError(f"{what} must give zero or more seconds, not {value!r}")
    return number

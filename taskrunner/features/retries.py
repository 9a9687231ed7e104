"""Retries: what happens after a failed run.

    @runner.task(max_retry=5, backoff=Backoff.exponential(jitter=0.1), give_up_on=ValueError)
    async def charge(order_id: int) -> None: ...

``max_retry`` counts the runs after the first. ``retry_on`` and ``give_up_on`` are exception classes; the latter wins.
A worker's crash or shutdown is no attempt.
"""

from __future__ import annotations

from typing import Any

from ..backoff import Backoff, BackoffFunction
from ..errors import TaskOptionError
from ..feature import Feature, Option
from ..options import Options, whole
from ..outcome import RetryPolicy


def _backoff(value: Any, what: str) -> BackoffFunction:
    if not callable(value):
        raise TaskOptionError(f"{what} must be a Backoff or a function of the attempt, not {value!r}")
    return value  # type: ignore[no-any-return]


def _classes(value: Any, what: str) -> Any:
    classes = value if isinstance(value, tuple) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TaskOptionError(f"{what} must be an exception class or a tuple of them, not {value!r}")
    return value


def _to_wire(value: Any) -> Any:
    if not isinstance(value, Backoff):
        raise TaskOptionError("backoff: a function can't travel with a job; set it on the task, or give a Backoff here")
    return [value.kind, value.base, value.factor, value.cap, value.jitter]


class Retries(Feature):
    """See the module's docstring."""

    options = {
        "max_retry": Option(3, lambda value, what: whole(value, what, 0), travels=True),
        "backoff": Option(
            Backoff.quadratic(), _backoff, travels=True, to_wire=_to_wire, from_wire=lambda value: Backoff(*value)
        ),
        "retry_on": Option(Exception, _classes, on_dispatch=False),
        "give_up_on": Option((), _classes, on_dispatch=False),
    }


def policy(options: Options) -> RetryPolicy:
    """The retry policy that a task's options amount to."""
    return RetryPolicy(options["max_retry"], options["backoff"], options["retry_on"], options["give_up_on"])

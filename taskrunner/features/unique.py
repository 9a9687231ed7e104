"""Unique: no second job for the same thing.

    @runner.task(unique=True, unique_key=lambda order_id, **_: str(order_id))
    async def charge(order_id: int, customer: str) -> str: ...

``unique=True``: while a job with this (task, key) waits, runs or waits for a retry, a further dispatch returns that
job's handle, with ``deduplicated=True``. Without ``unique_key`` the key is the arguments. ``unique_for=T``: the same
for T seconds after a dispatch, whether that job has finished or not. Both together: both hold.

``unique="debounce"`` needs ``unique_for=T``: the job waits T seconds, and each further dispatch while it waits replaces
its arguments (with its options, priority and queue) and begins the wait anew; the handle is that job's, with
``deduplicated=True``. A job whose wait is over is replaced no more: the next dispatch begins a new wait.

``unique="latest"``: a job is dispatched at once while none is alive. While one is, the first further dispatch makes a
second job, whose status is "blocked"; each further one replaces that one's arguments; and it is queued when the first
one has ended, in whatever way. With ``unique_for`` also both hold: T seconds long no further job is made, so arguments
that come then are dropped unless a blocked job is there to take them.

Both set their own time, so ``delay`` and ``at`` are refused. An ``id`` names the job only if it becomes a new one.
The server holds the digest of the key, with the job's id as its value, and the script that ends the job frees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..envelope import Draft, Extra, Lease
from ..errors import PayloadError, TaskOptionError
from ..feature import Arguments, Feature, Fill, Option
from ..options import Options, UniqueMode, seconds_or_none
from ..template import Parameters

MODES = ("debounce", "latest")


def _mode(value: Any, what: str) -> UniqueMode:
    if not isinstance(value, bool) and not (isinstance(value, str) and value in MODES):
        raise TaskOptionError(f"{what} must be True, False, 'debounce' or 'latest', not {value!r}")
    return value  # type: ignore[return-value]


def _key(value: Any, what: str) -> Any:
    if value is not None and not callable(value) and not isinstance(value, str):
        raise TaskOptionError(f"{what} must be a string or a function of the arguments that returns one, not {value!r}")
    return value


def digest(task: str, key: bytes) -> str:
    """A name of fixed length for a (task, key): BLAKE2b, 128 bits, so that no key can be too long or hold a brace."""
    return hashlib.blake2b(b"%d:%s%s" % (len(task), task.encode(), key), digest_size=16).hexdigest()


class Unique(Feature):
    """See the module's docstring."""

    options = {
        "unique": Option(False, _mode),
        "unique_key": Option(None, _key),
        "unique_for": Option(None, partial(seconds_or_none, zero=False)),
    }

    def on_plan(self, where: str, options: Options, core: Mapping[str, Any]) -> None:
        mode = options["unique"]
        if mode == "debounce" and options["unique_for"] is None:
            raise TaskOptionError(f"{where}: unique='debounce' needs unique_for, the seconds that a job waits")
        if mode in MODES and ("delay" in core or "at" in core):
            instead = "its wait is unique_for" if mode == "debounce" else "it runs at once, or after the job before it"
            raise TaskOptionError(f"{where}: unique={mode!r} takes neither delay nor at: {instead}")

    def keyed(self, options: Options) -> tuple[str, ...]:
        if options["unique"] is not False:
            return ("unique",)
        return () if options["unique_for"] is None else ("unique_for",)

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        mode: UniqueMode = options["unique"]
        period: float | None = options["unique_for"]
        if mode is False and period is None:
            return None
        key = options["unique_key"]
        wait = period if mode == "debounce" else None

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            name = digest(task, _value(key, arguments, task))
            if mode is not False:
                draft.leases += (Lease(name, hold=True, turn="first" if mode is True else mode),)
                draft.envelope.extras[Extra.UNIQUE] = name
            if wait is not None:
                draft.delay = wait
            elif period is not None:
                draft.leases += (Lease(name, hold=False, seconds=period),)

        return fill


def _value(key: Any, arguments: Arguments, task: str) -> bytes:
    """The unique key of these arguments, as bytes."""
    if key is None:
        return arguments.canonical()
    value = key if isinstance(key, str) else key(*arguments.args, **arguments.kwargs)
    if not isinstance(value, str):
        raise PayloadError(f"unique_key of task {task!r} must return a string, not {value!r}")
    return value.encode("utf-8", "surrogatepass")

"""Unique: no second job for the same thing.

    @runner.task(unique=True, unique_key=lambda order_id, **_: str(order_id))
    async def charge(order_id: int, customer: str) -> str: ...

``unique=True``: while a job with this (task, key) waits, runs or waits for a retry, a further dispatch returns that
job's handle, with ``deduplicated=True``. Without ``unique_key`` the key is the arguments. ``unique_for=T``: the same
for T seconds after a dispatch, whether that job has finished or not. Both together: both hold.

The server holds the digest of the key, with the job's id as its value, and the script that ends the job frees it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..envelope import Draft, Extra, Lease
from ..errors import PayloadError, TaskOptionError
from ..feature import Arguments, Feature, Fill, Option
from ..options import Options, seconds, truth


def _key(value: Any, what: str) -> Any:
    if value is not None and not callable(value) and not isinstance(value, str):
        raise TaskOptionError(f"{what} must be a string or a function of the arguments that returns one, not {value!r}")
    return value


def _period(value: Any, what: str) -> float | None:
    return None if value is None else seconds(value, what, zero=False)


def digest(task: str, key: bytes) -> str:
    """A name of fixed length for a (task, key): BLAKE2b, 128 bits, so that no key can be too long or hold a brace."""
    return hashlib.blake2b(b"%d:%s%s" % (len(task), task.encode(), key), digest_size=16).hexdigest()


class Unique(Feature):
    """See the module's docstring."""

    options = {
        "unique": Option(False, truth),
        "unique_key": Option(None, _key),
        "unique_for": Option(None, _period),
    }

    def on_dispatch(self, task: str, options: Options) -> Fill | None:
        hold: bool = options["unique"]
        period: float | None = options["unique_for"]
        if not hold and period is None:
            return None
        key = options["unique_key"]

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            name = digest(task, _value(key, arguments, task))
            if hold:
                draft.leases += (Lease(name, hold=True),)
                draft.envelope.extras[Extra.UNIQUE] = name
            if period is not None:
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

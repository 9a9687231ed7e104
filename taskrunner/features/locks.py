"""Locks: never two jobs of one key at once.

    @runner.task(lock_key="user:{user_id}")
    async def sync(user_id: int) -> None: ...

At most one job of a key runs at a time, over all processes and all tasks of the namespace; the others wait in the order
in which they were dispatched, with status "blocked", and cost nothing meanwhile. Between two attempts the key is free:
others may overtake. A job that waits for its time, or in a paused queue, holds nothing.

``lock_key`` is a template over the arguments (``{order.customer}`` and ``{order[id]}`` work too), or a function of them
that returns the key, or None for a job that needs no lock. A dispatch may give another one, or None.

``mode="locked"``: this worker's handler runs only jobs that have a lock key, with ``"unlocked"`` only those that have
none. It hands the others back, and they are offered again after one to three seconds, to whoever takes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from ..envelope import Delivery, Draft, Extra
from ..errors import TaskOptionError
from ..feature import Arguments, Feature, Fill, Gate, Option
from ..needs import with_lock
from ..options import Options
from ..outcome import Outcome, Released
from ..template import Parameters, checked, key_of, sound

ANY, LOCKED, UNLOCKED = "any", "locked", "unlocked"
MODES = (ANY, LOCKED, UNLOCKED)
AWAY = (1.0, 3.0)
"""Seconds after which a job that this handler doesn't serve is offered again: spread, so that they don't come back
together to the same worker."""


def _lock_key(value: Any, what: str) -> Any:
    return None if value is None else checked(value, what)


def _mode(value: Any, what: str) -> str:
    if not isinstance(value, str) or value not in MODES:
        raise TaskOptionError(f"{what} must be 'any', 'locked' or 'unlocked', not {value!r}")
    return value


class Locks(Feature):
    """See the module's docstring."""

    options = {
        "lock_key": Option(None, _lock_key),
        "mode": Option(ANY, _mode, on_dispatch=False),
    }

    def keyed(self, options: Options) -> tuple[str, ...]:
        return () if options["lock_key"] is None else ("lock_key",)

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        value = options["lock_key"]
        if value is None:
            return None
        what = f"lock_key of task {task!r}"
        key = _or_none(value, what) if callable(value) else key_of(value, what, parameters)

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            made = key(arguments.args, arguments.kwargs)
            if made is None:
                return
            extras = draft.envelope.extras
            extras[Extra.LOCK] = made
            extras[Extra.NEEDS] = with_lock(extras.get(Extra.NEEDS, ""), made)

        return fill

    def gate(self, options: Options) -> Gate | None:
        mode = options["mode"]
        return None if mode == ANY else _only_locked if mode == LOCKED else _only_unlocked

    def looks_at_all(self, options: Options) -> bool:
        return bool(options["mode"] != ANY)


def _or_none(function: Callable[..., Any], what: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], str | None]:
    """The key that a function makes, if it makes one."""

    def key(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        made = function(*args, **kwargs)
        return None if made is None else sound(made, what)

    return key


def _only_locked(delivery: Delivery, now: int) -> Outcome | None:
    return None if Extra.LOCK in delivery.envelope.extras else Released(random.uniform(*AWAY))


def _only_unlocked(delivery: Delivery, now: int) -> Outcome | None:
    return Released(random.uniform(*AWAY)) if Extra.LOCK in delivery.envelope.extras else None

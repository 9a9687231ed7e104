"""Callbacks: hooks of one task.

    @runner.task(on_failure=tell_the_team)
    async def charge(order_id: int) -> None: ...

``on_start``, ``on_success``, ``on_failure`` (for good) and ``on_retry`` take a function of a ``JobEvent``, sync or
async, or a job or a workflow to be dispatched then (``on_success=tell.job("done")``). Either is done by the worker,
before the outcome is recorded, so at least once; what it raises is logged and changes nothing.
"""

from __future__ import annotations

from typing import Any

from ..blueprint import Repeatable
from ..envelope import Dispatchable
from ..errors import TaskOptionError
from ..feature import Feature, Option


def _callback(value: Any, what: str) -> Any:
    if isinstance(value, Repeatable):
        value.check_repeatable(what)
    elif value is not None and not callable(value) and not isinstance(value, Dispatchable):
        raise TaskOptionError(
            f"{what} must be a function of a JobEvent, or a job (task.job(...)), a chain, a group or a Graph that is "
            f"dispatched then, not {value!r}"
        )
    return value


class Callbacks(Feature):
    """See the module's docstring. The hooks themselves are called by the runner (``hooks.Hooks``)."""

    options = {
        f"on_{kind}": Option(None, _callback, on_dispatch=False) for kind in ("start", "success", "failure", "retry")
    }

"""StateHooks: functions that are told of each change of a local task's state."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from ..errors import TaskOptionError
from .state import TaskState

log = logging.getLogger("taskrunner.local")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateHooks:
    """Functions that are told of each change of a task's state, in the moment in which it changes.

        hooks = StateHooks(
            when_started=lambda id, when: print(f"{when:%X} {id} begins"),
            when_failed=lambda id, when, error: print(f"{when:%X} {id} failed: {error}"),
        )
        task = LocalTask(fetch, url, id="fetch", hooks=hooks)

    All get the task's id and an aware datetime in UTC; ``when_pending`` also the number of the attempt that is to come,
    from 0 on, ``when_failed`` the error that the last attempt ended with, and ``when_reported`` what the function told
    by ``current_task().report(value)``.

    A plain function is called in the event loop, in the moment of the change, and must not take long; a coroutine
    function is begun then, as a task of its own. Whatever a hook raises is logged and changes nothing. Raises
    TaskOptionError for what can't be called.
    """

    when_created: Callable[[str, datetime], object] | None = None
    when_pending: Callable[[str, datetime, int], object] | None = None
    when_started: Callable[[str, datetime], object] | None = None
    when_done: Callable[[str, datetime], object] | None = None
    when_failed: Callable[[str, datetime, BaseException], object] | None = None
    when_canceled: Callable[[str, datetime], object] | None = None
    when_reported: Callable[[str, datetime, Any], object] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            hook = getattr(self, field.name)
            if hook is not None and not callable(hook):
                raise TaskOptionError(f"StateHooks: {field.name} must be a function, not {hook!r}")

    def of(self, state: TaskState) -> Callable[..., object] | None:
        """The hook that is told when a task gets into this state."""
        match state:
            case TaskState.CREATED:
                return self.when_created
            case TaskState.PENDING:
                return self.when_pending
            case TaskState.STARTED:
                return self.when_started
            case TaskState.DONE:
                return self.when_done
            case TaskState.FAILED:
                return self.when_failed
            case TaskState.CANCELED:
                return self.when_canceled


NO_HOOKS = StateHooks()


def tell(hook: Callable[..., object] | None, id: str, *more: Any) -> None:
    """Calls a hook, if there is one."""
    if hook is None:
        return
    try:
        told = hook(id, datetime.now(UTC), *more)
        if inspect.isawaitable(told):
            _begin(told, id)
    except BaseException:
        # Also SystemExit and cancellations: in the middle of a change of state nobody could make sense of them.
        log.exception(FAILED, id)


def _begin(told: Awaitable[object], id: str) -> None:
    async def see_through() -> None:
        try:
            await told
        except asyncio.CancelledError:
            raise  # with its event loop
        except BaseException:
            log.exception(FAILED, id)

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        if inspect.iscoroutine(told):
            told.close()
        raise
    task = loop.create_task(see_through())
    _begun.add(task)  # asyncio itself would forget it
    task.add_done_callback(_begun.discard)


FAILED = "a hook of local task %r raised an error; the task goes on as without it"
_begun: set[asyncio.Task[None]] = set()

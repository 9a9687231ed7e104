"""Hooks: functions of the user that are told what happens. One that fails is logged and changes nothing."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .envelope import Delivery
from .middleware import Middleware
from .outcome import Again, Failed, Failure, Outcome
from .priority import queue_of

log = logging.getLogger("taskrunner.hooks")

Hook = Callable[..., Any]
Follow = Callable[[Delivery, Outcome | None], Awaitable[None]]
Announce = Callable[[str, Delivery, Outcome | None, float], Awaitable[None]]
JOB_KINDS = ("start", "success", "failure", "retry", "cancel")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What a job hook is told. ``payload`` is (args, kwargs) as plain data; ``duration`` the run's seconds, 0.0 at its
    start; ``error`` the last error as text, or None."""

    job_id: str
    task: str
    queue: str
    attempt: int
    payload: tuple[list[Any], Mapping[str, Any]]
    duration: float
    error: Failure | None
    _save: Callable[[Any], Awaitable[None]] | None = field(default=None, repr=False, compare=False)

    async def save(self, value: Any) -> None:
        """Keeps a value of the job, as ``JobContext.save`` does, with the same errors; it is no result any more."""
        if self._save is not None:
            await self._save(value)


@dataclass
class Hooks:
    """The hooks of a runner, by kind."""

    job: dict[str, list[Hook]] = field(default_factory=lambda: {kind: [] for kind in JOB_KINDS})
    middleware: list[Middleware] = field(default_factory=list)
    error: list[Hook] = field(default_factory=list)
    startup: list[Hook] = field(default_factory=list)
    shutdown: list[Hook] = field(default_factory=list)

    def announcer(
        self,
        own: Mapping[str, Hook],
        follow_ups: Mapping[str, Follow],
        unpack: Callable[[Delivery], tuple[list[Any], dict[str, Any]]],
        save: Callable[[Delivery, Any], Awaitable[None]] | None,
    ) -> Announce | None:
        """One function that tells the runner's hooks and the task's ``own`` of a job's fate, and then does what is to
        follow, each by kind; None when nobody listens."""
        told = {kind: [*self.job[kind], *([own[kind]] if kind in own else [])] for kind in JOB_KINDS}
        if not any(told.values()) and not follow_ups:
            return None

        async def announce(kind: str, delivery: Delivery, outcome: Outcome | None, seconds: float) -> None:
            if told.get(kind):
                await tell(kind, delivery, outcome, seconds)
            if kind in follow_ups:
                await call(follow_ups[kind], delivery, outcome)

        async def tell(kind: str, delivery: Delivery, outcome: Outcome | None, seconds: float) -> None:
            try:
                payload = unpack(delivery)
            except Exception:
                payload = ([], {})  # what can't be read is what the failure is about
            envelope = delivery.envelope
            error = outcome.failure if isinstance(outcome, (Failed, Again)) else None
            about = JobEvent(
                envelope.id,
                envelope.task,
                queue_of(delivery.queue),
                envelope.attempt,
                payload,
                seconds,
                error,
                None if save is None else functools.partial(save, delivery),
            )
            for hook in told[kind]:
                await call(hook, about)

        return announce


async def call(hook: Hook, *arguments: Any) -> None:
    """Calls a hook, sync or async, and contains what it raises."""
    try:
        result = hook(*arguments)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # whoever called the hook is being cancelled; else it is the hook's own
        log.exception("the hook %s failed", getattr(hook, "__qualname__", hook))
    except GeneratorExit:
        raise  # whoever called the hook is being closed
    except BaseException:
        log.exception("the hook %s failed", getattr(hook, "__qualname__", hook))

"""Hooking: the decorators of a runner that register hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from . import hooks
from .envelope import Delivery
from .forecast import QueueStats
from .hooks import Hooks
from .middleware import Middleware, check
from .options import Seconds, seconds, seconds_or_none
from .payload import arguments
from .settings import Settings
from .worker.monitor import LongQueueHook

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=Middleware)


class Hooking:
    """What registers hooks. A hook may be sync or async; what it raises is logged and changes nothing."""

    settings: Settings

    def __init__(self) -> None:
        self.hooks = Hooks()
        self.long_queue_hooks: list[LongQueueHook] = []

    def on_start(self, hook: F) -> F:
        """Told of every run before it begins (``JobEvent``). Hooks may be sync or async; what they raise is logged."""
        self.hooks.job["start"].append(hook)
        return hook

    def on_success(self, hook: F) -> F:
        """Told of every run that returned, before that is recorded: at least once."""
        self.hooks.job["success"].append(hook)
        return hook

    def on_failure(self, hook: F) -> F:
        """Told of every job that failed for good, before that is recorded: at least once."""
        self.hooks.job["failure"].append(hook)
        return hook

    def on_retry(self, hook: F) -> F:
        """Told of every failed run that will be tried again."""
        self.hooks.job["retry"].append(hook)
        return hook

    def on_cancel(self, hook: F) -> F:
        """Told of every job that was cancelled: by the worker that ran it, or, when it was waiting, by the process that
        cancelled it."""
        self.hooks.job["cancel"].append(hook)
        return hook

    def cancel_teller(self) -> Callable[[Delivery], Awaitable[None]] | None:
        """What tells the ``on_cancel`` hooks of a job that was waiting when this process cancelled it; None when there
        are no such hooks."""
        loads = self.settings.serializer.loads
        announce = self.hooks.announcer({}, {}, lambda one: arguments(loads(one.envelope.payload)), None)
        if announce is None or not self.hooks.job["cancel"]:
            return None
        return lambda delivery: announce("cancel", delivery, None, 0.0)

    def middleware(self, middleware: M) -> M:
        """Goes around every run: ``async def m(ctx, call_next)``. Of several the first registered is the outermost.

            @runner.middleware
            async def timed(ctx: JobContext, call_next: CallNext) -> Any:
                began = time.monotonic()
                try:
                    return await call_next()
                finally:
                    ctx.log.info("took %.3f s", time.monotonic() - began)

        ``await call_next()`` gives what the task returned, or raises what it raised; what the middleware returns is the
        result, and what it raises (also ``Retry``, ``Snooze``, ``GiveUp``) is judged as if the task had raised it. The
        task's timeout holds for all of it. Raises TaskOptionError for what is no coroutine function.
        """
        check(middleware)
        self.hooks.middleware.append(middleware)
        return middleware

    def on_error(self, hook: F) -> F:
        """Told of failures of the runner's own machinery: ``hook(role, exception)``."""
        self.hooks.error.append(hook)
        return hook

    def on_startup(self, hook: F) -> F:
        """Called without arguments when the runner starts, before it consumes."""
        self.hooks.startup.append(hook)
        return hook

    def on_shutdown(self, hook: F) -> F:
        """Called without arguments when the runner has stopped consuming."""
        self.hooks.shutdown.append(hook)
        return hook

    @overload
    def on_long_queue(self, hook: F, /) -> F: ...
    @overload
    def on_long_queue(
        self, *, threshold: Seconds | None = None, clear: Seconds | None = None, cooldown: Seconds = 0
    ) -> Callable[[F], F]: ...

    def on_long_queue(self, hook: Any = None, *, threshold: Any = None, clear: Any = None, cooldown: Any = 0) -> Any:
        """Calls the hook with ``QueueStats`` each time that a queue's drain time is over ``threshold`` seconds.

        Evaluated every threshold / 2 (0.1 to 60 s) by one runner of the fleet. ``cooldown``: at least so many seconds
        between two calls for one queue. ``clear``: also called once, with ``stats.is_long`` False, when the drain time
        of an alerted queue has fallen to this.
        """

        def register(hook: Any) -> Any:
            async def tell(stats: QueueStats) -> None:
                await hooks.call(hook, stats)

            limit = self.settings.long_queue_threshold if threshold is None else seconds(threshold, "threshold")
            end = seconds_or_none(clear, "clear")
            self.long_queue_hooks.append(LongQueueHook(tell, limit, end, seconds(cooldown, "cooldown")))
            return hook

        return register if hook is None else register(hook)

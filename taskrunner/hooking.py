"""Hooking: the decorators of a runner that register hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from . import hooks
from .forecast import QueueStats
from .hooks import Hooks
from .options import Seconds, seconds
from .settings import Settings
from .worker.monitor import LongQueueHook

F = TypeVar("F", bound=Callable[..., Any])


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
            end = None if clear is None else seconds(clear, "clear")
            self.long_queue_hooks.append(LongQueueHook(tell, limit, end, seconds(cooldown, "cooldown")))
            return hook

        return register if hook is None else register(hook)

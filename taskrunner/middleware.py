"""Middleware: coroutines of the user's around every run, the first registered outermost."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from .context import JobContext
from .errors import TaskOptionError


class CallNext(Protocol):
    """What a middleware calls to go on. ``await call_next()`` gives what the task returned or raises what it raised."""

    def __call__(self) -> Awaitable[Any]: ...


Middleware = Callable[[JobContext, CallNext], Coroutine[Any, Any, Any]]
Around = Callable[[JobContext, CallNext], Awaitable[Any]]


def check(middleware: Any) -> None:
    """Raises TaskOptionError for what is no coroutine function."""
    if not inspect.iscoroutinefunction(middleware) and not inspect.iscoroutinefunction(type(middleware).__call__):
        raise TaskOptionError(f"middleware must be `async def m(ctx, call_next)`, not {middleware!r}")


def compose(middleware: Sequence[Middleware]) -> Around | None:
    """One function that takes a context and the run itself, and goes through all; None when there is none."""
    around: Around | None = None
    for one in reversed(middleware):
        around = one if around is None else _link(one, around)
    return around


def _link(outer: Middleware, inner: Around) -> Around:
    def around(context: JobContext, call_next: CallNext) -> Awaitable[Any]:
        return outer(context, lambda: inner(context, call_next))

    return around

"""Calling: a function of whatever kind is called, and what comes of it is a value, whatever that is."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

from ..threads import in_thread


async def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """What a function returned, or what it raised. A coroutine function runs here, any other in a thread."""
    try:
        if _is_coroutine_function(function):
            return await function(*arguments), None
        value = await in_thread(function, *arguments)
        return (await value if inspect.isawaitable(value) else value), None
    except BaseException as error:
        return None, _without_this_frame(error)


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType) and code.co_flags & inspect.CO_COROUTINE:
        return True  # the usual case, told in a tenth of the time
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _without_this_frame(error: BaseException) -> BaseException:
    """Of the traceback the function's part. Frames know who called them: with the frame of the call above, an error and
    the task that keeps it would be a circle."""
    trace = error.__traceback__
    return error if trace is None or trace.tb_next is None else error.with_traceback(trace.tb_next)

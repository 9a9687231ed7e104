"""Threads: where plain functions run, unless they ask for a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from .shield import to_the_end


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs a plain function in a thread, in which ``current_job()`` and ``current_task()`` work.

    A thread can't be cancelled: when the run is, its slot and its reservation stay taken until the function returns,
    and then the cancellation goes on. So a job runs twice at once only when a stop gave it up (after the shutdown
    timeout) or its reservation was lost. ``JobContext.cancelled`` tells the function that nobody waits for it, and
    ``LocalTask.cancelling`` that of a local task.
    """

    def call() -> tuple[Any, BaseException | None]:
        try:
            return function(*args, **kwargs), None
        except BaseException as error:
            return None, error  # as a value: a SystemExit that leaves a task of asyncio's stops the event loop

    work = asyncio.ensure_future(anyio.to_thread.run_sync(call, limiter=_threads()))
    result, raised = await to_the_end(work)
    if raised is not None:
        raise raised
    return result


def _threads() -> anyio.CapacityLimiter:
    """Threads for tasks: as many as slots and workers take, which limit them already; not anyio's 40 for all."""
    loop = asyncio.get_running_loop()
    limiter = _limiters.get(loop)
    if limiter is None:
        _limiters.clear()  # a closed loop's is of no use to anybody
        limiter = _limiters[loop] = anyio.CapacityLimiter(100_000)
    return limiter


_limiters: dict[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = {}

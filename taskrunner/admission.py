"""Admission: whether a queue would make a job wait too long, asked before the job is sent.

Dispatches that come at once share one question per queue, and an answer is good for a tenth of a second: under load a
forecast costs a round trip per tenth of a second, not per job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .errors import QueueBusy, RedisUnavailable

FRESH = 0.1
"""Seconds that an answer is used again: a queue's drain time changes by about as much in that time."""


class Admission:
    """The gate of one session. ``ask`` gives the expected drain time of a queue in seconds; it may raise RedisError."""

    def __init__(self, ask: Callable[[str], Awaitable[float]]) -> None:
        self._ask = ask
        self._asking: dict[str, asyncio.Task[float]] = {}
        self._known: dict[str, tuple[float, float]] = {}  # queue -> when it was answered, and what

    async def admit(self, queue: str, max_wait: float) -> None:
        """Raises QueueBusy if the queue is expected to take longer than ``max_wait`` seconds, or RedisError."""
        eta = await self._drain_time(queue)
        if eta > max_wait:
            wait = f"is expected to take {eta:.3g} s" if eta < float("inf") else "has jobs waiting that nobody takes"
            text = f"queue {queue!r} {wait}, over max_wait={max_wait:g}; nothing was dispatched"
            raise QueueBusy(f"{text}: try later, or add workers", eta)

    async def _drain_time(self, queue: str) -> float:
        known = self._known.get(queue)
        if known is not None and asyncio.get_running_loop().time() - known[0] < FRESH:
            return known[1]
        asking = self._asking.get(queue)
        if asking is None:
            asking = self._asking[queue] = asyncio.create_task(self._question(queue), name="taskrunner-admission")
        await asyncio.wait([asking])  # a caller that is cancelled leaves the question to the others
        if asking.cancelled():
            raise RedisUnavailable("the runner was closed before the forecast was known; nothing was dispatched")
        if error := asking.exception():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            raise type(error)(*error.args)
        return asking.result()

    async def _question(self, queue: str) -> float:
        try:
            eta = await self._ask(queue)
            self._known[queue] = (asyncio.get_running_loop().time(), eta)
            return eta
        finally:
            # Here and not in a callback: whoever asks after this instant must ask anew.
            self._asking.pop(queue, None)

    async def close(self) -> None:
        """Ends the questions that are open."""
        asking = list(self._asking.values())
        for one in asking:
            one.cancel()
        if asking:
            await asyncio.wait(asking)

"""Trying again: how long between attempts, and for how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import QueueFull, RedisError, RedisUnavailable
from .translate import Unanswered

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between attempts while the server can't be reached; doubled from the first to the longest, with jitter."""


def wait_before(attempt: int) -> float:
    """Seconds before the given further attempt (1 = the first): doubled each time, half of it random."""
    return min(FIRST_WAIT * 2.0 ** min(attempt - 1, 10), LONGEST_WAIT) * random.uniform(0.5, 1.0)


async def persist(attempt: Callable[[], Awaitable[T]], patience: float, *, writes: bool = False) -> T:
    """Tries until it works, or ``patience`` seconds have gone by with the server away; then raises RedisUnavailable.

    Only for what may be sent twice. Configuration errors and refusals for lack of memory are raised at once. With
    ``writes``, whatever ends it is raised as Unanswered if any attempt got no answer: that one may have written.
    """
    deadline = asyncio.get_running_loop().time() + patience
    tries, unanswered = 0, False
    while True:
        try:
            return await attempt()
        except RedisError as error:
            tries += 1
            pause = wait_before(tries)
            unanswered = unanswered or isinstance(error, Unanswered)
            passing = isinstance(error, RedisUnavailable) and not isinstance(error, QueueFull)
            if not passing or asyncio.get_running_loop().time() + pause > deadline:
                if writes and unanswered and not isinstance(error, Unanswered):
                    raise Unanswered(str(error)) from error
                raise
        await asyncio.sleep(pause)

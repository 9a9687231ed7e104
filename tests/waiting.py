"""Waiting for what must come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

DEADLINE = 20.0
"""Seconds that a test waits for an event that must come: far more than any machine needs."""


async def eventually(condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Waits until ``condition()`` (sync or async) is true and returns what it gave; fails after ``deadline`` s."""
    end = asyncio.get_running_loop().time() + deadline
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < end, f"{condition} was not true within {deadline} s"
        await asyncio.sleep(0.01)

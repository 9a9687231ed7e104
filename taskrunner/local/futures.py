"""Futures: how those who wait are told."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


def resolve(future: asyncio.Future[T], value: T) -> bool:
    """Tells whoever waits. False: nobody does any more; it was cancelled, or its event loop is closed."""
    if future.done() or future.get_loop().is_closed():
        return False
    future.set_result(value)
    return True

"""Waiters: those who wait for something, and how they are told."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiters(Generic[T]):
    """Any number of coroutines that wait for one value. Who is cancelled meanwhile only stops waiting."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[T], None] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    async def wait(self) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        try:
            return await future
        finally:
            del self._futures[future]

    def tell(self, value: T) -> None:
        for future in self._futures:
            resolve(future, value)


def resolve(future: asyncio.Future[T], value: T) -> bool:
    """Tells whoever waits. False: nobody does any more; it was cancelled, or its event loop is closed."""
    if future.done() or future.get_loop().is_closed():
        return False
    future.set_result(value)
    return True

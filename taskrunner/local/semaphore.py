"""Semaphore: a number of slots, taken in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType

from ..errors import LimitReached, UsageError
from ..options import Seconds, seconds_or_none, whole
from .waiters import resolve


class Semaphore:
    """``limit`` slots; whoever finds none waits in line, first come first served.

        semaphore = Semaphore(3)

        async with semaphore:
            await ask()

        if await semaphore.acquire(timeout=0.5):
            try: await ask()
            finally: semaphore.release()

    ``available + acquired == limit`` at every instant. A slot that is given back while others wait is the first
    waiter's at once: nobody who comes later gets between. It belongs to one event loop and one thread. Raises
    TaskOptionError for a limit that is no whole number of at least 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = whole(limit, "Semaphore: limit", 1)
        self._acquired = 0
        self._line = OrderedDict[asyncio.Future[bool], None]()

    def __repr__(self) -> str:
        return f"<Semaphore {self._acquired} of {self._limit} acquired, {len(self._line)} waiting>"

    @property
    def limit(self) -> int:
        """How many slots there are."""
        return self._limit

    @property
    def available(self) -> int:
        """How many slots are free."""
        return self._limit - self._acquired

    @property
    def acquired(self) -> int:
        """How many slots are taken."""
        return self._acquired

    def try_acquire(self) -> bool:
        """Takes a slot if one is free; never waits."""
        if self._acquired == self._limit:
            return False
        self._acquired += 1
        return True

    async def acquire(self, timeout: Seconds | None = None) -> bool:
        """Takes a slot; waits for one up to ``timeout`` seconds (None: as long as it takes).

        False: the time was over, or ``turn_away`` was called; no slot was taken, and neither when the caller is
        cancelled while it waits. Raises TaskOptionError for a timeout that can't be.
        """
        patience = seconds_or_none(timeout, "timeout")
        if self.try_acquire():
            return True
        if patience == 0:
            return False
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._line[turn] = None
        timer = None if patience is None else loop.call_later(patience, self._dismiss, turn)
        try:
            return await turn
        except BaseException:
            if turn.cancelled() or not turn.done():
                self._line.pop(turn, None)
            elif turn.result():
                self.release()  # it was given a slot in the instant in which it was cancelled
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Gives a slot back. Raises UsageError when none is taken."""
        if self._acquired == 0:
            raise UsageError("release() of a semaphore of which no slot is taken; each release needs an acquire first")
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if resolve(turn, True):
                return
        self._acquired -= 1

    def turn_away(self) -> None:
        """Lets ``acquire`` return False for everybody who waits now; who comes later waits as ever."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            resolve(turn, False)

    def _dismiss(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            del self._line[turn]
            turn.set_result(False)

    async def __aenter__(self) -> None:
        if not await self.acquire():
            raise LimitReached("a semaphore turned away those who waited for it")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

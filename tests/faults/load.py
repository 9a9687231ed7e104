"""A producer that dispatches all the time, and keeps account of what was accepted."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any

from taskrunner import Job, Task
from tests.waiting import eventually


class Load:
    """``async with Load(task):`` dispatches jobs in the background until the block ends; two at a time, a few hundred
    per second. ``accepted`` are those whose dispatch returned. One that raises ends the block with its error."""

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._ended = False
        self._senders: list[asyncio.Task[None]] = []
        self.accepted: list[Job[Any]] = []

    async def _send(self) -> None:
        while not self._ended:
            self.accepted.append(await self._task.dispatch(len(self.accepted)))
            await asyncio.sleep(0.002)

    async def more(self, count: int = 50, deadline: float = 20.0) -> float:
        """Waits until so many more were accepted. Returns the seconds that it took."""
        began, target = time.monotonic(), len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= target or any(one.done() for one in self._senders), deadline)
        assert len(self.accepted) >= target, [one.exception() for one in self._senders if one.done()]
        return time.monotonic() - began

    async def __aenter__(self) -> Load:
        self._senders = [asyncio.create_task(self._send()) for _ in range(2)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        await asyncio.gather(*self._senders, return_exceptions=kind is not None)

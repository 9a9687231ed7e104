"""A producer that doesn't give up."""

from __future__ import annotations

import asyncio

from tests.faults.load import Load
from tests.faults.workshop import Workshop

RUN = 0.02
"""Seconds that a job runs."""


class Traffic(Load):
    """Dispatches jobs of 20 ms in the background, about ``rate`` per second, and retries whatever exception it gets.
    ``errors`` are those exceptions."""

    def __init__(self, tasks: Workshop, rate: float) -> None:
        super().__init__(tasks.nap)
        self._pause = 2 / rate  # there are two senders
        self.errors: list[Exception] = []

    async def _send(self) -> None:
        while not self._ended:
            try:
                self.accepted.append(await self._task.dispatch(RUN))
            except Exception as error:
                self.errors.append(error)
                await asyncio.sleep(0.1)
            else:
                await asyncio.sleep(self._pause)

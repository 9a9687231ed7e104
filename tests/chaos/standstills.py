"""Standstills: when a process could do nothing, as it was stopped, its event loop blocked, or the machine busy."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.journal import Journal

TURN = 0.02
LONG = 0.1
"""Seconds from which on a standstill is told: less than an eighth of any reservation of a run."""


async def watch(journal: Journal) -> None:
    """Tells the journal, as soon as the process goes on again. The turn before began at most TURN seconds earlier."""
    while True:
        since = time.monotonic()
        await asyncio.sleep(TURN)
        until = time.monotonic()
        if until - since > LONG + TURN:
            journal.write("stood still", since=since, until=until)

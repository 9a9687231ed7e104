"""Standstills: when a process could do nothing, as it was stopped, its event loop blocked, or the machine busy."""

from __future__ import annotations

import asyncio

from tests.chaos.journal import Journal

TURN = 0.02


async def watch(journal: Journal) -> None:
    """Tells the journal of a turn every TURN seconds; it sees by that when there were none."""
    while True:
        journal.turn()
        await asyncio.sleep(TURN)

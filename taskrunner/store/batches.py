"""Numbered batches: how a script call survives a lost reply.

A client has at most one batch in flight, and each carries the next number. The script keeps the last number with its
reply; a batch that comes again gets that reply and changes nothing. So one small key per client stands for what would
else be a tombstone per job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from .links import Link
from .persist import persist
from .scripts import Script

REMEMBERED = 600
"""Seconds that the server remembers the last batch: far longer than anybody tries to send one again."""


class Batches:
    """Sends the batches of one client to one partition, one at a time, over a link of its own."""

    def __init__(self, link: Link, key: str) -> None:
        self._link = link
        self._key = key
        self._number = 0
        self._turn = asyncio.Lock()

    async def send(self, script: Script, keys: list[str], arguments: list[Any], patience: float) -> Any:
        """The script's reply. Sent again, under its number, for ``patience`` seconds.

        Raises RedisUnavailable; as Unanswered when the server may have carried it out.
        """
        async with self._turn:
            self._number += 1
            keys.insert(0, self._key)
            arguments[0:0] = (self._number, REMEMBERED)
            return await persist(lambda: self._run(script, keys, arguments), patience, writes=True)

    def _run(self, script: Script, keys: list[str], arguments: list[Any]) -> Awaitable[Any]:
        return self._link.run(script, keys, arguments)

    async def forget(self) -> None:
        """Removes the key: the client is done. Best effort, it would expire anyway."""
        if self._number:
            await self._link.call(b"UNLINK", self._key, timeout=1)

"""Hears what the server publishes: that a job ended, that a due time moved forward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis import exceptions as theirs

from ..errors import RedisError
from .deployment import Deployment
from .links import pack
from .persist import wait_before

Heard = Callable[[str, bytes], None]


class Listener:
    """One subscribed connection. Notices can be lost while it is away, so everybody who listens looks as well: ``gap``
    is called whenever the subscription is (again) in force."""

    def __init__(self, deployment: Deployment, key: str, heard: Heard, gap: Callable[[], None]) -> None:
        self._deployment = deployment
        self._key = key
        self._heard = heard
        self._gap = gap
        self._channels: set[str] = set()
        self._connection: Any = None
        self._ready = asyncio.Event()

    async def listen(self, channels: set[str]) -> None:
        """Listens for ever, and comes back after every failure; ends by being cancelled."""
        self._channels = channels
        failures = 0
        while True:
            try:
                await self._subscribe(again=failures > 0)
                failures = 0
                while True:
                    kind, channel, data = await self._connection.read_response(disable_decoding=True)
                    if kind == b"message":
                        self._heard(channel.decode(), data)
            except (theirs.RedisError, OSError, EOFError, TimeoutError, RedisError, ValueError):
                self._ready.clear()
                await self._drop()
                failures += 1
                await asyncio.sleep(wait_before(failures))
            except asyncio.CancelledError:
                await self._drop()
                raise

    async def ready(self, timeout: float) -> bool:
        """Waits until the subscription is in force; False when it isn't within so many seconds."""
        try:
            async with asyncio.timeout(timeout):  # not wait_for, which swallows cancellations before Python 3.12
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def _subscribe(self, *, again: bool) -> None:
        target = await self._deployment.target(self._key, again=again)
        self._connection = target.asynchronous()
        await self._connection.connect()
        names = sorted(self._channels)
        await self._connection.send_packed_command([pack("SUBSCRIBE", *names)], check_health=False)
        for _ in names:
            await self._connection.read_response(disable_decoding=True)
        self._ready.set()
        self._gap()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except (theirs.RedisError, OSError, RuntimeError):
                pass

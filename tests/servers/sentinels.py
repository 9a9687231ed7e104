"""A primary with its replica, and three sentinels that watch over them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis.asyncio
from redis.exceptions import RedisError

from tests.servers.binaries import Binary
from tests.servers.server import Server
from tests.waiting import eventually

SERVICE = "service"
DEADLINE = 60.0
"""Seconds for what takes some five: sentinels find each other, or agree on a new primary."""


class Sentinel(Server):
    """One sentinel, which keeps what it knows in its configuration file."""

    def __init__(self, folder: Path, primary: Server, down_after: int) -> None:
        super().__init__(folder, kind=primary.kind)
        self._primary = primary.port
        self._down_after = down_after

    def _command(self, binary: Binary) -> list[str]:
        file = self._folder / "sentinel.conf"
        if not file.exists():
            lines = [
                f"port {self.port}",
                "bind 127.0.0.1",
                "dir .",
                "logfile log",
                f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary} 2",
                f"sentinel down-after-milliseconds {SERVICE} {self._down_after}",
                # How long a failed attempt holds up the next one, twice; three minutes without this line.
                f"sentinel failover-timeout {SERVICE} 5000",
            ]
            file.write_text("\n".join(lines) + "\n")
        return [binary.path, file.name, "--sentinel"]

    async def watched(self) -> dict[str, str]:
        """What it knows of the primary."""
        words = await self.command("SENTINEL", "MASTER", SERVICE)
        texts = [word.decode() for word in words]
        return dict(zip(texts[::2], texts[1::2], strict=True))


class Sentinels:
    """``primary``, ``replica`` and three ``sentinels``. After a failover the first two have changed places.

    ``arguments`` and ``persistent`` are those of both servers; the sentinels call a primary dead when they have heard
    nothing of it for ``down_after`` milliseconds.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        persistent: bool = False,
        fsync: str = "no",
        kind: str = "",
        down_after: int = 1000,
    ) -> None:
        # Replicas are sent their data at once, not after waiting 5 s for others that may want the same.
        quick = ("--repl-diskless-sync-delay", "0")
        self.primary, self.replica = (
            Server(folder / name, *quick, *arguments, persistent=persistent, fsync=fsync, kind=kind)
            for name in ("first", "second")
        )
        self.sentinels = [Sentinel(folder / f"sentinel-{number}", self.primary, down_after) for number in (1, 2, 3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def servers(self) -> list[Server]:
        return [self.primary, self.replica]

    def client(self) -> redis.asyncio.Redis:
        """A plain client of the present primary."""
        return self.primary.client()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    async def start(self) -> None:
        """Returns when the replica follows, and every sentinel knows it and the two others."""
        await self.primary.start()
        await self.replica.start()
        await self.replica.command("REPLICAOF", "127.0.0.1", self.primary.port)
        await self._wait(self._follows)
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels))
        await self._wait(self._know_each_other)

    def kill(self) -> None:
        """Ends everything that runs."""
        for server in (*self.sentinels, *self.servers):
            server.kill()

    async def failover(self) -> None:
        """What an operator does: the replica becomes the primary. ``followed()`` waits until the other follows it."""
        await self._wait(self._begin_failover)
        await self.promoted()

    def kill_primary(self) -> Server:
        """Ends the primary as a crash does, and returns it. ``promoted()`` waits for what comes next."""
        self.primary.kill()
        return self.primary

    async def promoted(self) -> None:
        """Waits until the replica is the primary, and all sentinels say so. A server that was killed comes back as its
        replica when it is started again: ``await sentinels.replica.start()``, then ``followed()``."""
        await self._wait(self._promoted)
        self.primary, self.replica = self.replica, self.primary

    async def followed(self) -> None:
        """Waits until the replica has caught up with the primary, whichever of the two the sentinels say that is by now
        (on a machine that stands still for ``down_after`` they change their minds again). They take some 10 s to tell a
        former primary that it is a replica."""
        await self._wait(self._settled)

    async def _wait(self, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            await eventually(condition, DEADLINE)
        except AssertionError as error:
            for server in (*self.sentinels, *self.servers):
                error.add_note(f"{server!r}:\n" + "\n".join(server.log().splitlines()[-20:]))
            raise

    # -- conditions ------------------------------------------------------------------------------------------------

    async def _follows(self) -> bool:
        try:
            state = await self.replica.command("INFO", "replication")
        except RedisError:
            return False  # it was just told to cut its connections
        follows: bool = state["role"] == "slave" and state["master_port"] == self.primary.port
        return follows and state["master_link_status"] == "up"

    async def _settled(self) -> bool:
        ports = {(await sentinel.watched())["port"] for sentinel in self.sentinels if sentinel.running}
        if ports == {str(self.replica.port)}:
            self.primary, self.replica = self.replica, self.primary
        return ports == {str(self.primary.port)} and await self._follows()

    async def _know_each_other(self) -> bool:
        known = [await sentinel.watched() for sentinel in self.sentinels]
        return all(one["num-slaves"] == "1" and one["num-other-sentinels"] == "2" for one in known)

    async def _begin_failover(self) -> bool:
        try:
            await self.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
        except RedisError as error:
            if "NOGOODSLAVE" in str(error) or "INPROG" in str(error):
                return False  # it hasn't looked at the replica lately, or an earlier one is not over
            raise
        return True

    async def _promoted(self) -> bool:
        try:
            role = (await self.replica.command("ROLE"))[0]
            known = [await sentinel.watched() for sentinel in self.sentinels if sentinel.running]
        except RedisError:
            return False
        return bool(role == b"master" and all(one["port"] == str(self.replica.port) for one in known))

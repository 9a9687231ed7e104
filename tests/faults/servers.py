"""Servers of a test's own, to be killed, paused and emptied."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis.asyncio

from taskrunner.embedded.binary import find_binary

DEADLINE = 20.0
"""Seconds for a start, which takes 50 ms."""


def free_port() -> int:
    """A port that nothing listens on, from outside the range that clients' own ends are taken from (32768 on Linux):
    while a server is down, nobody else must get its port by chance."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Server:
    """A server on a port of its own, which it keeps over restarts.

    With ``persistent`` it has an append-only file. It isn't told when to sync that to the disk: what it has written
    outlives the process, and only the process is killed here. (With ``everysec`` it would put off the writes
    themselves while it syncs.)
    """

    def __init__(self, folder: Path, *arguments: str, persistent: bool = False) -> None:
        self._folder = folder
        self._arguments = arguments
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def client(self, url: str = "") -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(url or self.url, protocol=2)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        command = [find_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        command += ["--appendonly", "yes" if self._persistent else "no", "--appendfsync", "no", "--logfile", "log"]
        self._process = subprocess.Popen([*command, *self._arguments], cwd=self._folder)
        end = time.monotonic() + DEADLINE
        while not self._answers():
            log = self._folder / "log"
            assert self._process.poll() is None, log.read_text() if log.exists() else "it did not start"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.005)

    def _answers(self) -> bool:
        """Whether it does what it is asked, or wants a password first; not while it loads its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """Ends it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

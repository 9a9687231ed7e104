"""A server of a test's own, to be killed, paused and emptied."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.servers.binaries import Binary, chosen_kind, obtain
from tests.servers.ports import free_port

DEADLINE = 20.0
"""Seconds for a start, which takes 50 ms."""

# Kills the server when our end of its standard input closes, however we end. A server is in a session of its own, so
# that Ctrl-C reaches the tests and not the servers under them.
WATCH = 'read -r nothing; kill -9 "$1"'


class Server:
    """A server on a port of its own, which it keeps over restarts. Ends with this process at the latest.

    With ``persistent`` it has an append-only file. Unless ``fsync`` says "always" or "everysec", it isn't told when to
    sync that to the disk: what it has written outlives the process, and only the process is killed here. (With
    "everysec" it may put off the writes themselves while it syncs.)

    ``kind`` is one of ``KINDS``; the one that ``TASKRUNNER_TEST_SERVER`` names when it is empty. ``arguments`` go to
    the server, as in ``Server(folder, "--maxmemory", "5mb")``, and ``environment`` is added to its own.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        persistent: bool = False,
        fsync: str = "no",
        kind: str = "",
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._arguments = arguments
        self._persistent = persistent
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self.kind = kind or chosen_kind()
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind}, port={self.port}, {'running' if self.running else 'down'})"

    def client(self, url: str = "") -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(url or self.url, protocol=2)

    async def command(self, *words: str | bytes | int) -> Any:
        """The reply to one command, over a connection of its own; nothing is tried again."""
        client = redis.asyncio.Redis.from_url(
            self.url, protocol=2, socket_connect_timeout=DEADLINE, socket_timeout=DEADLINE, retry=Retry(NoBackoff(), 0)
        )
        try:
            return await client.execute_command(*words)
        finally:
            await client.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    async def start(self) -> None:
        """Starts it, or starts it again on the same port with what it has kept. Raises Unavailable."""
        await asyncio.to_thread(self.start_blocking)

    def start_blocking(self) -> None:
        assert self._process is None, "it runs already"
        binary = obtain(self.kind)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            self._command(binary),
            cwd=self._folder,
            env={**os.environ, **binary.environment, **self._environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, "sh", str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        end = time.monotonic() + DEADLINE
        try:
            while not self._answers():
                assert self._process.poll() is None, self.log() or "it did not start"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.005)
        except BaseException:
            self.kill()
            raise

    def _command(self, binary: Binary) -> list[str]:
        command = [binary.path, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        command += ["--appendonly", "yes" if self._persistent else "no", "--appendfsync", self._fsync]
        return [*command, "--logfile", "log", *self._arguments]

    def _answers(self) -> bool:
        """Whether it does what it is asked, or wants a password first; not while it loads its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    @property
    def running(self) -> bool:
        """Whether it was started and not killed; a paused one counts."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def log(self) -> str:
        """What it has logged."""
        file = self._folder / "log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def kill(self) -> None:
        """Ends it as a crash does."""
        process, self._process = self._process, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:  # before the server's number can belong to somebody else
            watcher.kill()
            watcher.communicate()
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

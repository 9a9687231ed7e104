"""How processes agree on one server per directory.

The directory holds

``start.lock``
    held by a process while it joins or starts the server, so that these happen one after the other
``alive.lock``
    held by the server itself and its watcher: if it is free, the server is dead. The kernel tells, so there is no
    process id, port or heartbeat to be mistaken about
``users``
    a named pipe; a process that uses the server keeps the write end open, and the watcher reads (``watcher.sh``)
``address``
    where the server listens; believed only while ``alive.lock`` is held, and removed before a new server starts
``server.log``, ``server.pid``, ``server.sock``, ``data``
    what the server printed since its start, and its own files

So there are never two servers on the same data. One that is alive and does not answer is an error, and no reason to
start another.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from taskrunner.embedded.binary import find_binary
from taskrunner.embedded.descriptors import close, try_lock
from taskrunner.embedded.directory import (
    fits_socket,
    join_pipe,
    make_short_directory,
    open_pipe,
    read_address,
    read_process_id,
    write_address,
)
from taskrunner.embedded.launch import Launch, log_tail, reply_to_ping, start_watched
from taskrunner.errors import EmbeddedServerError

logger = logging.getLogger("taskrunner.embedded")

_ANSWER_TIMEOUT = 10.0  # seconds for a server to start, or to answer when it is known to be alive
_LOCK_TIMEOUT = 15.0  # seconds; whoever holds start.lock may need the whole of the above
_POLL = 0.003  # seconds between two looks; a server is ready 6 to 40 ms after its start


class Server(ABC):
    """One server as this process sees it. Its methods may be called from any thread."""

    persistent: bool

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: str | None = None
        self._user: int | None = None  # write end of the pipe: while it is open, this process is a user

    def locate(self) -> str:
        """The address of the server, which has just answered."""
        with self._lock:
            if self._socket is None or reply_to_ping(self._socket) is None:
                try:
                    self._socket = self._join_or_start()
                except (OSError, subprocess.SubprocessError) as error:
                    raise EmbeddedServerError(
                        f"Can't use {self}: {error}. Make sure that this user can read and write its files."
                    ) from error
            return "unix://" + quote(self._socket)

    def release(self) -> None:
        """Be a user no longer."""
        with self._lock:
            self._socket = None
            if self._user is not None:
                close(self._user)
                self._user = None

    @abstractmethod
    def _prepare(self) -> Path:
        """The directory of the server, made if need be."""

    @abstractmethod
    def _report_replaced(self) -> None:
        """Log that the server was found dead and has been started again."""

    def _become_user(self, user: int) -> None:
        """Take over this write end of the pipe of the present server.

        Only of that one: if the directory was removed and made again, the server of the removed one has to end.
        """
        former, self._user = self._user, user
        if former is not None:
            close(former)

    def _join_or_start(self) -> str:
        directory = self._prepare()
        with self._locked(directory):
            deadline = time.monotonic() + _ANSWER_TIMEOUT
            while True:
                alive = try_lock(directory / "alive.lock")
                if alive is not None:
                    return self._start(directory, alive)
                address = self._join(directory)
                if address is not None:
                    return address
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"Process {read_process_id(directory)} runs {self} but does not answer. If it hangs, kill it: "
                        f"the next attempt starts the server again. Its log is {directory / 'server.log'}."
                    )
                time.sleep(_POLL)

    @contextmanager
    def _locked(self, directory: Path) -> Generator[None]:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while (descriptor := try_lock(directory / "start.lock")) is None:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"Another process has been busy starting {self} for {_LOCK_TIMEOUT:.0f} seconds. If it hangs, kill "
                    f"it; the command fuser {directory / 'start.lock'} names it."
                )
            time.sleep(_POLL)
        try:
            yield
        finally:
            close(descriptor)

    def _join(self, directory: Path) -> str | None:
        """Become a user of the living server and return its address; None when it can't be joined (yet)."""
        user = join_pipe(directory)
        if user is None:
            return None
        address = read_address(directory)
        if address is None or reply_to_ping(address) is None:
            close(user)
            return None
        self._become_user(user)
        return address

    def _start(self, directory: Path, alive: int) -> str:
        """Start a server, which inherits the lock ``alive``, and become its first user."""
        with ExitStack() as on_failure:
            try:
                launch = self._plan(directory)
                user = open_pipe(directory)
                on_failure.callback(close, user)
                start_watched(launch, alive=alive)
            finally:
                close(alive)  # from here on the lock lives and dies with the server
            _wait_until_ready(launch)
            write_address(directory, launch.socket)
            on_failure.pop_all()
        if self._socket is not None:
            self._report_replaced()
        self._become_user(user)
        logger.info("Started %s: %s on %s", self, launch.binary, launch.socket)
        return launch.socket

    def _plan(self, directory: Path) -> Launch:
        binary = find_binary()
        (directory / "address").unlink(missing_ok=True)
        (directory / "data").mkdir(mode=0o700, exist_ok=True)
        socket, rubbish = str(directory / "server.sock"), "" if self.persistent else str(directory)
        if not fits_socket(socket):
            rubbish = make_short_directory()
            socket = os.path.join(rubbish, "server.sock")
        return Launch(binary, directory, socket, self.persistent, rubbish)


def _wait_until_ready(launch: Launch) -> None:
    deadline = time.monotonic() + _ANSWER_TIMEOUT
    while (reply := reply_to_ping(launch.socket)) is None or not reply.startswith(b"+PONG"):
        alive = try_lock(launch.directory / "alive.lock")
        if alive is not None:
            close(alive)
            raise EmbeddedServerError(
                f"{launch.binary} ended while it started. Its log says:\n{log_tail(launch.directory)}"
            )
        if time.monotonic() > deadline:
            if reply is not None:
                return  # it is still reading a large file, and tells so whoever asks it
            raise EmbeddedServerError(
                f"{launch.binary} did not answer within {_ANSWER_TIMEOUT:.0f} seconds after its start. "
                f"Its log says:\n{log_tail(launch.directory)}"
            )
        time.sleep(_POLL)

"""Start one server process under its watcher, and talk to it just enough to know that it lives."""

from __future__ import annotations

import importlib.resources
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from taskrunner.embedded.descriptors import close, open_own

_REPLY_TIMEOUT = 1.0  # seconds; an idle server answers in 0.1 ms, but a script or a full machine may hold it up
_LOG_TAIL = 2000  # bytes of the log that go into an error: about its last dozen lines


@dataclass(frozen=True)
class Launch:
    """What a server and its watcher are started with."""

    binary: str
    directory: Path
    socket: str
    persistent: bool
    rubbish: str
    """Absolute path of the directory that the watcher removes at the end; empty for none."""


def start_watched(launch: Launch, *, alive: int) -> None:
    """Start the server and its watcher, and return at once.

    They get a copy of ``alive``, the descriptor that holds ``alive.lock``. The caller holds the write end of the pipe.
    """
    watcher = importlib.resources.files("taskrunner.embedded").joinpath("watcher.sh").read_text("utf-8")
    kind = "shared" if launch.persistent else "private"
    users = open_own(launch.directory / "users", os.O_RDONLY)
    log = open_own(_log(launch.directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    try:
        subprocess.run(
            ["/bin/sh", "-c", watcher, "sh", kind, launch.rubbish, launch.binary, *_arguments(launch)],
            stdin=users,
            stdout=alive,
            stderr=log,
            cwd=launch.directory,
            umask=0o077,  # for the socket above all
            start_new_session=True,  # Ctrl-C in a terminal must reach the runner and not the server under it
            check=True,
        )
    finally:
        close(log)
        close(users)


def _arguments(launch: Launch) -> list[str]:
    # The server takes its files away as it ends. If somebody has moved or removed the directory meanwhile, another
    # server's may stand at the same path: so they are named from where the server is, and that is in its data. Lists of
    # processes show the path nevertheless.
    near, name = os.path.split(launch.socket)
    socket_file = f"../{name}" if near == str(launch.directory) else launch.socket
    return [
        *("--port", "0"),
        *("--unixsocket", socket_file),
        *("--proc-title-template", "{title} " + launch.socket.replace("{", "{{")),
        *("--daemonize", "no"),
        *("--dir", "data"),
        *("--pidfile", "../server.pid"),
        *("--save", ""),
        *("--appendonly", "yes" if launch.persistent else "no"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
    ]


def reply_to_ping(socket_path: str) -> bytes | None:
    """What the server says to a PING, or None when nobody answers.

    Any reply means a living server: ``-LOADING`` while it reads its data, ``-BUSY`` during a long script.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_REPLY_TIMEOUT)
        try:
            connection.connect(socket_path)
            connection.sendall(b"PING\r\n")
            return connection.recv(64) or None
        except OSError:
            return None


def log_tail(directory: Path) -> str:
    try:
        tail = _log(directory).read_bytes()[-_LOG_TAIL:]
    except OSError:
        return "(no log)"
    return tail.decode("utf-8", "replace").strip() or "(empty log)"


def _log(directory: Path) -> Path:
    return directory / "server.log"

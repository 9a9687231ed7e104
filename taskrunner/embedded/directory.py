"""The files by which processes find a server; ``server.py`` tells what each is for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from taskrunner.embedded.descriptors import close, open_own

_LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107 and macOS 103


def make_short_directory() -> str:
    """A fresh 0700 directory whose path leaves room for a socket."""
    directory = tempfile.mkdtemp(prefix="taskrunner-")
    if fits_socket(os.path.join(directory, "server.sock")):
        return directory
    os.rmdir(directory)
    return tempfile.mkdtemp(prefix="taskrunner-", dir="/tmp")


def fits_socket(path: str) -> bool:
    # What is not printable, such as a newline or bytes that are not UTF-8, survives neither our file nor a URL.
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and path.isprintable()


def open_pipe(directory: Path) -> int:
    """The write end of the pipe of users, made if need be. To be called while no server is alive.

    The pipe of a server that was killed is used again: whoever used that server keeps the next one alive too.
    """
    pipe = directory / "users"
    if not pipe.exists():
        os.mkfifo(pipe, 0o600)
    return open_own(pipe, os.O_RDWR | os.O_NONBLOCK)


def join_pipe(directory: Path) -> int | None:
    """The write end of the pipe of a living server, after a line that tells its watcher so.

    None when the server is about to end: the watcher has taken the name of the pipe away.
    """
    try:
        # Also for reading, so that neither this nor the write can block or raise SIGPIPE when the watcher ends.
        user = open_own(directory / "users", os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        os.write(user, b"\n")
    except BlockingIOError:
        pass  # it is full of such lines already
    return user


def has_user(directory: Path) -> bool:
    """Whether any process holds the write end of the pipe, and nobody has taken its name away."""
    try:
        reader = open_own(directory / "users", os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True
    finally:
        close(reader)


def read_address(directory: Path) -> str | None:
    try:
        return (directory / "address").read_text("utf-8").rstrip("\n")
    except FileNotFoundError:
        return None  # whoever started the server was killed before it was done; without a user the server ends


def write_address(directory: Path, address: str) -> None:
    unfinished = directory / "address.new"
    descriptor = open_own(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, address.encode() + b"\n")
    finally:
        close(descriptor)
    unfinished.replace(directory / "address")


def read_process_id(directory: Path) -> str:
    try:
        return (directory / "server.pid").read_text("utf-8").strip()
    except OSError:
        return "(unknown)"

"""Ports for servers. One is taken by one process until that ends, whether a server listens on it or is down."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

_taken: set[int] = set()


def free_port(*, bus: bool = False) -> int:
    """A port that nothing listens on, from outside the range that clients' own ends are taken from (32768 on Linux):
    while a server is down, nobody else must get its port by chance. With ``bus``, the port 10000 above it is free too:
    there the nodes of a cluster talk to each other."""
    while True:
        port = random.randint(10_000, 20_000) if bus else random.randint(20_000, 32_000)
        if _take(port) and (not bus or _take(port + 10_000)):
            return port


def _take(port: int) -> bool:
    if port in _taken:
        return False
    try:
        fcntl.lockf(_register(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:  # another process of tests has it
        return False
    _taken.add(port)
    return _is_free(port)


@functools.cache
def _register() -> int:
    """A file of which nothing is ever written: a process locks the byte whose number is that of its port, and loses
    the lock with its life. So one file serves all test runs on a machine."""
    path = Path(tempfile.gettempdir(), f"taskrunner-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""File descriptors that must not survive in a forked child.

Each of them says something about this process alone: "a user lives", "I hold the lock". A child with a copy would go
on saying it after we have ended. Close-on-exec covers subprocesses; a child of ``os.fork`` closes its copies here.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

# Held across fork, so that no descriptor is missed between "opened" and "noted".
# Reentrant, since a signal handler may fork while its own thread is in here.
_guard = threading.RLock()
_opened: set[int] = set()


def open_own(path: Path, flags: int) -> int:
    """A new descriptor of this file, which only this user may open if it has to be made."""
    with _guard:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        _opened.add(descriptor)
    return descriptor


def close(descriptor: int) -> None:
    with _guard:
        _opened.discard(descriptor)
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """The descriptor that now holds the lock on this file, or None when somebody else does.

    The lock ends when the last copy of the descriptor is closed, in whatever process that is.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        close(descriptor)
        return None
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def _acquire_before_fork() -> None:
    _guard.acquire()


def _release_in_parent() -> None:
    _guard.release()


def _close_in_child() -> None:
    global _guard
    for descriptor in _opened:
        os.close(descriptor)
    _opened.clear()
    _guard = threading.RLock()


os.register_at_fork(before=_acquire_before_fork, after_in_parent=_release_in_parent, after_in_child=_close_in_child)

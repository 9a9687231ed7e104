"""The server of ``embedded://``, which belongs to one process."""

from __future__ import annotations

import shutil
from pathlib import Path

from taskrunner.embedded.descriptors import close
from taskrunner.embedded.directory import has_user, make_short_directory
from taskrunner.embedded.server import Server, logger


class PrivateServer(Server):
    """The server of this process; or, for a guest, that of the parent which forked this process."""

    persistent = False

    def __init__(self) -> None:
        super().__init__()
        self._directory: Path | None = None
        self._guest = False

    def __str__(self) -> str:
        return "the private embedded server"

    def as_guest(self) -> PrivateServer:
        """The same server for a forked child, without the descriptors and the lock, which belong to the parent."""
        guest = PrivateServer()
        guest._directory, guest._socket = self._directory, self._socket
        guest._guest = True
        return guest

    def _prepare(self) -> Path:
        if self._directory is not None and has_user(self._directory):
            return self._directory  # so that whoever was told the address finds the new server there
        # The first server; or the parent of a guest has ended; or somebody has cleaned up among our files.
        self._guest = False
        self._directory = Path(make_short_directory())
        return self._directory

    def _join_or_start(self) -> str:
        former = self._directory
        try:
            return super()._join_or_start()
        except BaseException:
            if self._directory is not None and self._directory != former:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = former
            raise

    def _become_user(self, user: int) -> None:
        if self._guest:
            close(user)
        else:
            super()._become_user(user)

    def _report_replaced(self) -> None:
        logger.error("Found %s dead. Its data are gone; started an empty one", self)

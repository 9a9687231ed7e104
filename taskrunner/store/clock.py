"""The server's clock, as far as a client knows it: no deadline is ever measured with the clock of a worker."""

from __future__ import annotations

import time


class ServerClock:
    """Server time in milliseconds: this machine's clock and the offset that the latest reply with a time showed."""

    def __init__(self) -> None:
        self._offset = 0.0
        self.known = False

    def learn(self, server_ms: float) -> None:
        self._offset = server_ms - time.time() * 1000
        self.known = True

    def now(self) -> int:
        return int(time.time() * 1000 + self._offset)

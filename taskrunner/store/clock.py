"""The server's clock, as far as a client knows it: no deadline is ever measured with the clock of a worker."""

from __future__ import annotations

import time

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _elapsed() -> float:
    """Milliseconds of a clock that nobody sets; on Linux it also goes on while the machine is suspended."""
    return 1000 * (time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT))


class ServerClock:
    """Server time in milliseconds: a clock of this machine, and the offset that the latest reply with a time showed.

    Not the machine's time of day: a process that only dispatches learns the offset once, and would be wrong for ever
    after somebody (NTP) sets it.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self.known = False

    def learn(self, server_ms: float) -> None:
        self._offset = server_ms - _elapsed()
        self.known = True

    def now(self) -> int:
        return int(_elapsed() + self._offset)

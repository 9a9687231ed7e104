"""The server's clock, as far as a client knows it: no deadline is ever measured with the clock of a worker."""

from __future__ import annotations

import math
import time

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)

FRESH = 10_000.0
"""Milliseconds after which the server is asked again. Heartbeats learn its time more often; a process that only
dispatches would expire its jobs by a wrong clock for ever, once the server's is set or another server takes over."""


def _elapsed() -> float:
    """Milliseconds of a clock that nobody sets; on Linux it also goes on while the machine is suspended."""
    return 1000 * (time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT))


class ServerClock:
    """Server time in milliseconds: a clock of this machine, and the offset that the latest reply with a time showed.

    Not the machine's time of day, which somebody (NTP) may set.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._learned = -math.inf

    @property
    def known(self) -> bool:
        """Whether it was learned lately; else ask the server before a deadline is made of it."""
        return _elapsed() - self._learned < FRESH

    def learn(self, server_ms: float) -> None:
        self._learned = _elapsed()
        self._offset = server_ms - self._learned

    def now(self) -> int:
        return int(_elapsed() + self._offset)

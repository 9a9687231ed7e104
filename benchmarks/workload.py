"""What the benchmarks run: the payload, and the books that a worker process keeps of what its handlers did."""

from __future__ import annotations

import time
from typing import Any

PAYLOAD: dict[str, Any] = {
    "user_id": 123456,
    "email": "someone@example.test",
    "amount": 19.99,
    "tags": ["a", "b"],
    "note": "xxxxxxxx",
}
"""About 105 bytes of JSON."""

SLOTS = 100
"""Default ``num_workers`` of TaskRunner."""


def payloads(count: int) -> list[dict[str, Any]]:
    return [PAYLOAD | {"user_id": number} for number in range(count)]


class Tally:
    """How many jobs this process handled, and when. Instants of the monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = 0.0
        self.cpu = 0.0

    def add(self, count: int = 1) -> None:
        now = time.monotonic()
        if not self.count:
            self.first, self.cpu = now, time.process_time()
        self.count += count
        self.last = now

    def report(self) -> dict[str, float]:
        """Called once, at the end: ``cpu`` is then the process's CPU time since its first job, in seconds."""
        return {
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "cpu": time.process_time() - self.cpu if self.count else 0.0,
        }


class Stopwatch:
    """Wall and CPU time of a ``with`` block, in seconds."""

    def __enter__(self) -> Stopwatch:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu

    def report(self, count: int) -> dict[str, float]:
        return {"count": count, "seconds": self.seconds, "cpu": self.cpu}


def resident() -> int:
    """Bytes of memory that this process holds now (its peak, where the system tells only that)."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes

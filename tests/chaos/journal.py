"""Journals: what happened, told outside of Redis.

Each process appends to a file of its own; each line is one write to a file opened with O_APPEND, so that it stands
whoever is killed afterwards. All times are of one machine: ``at`` is ``time.monotonic()``, the same clock in all
processes, ``wall`` is ``time.time()``, which the server reads too.

A process that stood still says so before all else that it says: what it does next may be its end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIX = ".journal"
LONG = 0.1
"""Seconds between two turns of an event loop from which on it stood still: less than an eighth of any reservation of a
run."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event: when, in which process, of which job ("" if of none), and what else is known of it."""

    event: str
    at: float
    wall: float
    pid: int
    job: str
    more: Mapping[str, Any]


class Journal:
    """Writes the events of one process. ``name`` tells what the process is."""

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / f"{name}-{os.getpid()}{SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pid = os.getpid()
        self._turned: float | None = None

    def turn(self) -> None:
        """The event loop has a turn. Once that was said, it is said often (``standstills``)."""
        self._tell_standstill()
        self._turned = time.monotonic()

    def write(self, event: str, job: str = "", **more: Any) -> None:
        self._tell_standstill()
        self._append(event, job, more)

    def _tell_standstill(self) -> None:
        now = time.monotonic()
        if self._turned is not None and now - self._turned > LONG:
            self._append("stood still", "", {"since": self._turned, "until": now})

    def _append(self, event: str, job: str, more: Mapping[str, Any]) -> None:
        line = [event, time.monotonic(), time.time(), self._pid, job, more]
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> list[Line]:
    """The lines of all journals in a folder, in the order of their time."""
    lines: list[Line] = []
    for path in folder.glob("*" + SUFFIX):
        text = path.read_text()
        # A line that was being written when its process was killed has no end.
        lines += (Line(*json.loads(one)) for one in text[: text.rfind("\n") + 1].splitlines())
    return sorted(lines, key=lambda line: line.at)

"""Journals: what happened, told outside of Redis.

Each process appends to a file of its own; each line is one write to a file opened with O_APPEND, so that it stands
whoever is killed afterwards. All times are of one machine: ``at`` is ``time.monotonic()``, the same clock in all
processes, ``wall`` is ``time.time()``, which the server reads too.
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

    def write(self, event: str, job: str = "", **more: Any) -> None:
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

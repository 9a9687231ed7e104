"""The command line in a process of its own, with all that it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.waiting import DEADLINE, eventually


class Command:
    """``python -m taskrunner ARGUMENTS`` in a folder; ``out`` and ``err`` are the lines that it has printed so far.
    ``stdin`` is the descriptor that it reads; nothing if not given."""

    def __init__(self, folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> None:
        root = str(Path(__file__).parents[2])
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TASKRUNNER_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskrunner", *arguments],
            cwd=folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "PYTHONPATH": root, **environment},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [_read(self.process.stdout, self.out), _read(self.process.stderr, self.err)]

    def workers(self) -> list[int]:
        """The pids of all workers that consume or have consumed, oldest first."""
        return [
            int(found[1]) for line in self.err if (found := re.fullmatch(r"taskrunner: worker (\d+) started", line))
        ]

    def told(self, text: str) -> Callable[[], bool]:
        """Whether a line with this text has come on standard error."""
        return lambda: any(text in line for line in self.err)

    async def consuming(self, number: int = 1) -> list[int]:
        """Waits until so many workers have begun to consume; their pids."""
        await eventually(lambda: len(self.workers()) >= number or self.process.poll() is not None)
        assert self.process.poll() is None, self.err
        return self.workers()

    async def ended(self, deadline: float = DEADLINE) -> int:
        """Waits for the end of the command and of all that it prints. Its exit code."""
        code = await asyncio.to_thread(self.process.wait, deadline)
        for reader in self._readers:
            await asyncio.to_thread(reader.join, deadline)
        return code

    def close(self) -> None:
        """Leaves no process behind, whatever went wrong."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def _read(stream: IO[str], lines: list[str]) -> threading.Thread:
    def read() -> None:
        lines.extend(line.rstrip("\n") for line in stream)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader

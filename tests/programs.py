"""Programs in processes of their own, for tests that kill them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.waiting import DEADLINE


class Program:
    """A Python program in a process of its own, that the test can talk to and kill."""

    def __init__(self, source: str, **environment: str) -> None:
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, deadline: float = DEADLINE) -> str:
        """The next line that the program prints."""
        assert self.process.stdout is not None
        text = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), deadline)
        assert text, f"the program ended with {self.process.poll()} before it printed a line"
        return text.strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, deadline: float = DEADLINE) -> int:
        return await asyncio.to_thread(self.process.wait, deadline)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stdin):
            if stream is not None:
                stream.close()

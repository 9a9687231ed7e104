"""Processes of their own for what is measured. The parent asks, one JSON line each way; the child does it.

``child.ask("ours", "many", count=1000)`` awaits ``Ours.many(count=1000)`` in the child. A child that does not answer in
time is killed, and one whose parent is gone ends by itself, since its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bare import Bare
from .machine import versions
from .ours import Ours

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0
"""Seconds that a child may take for one answer: many times what any takes on a slow machine."""


class Child:
    """A child process, from its parent's side. Its methods block."""

    def __init__(self, url: str, namespace: str, *, python: str = sys.executable, uvloop: bool = False) -> None:
        command = [python, "-m", "benchmarks.children", "--url", url, "--namespace", namespace]
        self._process = subprocess.Popen(
            [*command, "--uvloop"] if uvloop else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, side: str, what: str, **arguments: Any) -> Any:
        self.send(side, what, **arguments)
        return self.answer()

    def send(self, side: str, what: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([side, what, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise SystemExit(f"a child process ended without an answer, with code {self._process.wait()}; see above")
        return json.loads(line)

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# -- in the child ------------------------------------------------------------------------------------------------------


class About:
    """What a child says of itself."""

    async def versions(self) -> dict[str, str]:
        return versions()


async def serve(url: str, namespace: str) -> None:
    """Does what the lines of standard input ask for, until it ends."""
    ours, bare = Ours(url, namespace), Bare(url, namespace)
    sides = {"ours": ours, "bare": bare, "about": About()}
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        while line := await lines.readline():
            side, what, arguments = json.loads(line)
            print(json.dumps(await getattr(sides[side], what)(**arguments)), flush=True)
    finally:
        await ours.aclose()
        await bare.aclose()


def event_loop(uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory of event loops for ``asyncio.Runner``; None is the standard one."""
    if not uvloop:
        return None
    try:
        import uvloop as fast
    except ImportError:
        raise SystemExit(f"{sys.executable} has no uvloop; install it there, or leave out --uvloop") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = fast.new_event_loop
    return factory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--uvloop", action="store_true")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=event_loop(chosen.uvloop)) as runner:
        runner.run(serve(chosen.url, chosen.namespace))


if __name__ == "__main__":
    main()

"""The workers: two supervised processes, as ``taskrunner run --processes 2`` starts them, and the news they print."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable

from ..supervisor import Supervisor, WorkerEvent
from .scene import Process, Scene

PROCESSES = 2
START_LIMIT = 60.0
"""Seconds for the processes to start and connect; half a second is usual."""


class FleetProblem(Exception):
    """The workers don't do as they should. The message says what they printed last."""


class Fleet:
    """Starts, kills and ends the workers, and puts what happens to them on the scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._supervisor = Supervisor(f"{__package__}.work:runner", PROCESSES, self._happened, output=self._printed)
        self._running: asyncio.Task[bool] | None = None
        self._changed = asyncio.Event()
        self._printed_last: deque[str] = deque(maxlen=5)

    async def start(self) -> None:
        """Starts the workers and waits until they consume. Raises FleetProblem."""
        self._running = asyncio.create_task(self._supervisor.run())
        await self._until(lambda: len(self.working()) == PROCESSES)

    def working(self) -> list[int]:
        return [process.pid for process in self._scene.processes.values() if process.state == "working"]

    async def kill_one(self) -> Process:
        """Kills the oldest worker by SIGKILL, and waits for its end."""
        victim = self._scene.processes[self.working()[0]]
        self._scene.tell(f"kill -9 {victim.pid}", "bold magenta")
        os.kill(victim.pid, signal.SIGKILL)
        await self._until(lambda: victim.state != "working")
        return victim

    async def stop(self) -> bool:
        """Ends the workers gracefully, if they run. Whether all of them drained."""
        if self._running is None:
            return True
        self._supervisor.stop()
        return await asyncio.shield(self._running)

    async def _until(self, condition: Callable[[], bool]) -> None:
        assert self._running is not None
        deadline = time.monotonic() + START_LIMIT
        while not condition():
            self._changed.clear()
            change = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait([change, self._running], timeout=1, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            if self._running.done():
                self._running.result()  # raises what it came to
            if self._running.done() or time.monotonic() > deadline:
                raise FleetProblem("the workers don't do as they should; they say: " + " / ".join(self._printed_last))

    def _happened(self, event: WorkerEvent) -> None:
        process = self._scene.processes.setdefault(event.pid, Process(event.pid))
        if event.kind == "started":
            replaces = len(self._scene.processes) > PROCESSES
            self._scene.tell(f"worker {event.pid} consumes" + (" in its place" if replaces else ""))
            process.state = "working"
        else:
            process.state = "killed" if event.code == -signal.SIGKILL else "ended"
            process.running = 0
            if event.pause is not None:
                self._scene.tell(str(event))
        self._changed.set()

    def _printed(self, pid: int, line: str) -> None:
        try:
            news = json.loads(line)
        except ValueError:
            news = None
        if isinstance(news, dict) and "long_queue" in news:
            self._scene.long_queue(news["long_queue"])
        else:
            self._printed_last.append(line)
            if " ERROR " in line or " CRITICAL " in line:
                self._scene.tell(f"worker {pid}: {line}", "yellow")
        self._changed.set()

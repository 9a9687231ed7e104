"""Supervisor: some worker processes of one runner. A dead one is replaced; a stop is passed on, and waited for.

Each worker is in a session of its own, so that Ctrl-C reaches the supervisor alone, and holds one end of a channel
(``worker.py``), so that it drains when the supervisor is gone, SIGKILL included.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .. import embedded
from ..errors import EmbeddedServerError

QUICK = 10.0
"""Seconds: a worker that lives shorter than this is one that "dies quickly"."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second replacement of workers that die quickly; doubled for each further one, up to a longest."""
LAST_WORDS = 1.0
"""Seconds to hear what a dead worker has said. Longer only if a child of its own keeps the channel open."""
SERVER_LOOK = 1.0
"""Seconds between two looks at the shared embedded server: its end must not stay unnoticed, as in one process."""

HANDED_BACK = (0, -signal.SIGTERM)
"""Exit codes of a worker that was asked to stop. Killed by SIGTERM: that came before it ran, or after all was done."""


class ConfigurationProblem(Exception):
    """Starting a worker again would not help. The message is one sentence."""


@dataclass(frozen=True)
class WorkerEvent:
    """What happened to a worker process: it consumes, or it has ended. ``pause``: seconds until a new one takes its
    place; None when none does."""

    kind: Literal["started", "ended"]
    pid: int
    code: int = 0
    pause: float | None = None

    def __str__(self) -> str:
        if self.kind == "started":
            return f"worker {self.pid} started"
        how = f"ended with exit code {self.code}" if self.code >= 0 else f"was killed by {_signal_name(-self.code)}"
        if self.pause is None:
            return f"worker {self.pid} " + ("ended" if self.code in HANDED_BACK else how)
        return f"worker {self.pid} {how}; a new one starts " + (f"in {self.pause:g} s" if self.pause else "at once")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # one of the real-time signals, which have no names


@dataclass
class Supervisor:
    """Runs ``processes`` workers of ``reference``. ``tell`` hears what happens to them; ``output`` gets each line that
    they print, with the pid, instead of our own stdout and stderr."""

    reference: str
    processes: int
    tell: Callable[[WorkerEvent], None]
    options: Sequence[str] = ()
    output: Callable[[int, str], None] | None = None
    _alive: dict[int, Process] = field(default_factory=dict)
    _stops: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _problem: str | None = None
    _unclean: bool = False
    _server_watch: asyncio.Task[None] | None = None

    @property
    def pids(self) -> list[int]:
        """The living workers, oldest first."""
        return list(self._alive)

    def stop(self) -> None:
        """Asks all workers to drain. Once more: to hand back what runs. A third time: kills them."""
        self._stops += 1
        self._stopping.set()
        for process in self._alive.values():
            self._pass_on(process)

    async def run(self) -> bool:
        """Keeps the workers running until ``stop``, and waits for their end. Whether all of them drained.

        Raises ConfigurationProblem when a worker said that starting it again would not help.
        """
        try:
            async with asyncio.TaskGroup() as seats:
                for _ in range(self.processes):
                    seats.create_task(self._keep_one_running())
        finally:
            if self._server_watch is not None:
                self._server_watch.cancel()
        if self._problem is not None:
            raise ConfigurationProblem(self._problem)
        return not self._unclean

    async def _keep_one_running(self) -> None:
        quick = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            pid, code = await self._one_life()
            if self._stopping.is_set():
                self._unclean |= code not in HANDED_BACK
                if self._problem is None:  # else that is all there is to say
                    self.tell(WorkerEvent("ended", pid, code))
                return
            quick = quick + 1 if time.monotonic() - began < QUICK else 0
            pause = pause_before(quick)
            self.tell(WorkerEvent("ended", pid, code, pause))
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                continue

    async def _one_life(self) -> tuple[int, int]:
        """Starts a worker and waits for its end. Its pid and exit code (negative: the signal that killed it)."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._start(theirs.fileno())
        reader, writer = await asyncio.open_connection(sock=ours)
        hearing = [asyncio.ensure_future(self._hear(process.pid, reader, writer))]
        if self.output is not None and process.stdout is not None:
            hearing.append(asyncio.ensure_future(_read_lines(process.stdout, process.pid, self.output)))
        self._alive[process.pid] = process
        if self._stopping.is_set():
            self._pass_on(process)  # it was being started when the stop came
        try:
            code = await process.wait()
            await asyncio.wait(hearing, timeout=LAST_WORDS)
        finally:
            del self._alive[process.pid]
            for task in hearing:
                task.cancel()
            writer.close()
        return process.pid, code

    def _start(self, channel: int) -> Awaitable[Process]:
        command = [sys.executable, "-m", "taskrunner.cli.worker", self.reference, "--channel", str(channel)]
        piped = self.output is not None
        return asyncio.create_subprocess_exec(
            *command,
            *self.options,
            stdin=DEVNULL,
            stdout=PIPE if piped else None,
            stderr=STDOUT if piped else None,
            pass_fds=[channel],
            start_new_session=True,
        )

    def _pass_on(self, process: Process) -> None:
        try:
            process.send_signal(signal.SIGTERM if self._stops < 3 else signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended

    async def _hear(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await _line(reader):
            match json.loads(line):
                case {"say": "consuming"}:
                    self.tell(WorkerEvent("started", pid))
                case {"want": "server"}:
                    await self._share_server(writer)
                case {"problem": text}:
                    self._give_up(text)
                case unknown:
                    raise ValueError(f"a worker said {unknown!r}")

    def _give_up(self, problem: str) -> None:
        if self._problem is None:
            self._problem = problem
            self.stop()

    async def _share_server(self, writer: asyncio.StreamWriter) -> None:
        try:
            url = await asyncio.to_thread(embedded.locate, "embedded://")
        except EmbeddedServerError as error:
            self._give_up(str(error))
        else:
            writer.write(url.encode() + b"\n")
            self._server_watch = self._server_watch or asyncio.create_task(self._keep_server())

    async def _keep_server(self) -> None:
        while True:
            await asyncio.sleep(SERVER_LOOK)
            try:
                await asyncio.to_thread(embedded.locate, "embedded://")  # starts it again when it is dead
            except EmbeddedServerError as error:
                print(f"taskrunner: {error}", file=sys.stderr)


def pause_before(quick: int) -> float:
    """Seconds before a replacement, after so many workers in a row that died quickly."""
    # The exponent has a limit of its own: after a night of deaths it would be beyond what a float can hold.
    return min(FIRST_PAUSE * 2 ** min(quick - 2, 10), LONGEST_PAUSE) if quick > 1 else 0.0


async def _read_lines(reader: asyncio.StreamReader, pid: int, output: Callable[[int, str], None]) -> None:
    while line := await _line(reader):
        output(pid, line.decode(errors="replace").rstrip(os.linesep))


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end. A killed process may reset its sockets instead of closing them."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""

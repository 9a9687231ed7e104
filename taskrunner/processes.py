"""Processes: where tasks with ``pool="process"`` run. Each runs one call at a time and is used again, unless its run
was cancelled: then it is killed, with whatever it started, and the next call gets a new one.

A process talks with its worker over a socket, which is its standard input only until it has started: what a task or a
program of the task's reads from its input or prints never gets in the way. It ends when that socket is closed, however
the worker ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from typing import Any

from .carriage import Raised, Request, Returned, Unpicklable
from .envelope import Delivery
from .errors import PayloadError, ProcessCrashed
from .feature import Call, PackingError
from .procedure import MAIN
from .threads import in_thread

log = logging.getLogger("taskrunner.worker")

START = "import sys; sys.path[:] = sys.argv[1:]; from taskrunner.process_main import main; main()"
ALIVE = 0.5
"""Seconds between looks whether a silent process lives. Its end shows on the socket, except when a process that it
forked has the other end too."""
HEAD = 8
"""Bytes of the length in front of each message."""
MAIN_ABROAD = "__mp_main__"
"""The name under which another process runs our main module, so that its ``if __name__ == "__main__":`` is not taken;
multiprocessing's name, as everybody's guard knows it."""


def processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


class Processes:
    """The processes of one worker: as many as it has processors, or slots if those are fewer. Started when needed."""

    def __init__(self, slots: int) -> None:
        self._turns = asyncio.Semaphore(max(1, min(slots, processors())))
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    def in_turn(self, call: Call) -> Call:
        """The same call, once there is a process to spare, and that has started."""

        async def waiting(delivery: Delivery) -> Any:
            async with self._turns:
                await self._prepare()
                return await call(delivery)

        return waiting

    async def _prepare(self) -> None:
        """Sees to it that a process answers. One that was killed while it had nothing to do fails no job."""
        while self._idle:
            try:
                await self._exchange(b"")
                return
            except ProcessCrashed as error:
                log.warning("%s; it had none, and is replaced", error)
        await self._exchange(b"")

    async def run(self, request: Request) -> Any:
        """Makes a call in a process, and returns or raises what the function does.

        Raises ProcessCrashed when the process dies; PackingError when arguments or result can't travel.
        """
        return _open(await self._exchange(_message(request)))

    async def _exchange(self, message: bytes) -> bytes:
        """Sends a message to a process and gives its reply; an empty one has an empty reply, once it has started."""
        process = self._take()
        try:
            reply = await process.ask(message)
        except BaseException:
            self._all.discard(process)
            await process.end()
            raise
        self._idle.append(process)
        return reply

    def _take(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            self._all.discard(process)  # somebody killed it while it had nothing to do
            process.forget()
        process = Process()
        self._all.add(process)
        return process

    async def close(self) -> None:
        """Ends all of them."""
        ending, self._all, self._idle = self._all, set[Process](), []
        await asyncio.gather(*(process.end() for process in ending))


class Process:
    """One process, and the way to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        quiet = {signal.SIGINT, signal.SIGTERM}
        # What a terminal or a service manager sends to everybody must not kill it before it can say that it doesn't
        # care: a stop is graceful for what runs in it. A group of its own, so that it can be killed with its children.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, quiet)
        try:
            command = [sys.executable, "-c", START, *sys.path]
            self._popen = subprocess.Popen(command, stdin=theirs.fileno(), process_group=0)
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._socket = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._forgotten = False

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    async def ask(self, message: bytes) -> bytes:
        """Sends a message and waits for the reply. Raises ProcessCrashed."""
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._socket)
        reply = asyncio.ensure_future(self._exchange(*self._streams, message))
        try:
            while not reply.done():
                await asyncio.wait([reply], timeout=ALIVE)
                if not self.alive and not reply.done():
                    break
            if reply.done():
                return reply.result()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            reply.cancel()
        raise ProcessCrashed(_obituary(await self.end()))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> bytes:
        writer.write(len(message).to_bytes(HEAD, "big") + message)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(HEAD), "big"))

    async def end(self) -> int:
        """Kills it and all that it started, and returns its exit code once it is gone."""
        self.forget()
        code: int = await in_thread(self._popen.wait)
        return code

    def forget(self) -> None:
        """Kills it and all that it started, and closes the way to it."""
        if self._forgotten:
            return
        self._forgotten = True
        try:
            # Right after its end was seen its number is not yet somebody else's: those are given in a circle.
            os.killpg(self._popen.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        if self._streams is not None:
            self._streams[1].transport.abort()
        else:
            self._socket.close()


def _message(request: Request) -> bytes:
    """A request as bytes, and with it what the process needs of our main module, if the request names it."""
    try:
        body = pickle.dumps(request)
    except Exception as error:
        text = f"the arguments of task {request.delivery.envelope.task!r} can't be sent to a process: {error}"
        raise PackingError(PayloadError(text), "its arguments can't be sent to a process") from None
    return pickle.dumps((_main() if MAIN.encode() in body else None, body))


def _main() -> dict[str, str] | None:
    """How another process gets our main module, as ``multiprocessing.spawn.prepare`` wants to be told."""
    main = sys.modules[MAIN]
    sys.modules.setdefault(MAIN_ABROAD, main)  # what comes back from there may be of its classes
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    return None if path is None else {"init_main_from_path": path}


def _open(reply: bytes) -> Any:
    """What the function returned; or raises what it raised."""
    try:
        found = pickle.loads(reply)
        error = found.rebuild() if isinstance(found, Raised) else None
        problem = found.problem if isinstance(found, Unpicklable) else ""
    except Exception as trouble:
        found, error, problem = None, None, str(trouble)
    if error is not None:
        raise error
    if isinstance(found, Returned):
        return found.value
    text = f"the result can't leave its process: {problem}; return plain data"
    raise PackingError(PayloadError(text), "its result can't be kept")


def _obituary(code: int) -> str:
    """Why a process died, by its exit code."""
    if code >= 0:
        return f"the process for the job ended itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system kills so when memory is short" if code == -signal.SIGKILL else ""
    return f"the process for the job was killed by {name}{hint}"

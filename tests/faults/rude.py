"""Tasks that behave as no task should: they die, freeze their process, ignore cancellation, fork."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

from taskrunner import Backoff, JobContext, TaskRunner

POLL = 0.01
LIFE = 60.0
"""Seconds after which a forked child ends in any case."""

DEATHS: dict[str, tuple[Callable[[], object], int]] = {
    "exit": (lambda: os._exit(3), 3),
    "segmentation fault": (lambda: ctypes.string_at(0), -signal.SIGSEGV),
    "killed for its memory": (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
}
"""Ways to die: how, and what the parent of the process sees."""


class Rude:
    """Registers these tasks with a runner. ``write`` is the journal's, ``is_open`` tells whether a gate is open."""

    def __init__(
        self,
        runner: TaskRunner,
        folder: Path,
        write: Callable[[str, JobContext], None],
        is_open: Callable[[str], bool],
    ) -> None:
        @runner.task
        async def perish(ctx: JobContext, way: str) -> None:
            """Takes its process with it, in one of the ``DEATHS``."""
            write("start", ctx)
            assert "FOLDER" in os.environ, "the test's own process would die"
            DEATHS[way][0]()

        @runner.task
        async def freeze(ctx: JobContext, fifo: str) -> int:
            """Stops all threads of its process, as a native call does that holds the interpreter lock, until somebody
            writes to the fifo. Only its first delivery."""
            write("start", ctx)
            if ctx.deliveries == 1:
                ctypes.PyDLL(None).open(str(folder / fifo).encode(), os.O_RDONLY)
            write("end", ctx)
            return os.getpid()

        @runner.task
        async def block_once(ctx: JobContext, gate: str) -> int:
            """Runs until its gate is open; in its first delivery it keeps the event loop to itself."""
            write("start", ctx)
            while not is_open(gate):
                if ctx.deliveries == 1:
                    time.sleep(POLL)  # noqa: ASYNC251 - that is the point
                else:
                    await asyncio.sleep(POLL)
            write("end", ctx)
            return os.getpid()

        @runner.task
        async def ignore(ctx: JobContext, gate: str) -> int:
            """Runs until its gate is open, however often it is cancelled."""
            write("start", ctx)
            while not is_open(gate):
                try:
                    await asyncio.sleep(POLL)
                except asyncio.CancelledError:
                    write("cancelled", ctx)
            write("end", ctx)
            return os.getpid()

        @runner.task
        async def exhaust(ctx: JobContext) -> None:
            """Asks for more memory than its process may have."""
            write("start", ctx)
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 2**26, hard))
            try:
                bytearray(2**30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

        @runner.task
        async def fork(ctx: JobContext, gate: str) -> int:
            """Leaves a child behind, which has all that its parent has; runs until its gate is open. Only its first
            delivery."""
            if ctx.deliveries == 1 and not os.fork():
                end = time.monotonic() + LIFE
                while not is_open("child") and time.monotonic() < end:
                    time.sleep(POLL)  # noqa: ASYNC251 - it never goes back to the event loop
                os._exit(0)
            write("start", ctx)
            while ctx.deliveries == 1 and not is_open(gate):  # noqa: ASYNC110 - see above
                await asyncio.sleep(POLL)
            return os.getpid()

        @runner.task
        async def fork_and_return(ctx: JobContext) -> int:
            """Returns twice: here, and in a child."""
            write("start", ctx)
            if os.fork():
                write("end", ctx)
            return os.getpid()

        @runner.task(max_retry=1, backoff=Backoff.constant(300))
        async def stumble(ctx: JobContext) -> int:
            """Fails in its first attempt; the second is minutes later."""
            write("start", ctx)
            if ctx.attempt == 1:
                raise ValueError("the first time")
            return os.getpid()

        self.perish, self.freeze, self.block_once, self.ignore = perish, freeze, block_once, ignore
        self.exhaust, self.fork, self.fork_and_return, self.stumble = exhaust, fork, fork_and_return, stumble


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

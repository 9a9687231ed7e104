"""Functions for tests of ``pool="process"``: another process finds them here by their names."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskrunner import GiveUp, JobContext, Retry, Snooze, current_job


@dataclass
class Order:
    number: int


class Demanding(Exception):
    """Can be pickled, and not be made again of its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def square(n: int) -> tuple[int, int]:
    return n * n, os.getpid()


def typed(order: Order) -> list[str]:
    return [type(order).__name__, type(order.number).__name__]


def context(ctx: JobContext, n: int) -> list[Any]:
    facts = [ctx.job_id, ctx.task, ctx.queue, ctx.attempt, ctx.max_retry, dict(ctx.headers), ctx.cancelled, n]
    return [*facts, current_job() is ctx, ctx.runner, ctx.state, ctx.previous, os.getpid()]


def die(how: str, once: str = "") -> str:
    if once and Path(once).exists():
        return "alive"
    if once:
        Path(once).touch()
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "fork":  # the child holds all that we hold, and lives on
        if os.fork() == 0:
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def fail(what: str, attempt_file: str = "") -> str:
    if attempt_file:
        with Path(attempt_file).open("a") as file:
            file.write("x")
    runs = len(Path(attempt_file).read_text()) if attempt_file else 0
    if what == "key":
        raise KeyError("no such key")
    if what == "demanding":
        raise Demanding(5, "no")
    if what == "local":

        class Local(ValueError): ...

        raise Local("from inside")
    if what == "exit":
        sys.exit("enough")
    if what == "give up":
        raise GiveUp("closed")
    if what == "retry" and runs == 1:
        raise Retry(0, "once more")
    if what == "snooze" and runs == 1:
        raise Snooze(0)
    if what == "result":
        return (n for n in "no")  # type: ignore[return-value]
    return f"run {runs}"


def hold(pid_file: str, go_file: str) -> str:
    """Says who it is, and computes until it may go."""
    write(pid_file, str(os.getpid()))
    while not Path(go_file).exists():
        pass
    return "gone"


def start_program(pid_file: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as program:
        write(pid_file, str(program.pid))
        program.wait()


def noise() -> list[str]:
    """Writes to its output and reads from its input by all ways there are."""
    print("from print")
    os.write(1, b"from the descriptor\n")
    subprocess.run(["/bin/echo", "from a program"], check=True)
    return [sys.stdin.read(), os.read(0, 10).decode(), subprocess.run(["cat"], stdout=-1).stdout.decode()]


def ignored_signals() -> list[bool]:
    """What a program that the task starts ignores."""
    ignored = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigIgn"))
    mask = int(ignored.split()[1], 16)
    return [bool(mask >> number - 1 & 1) for number in (signal.SIGINT, signal.SIGTERM)]


def write(path: str, text: str) -> None:
    """Whole or not at all."""
    Path(path + ".new").write_text(text)
    Path(path + ".new").rename(path)


def save(ctx: JobContext) -> None:
    asyncio.run(ctx.save(1))


def lock(ctx: JobContext, n: int) -> tuple[str | None, int]:
    return ctx.lock_key, ctx.fence


def tell_progress(ctx: JobContext) -> None:
    asyncio.run(ctx.progress(1, 2))

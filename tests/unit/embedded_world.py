"""What the tests of the embedded server need: a place of their own, and processes that do as they are told."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil
import redis

from taskrunner.embedded.binary import find_binary

DEADLINE = 30.0  # seconds; what is waited for takes well under one on an idle machine

# A process that evaluates what it reads, line by line, and answers with the result.
OBEY = """
import logging, os, sys
from concurrent.futures import ThreadPoolExecutor
from taskrunner.embedded import launch, locate, release, server

class Keep(logging.Handler):
    def emit(self, record): records.append((record.levelname, record.getMessage()))

records = []
logging.getLogger("taskrunner.embedded").addHandler(Keep())

def obey(orders, answers):
    for line in orders:
        try: answer = eval(line)
        except Exception as error: answer = f"{type(error).__name__}: {error}"
        print(repr(answer), file=answers, flush=True)

def fork(orders, answers):
    if pid := os.fork(): return pid
    obey(open(orders), open(answers, "w"))
    os._exit(0)

obey(sys.stdin, sys.stdout)
"""


class Process:
    """A process that uses embedded servers."""

    def __init__(self, pid: int, orders: IO[str], answers: IO[str]) -> None:
        self.pid, self.orders, self.answers = pid, orders, answers

    def tell(self, order: str) -> None:
        print(order, file=self.orders, flush=True)

    def answer(self) -> Any:
        return ast.literal_eval(self.answers.readline())

    def ask(self, order: str) -> Any:
        self.tell(order)
        return self.answer()

    def locate(self, url: str) -> str:
        address: str = self.ask(f"locate({url!r})")
        assert address.startswith("unix://"), address
        return address

    def send(self, signal_number: signal.Signals) -> None:
        os.kill(self.pid, signal_number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


class World:
    """A directory for everything that a test makes, and the processes that it starts."""

    def __init__(self) -> None:
        self.home = home = Path(tempfile.mkdtemp(prefix="t-")).resolve()  # pytest's tmp_path is too long for a socket
        self.url = f"embedded://{home}/data"
        self.inside = home / "data" / "taskrunner-valkey"
        self.temporary = home / "tmp"
        self.temporary.mkdir()
        self._processes: list[Process] = []
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, **environment: str) -> Process:
        inherited = {name: value for name, value in os.environ.items() if name != "TASKRUNNER_EMBEDDED_URL"}
        started = subprocess.Popen(
            [sys.executable, "-c", OBEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited, "TMPDIR": str(self.temporary), **environment},
            cwd=Path(__file__).parents[2],
        )
        assert started.stdin
        assert started.stdout
        self._started.append(started)
        return self._know(Process(started.pid, started.stdin, started.stdout))

    def fork(self, parent: Process) -> Process:
        orders, answers = (self.home / f"{name}-{len(self._processes)}" for name in ("orders", "answers"))
        os.mkfifo(orders)
        os.mkfifo(answers)
        pid = parent.ask(f"fork({str(orders)!r}, {str(answers)!r})")
        return self._know(Process(pid, orders.open("w"), answers.open()))

    def _know(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def script(self, name: str, text: str) -> str:
        """The path of a program that does this."""
        path = self.home / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return str(path)

    def counting_server(self) -> tuple[str, Callable[[], int]]:
        """A server binary, and how often it was started."""
        starts = self.home / "starts"
        binary = self.script("counting-server", f'echo started >>"{starts}"\nexec "{find_binary()}" "$@"')
        return binary, lambda: len(starts.read_text().splitlines())

    def parts(self) -> list[psutil.Process]:
        """All processes of embedded servers of this test: servers and watchers."""
        found = psutil.process_iter(["cmdline"])
        return [process for process in found if any(str(self.home) in part for part in process.info["cmdline"] or ())]

    def servers(self) -> list[int]:
        """The process ids of all servers of this test."""
        return [part.pid for part in self.parts() if part.name().endswith("-server")]

    def close(self) -> None:
        """End all processes, and make sure that they leave nothing behind."""
        for process in self._processes:
            process.orders.close()
            process.answers.close()
            if not is_gone(process.pid):
                process.kill()
        for started in self._started:
            started.wait(DEADLINE)
        try:
            eventually(lambda: not self.parts())
            eventually(lambda: not list(self.temporary.iterdir()))
        finally:
            shutil.rmtree(self.home)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "this did not become true in time"
        time.sleep(0.01)


def client(address: str) -> redis.Redis:
    return redis.Redis.from_url(address, decode_responses=True, protocol=2)


def server_of(address: str) -> int:
    """The process id of the server at this address."""
    with client(address) as connection:
        process_id: int = connection.info("server")["process_id"]
    return process_id


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

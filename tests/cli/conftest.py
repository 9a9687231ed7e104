"""What tests of the command line get: an application in a folder, and commands that are started there."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from taskrunner import TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys
from tests.cli.terminal import Command
from tests.faults.fixtures import own_server

__all__ = ["Ask", "answer", "ask", "command", "declared", "folder", "keys", "own_server"]

Ask = Callable[..., Awaitable[Command]]

APP = """
import asyncio
import os
import time
from pathlib import Path

from taskrunner import TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys

here = Path(__file__).parent
runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=4, reservation_timeout=0.5)


@runner.task
async def whoami() -> int:
    return os.getpid()


@runner.task
async def hold() -> str:
    (here / "started").touch()
    while not (here / "gate").exists():
        await asyncio.sleep(0.01)
    return "held"


@runner.task
def hold_thread() -> str:
    (here / "started").touch()
    while not (here / "gate").exists():
        time.sleep(0.01)
    return "held"


@runner.task
async def wedge() -> str:
    (here / "started").touch()
    while not (here / "gate").exists():
        time.sleep(0.01)
    return "held"


@runner.on_startup
def note_server() -> None:
    (here / f"server-{os.getpid()}").write_text(os.environ.get("TASKRUNNER_EMBEDDED_URL", ""))


not_a_runner = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application ``app.py``, whose runner is ``app:runner``. A task that holds goes on when there is
    a file ``gate``."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def command(folder: Path, url: str, namespace: str) -> Iterator[Callable[..., Command]]:
    """Starts commands in the folder, on the test's server and namespace, and makes sure that none outlives the test."""
    commands: list[Command] = []

    def start(*arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> Command:
        environment = {"URL": url, "NAMESPACE": namespace} | environment
        commands.append(Command(folder, *arguments, stdin=stdin, **environment))
        return commands[-1]

    yield start
    (folder / "gate").touch()
    for one in commands:
        one.close()


@pytest.fixture
def ask(command: Callable[..., Command], url: str, namespace: str) -> Ask:
    """Runs a command to its end on the test's server and namespace, by --url, and looks at its exit code."""

    async def run(*arguments: str, code: int = 0, **environment: str) -> Command:
        asked = command(*arguments, "--url", url, "--namespace", namespace, **environment)
        assert await asked.ended() == code, (asked.out, asked.err)
        if code == 0:
            assert asked.err == []
        else:
            assert all(line.startswith("taskrunner: ") for line in asked.err)
        return asked

    return run


@pytest.fixture
async def answer(command: Callable[..., Command], url: str, namespace: str) -> AsyncIterator[Ask]:
    """The same on a terminal, where somebody types the first argument when asked."""
    descriptors: list[int] = []

    async def run(typed: str, *arguments: str, code: int = 0) -> Command:
        keyboard, terminal = pty.openpty()
        descriptors.extend((keyboard, terminal))
        os.write(keyboard, typed.encode() + b"\n")
        asked = command(*arguments, "--url", url, "--namespace", namespace, stdin=terminal)
        assert await asked.ended() == code, (asked.out, asked.err)
        return asked

    yield run
    for one in descriptors:
        os.close(one)


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    return Keyspace("taskrunner", namespace, 1).partitions[0]


@pytest.fixture
def declared(runner: TaskRunner) -> TaskRunner:
    """A runner that knows the application's tasks by name."""
    for name in ("whoami", "hold", "hold_thread", "wedge"):
        runner.declare(name)
    return runner

"""Asking a server once, and ending with an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NoReturn

import typer

from ..errors import RedisConfigurationError, TaskRunnerError, UsageError
from ..runner import TaskRunner
from .choice import FAILURE, USAGE, say
from .printable import printable

Question = Callable[[TaskRunner], Awaitable[int]]
"""What a command does with a runner that is connected. Returns the exit code."""


def ask(runner: TaskRunner, question: Question) -> NoReturn:
    """Connects and asks, and ends the command. What taskrunner raises is one line on standard error."""
    try:
        code = asyncio.run(_asked(runner, question))
    except TaskRunnerError as error:
        say(str(error))
        code = USAGE if isinstance(error, (RedisConfigurationError, UsageError)) else FAILURE
    raise typer.Exit(code)


async def _asked(runner: TaskRunner, question: Question) -> int:
    async with runner:
        await runner.session().store.open()  # not runner.opened(): that waits half a minute for a server to come back
        return await question(runner)


def tell(text: str) -> None:
    """One line on standard output."""
    print(printable(text))


def server_time(runner: TaskRunner) -> datetime:
    """The server's clock: this machine's may be wrong."""
    return datetime.fromtimestamp(runner.session().store.clock.now() / 1000, UTC)

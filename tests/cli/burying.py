"""Dead letters for tests of the command line, with what must not be taken for markup or for orders to a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskrunner import TaskRunner

MakeRunner = Callable[..., TaskRunner]
HOSTILE = "[bold]not[/bold] [/red] \x1b[31mred\x1b]0;title\x07"
"""Rich's markup, one tag of which is closed and never opened; a colour; a new title for the window."""
WRITTEN_OUT = "[bold]not[/bold] [/red] \\x1b[31mred\\x1b]0;title\\x07"


async def bury(make_runner: MakeRunner, number: int = 1, task: str = "charge", **options: Any) -> list[str]:
    """Runs jobs that fail for good, one after the other. Their ids, the last one being the newest dead letter."""
    runner = make_runner()

    async def fail(order: int, note: str = HOSTILE) -> None:
        raise ValueError(f"order {order} {HOSTILE}")

    failing = runner.register(fail, task, {"max_retry": 0} | options)
    ids: list[str] = []
    async with runner.start():
        for order in range(number):
            job = await failing.dispatch(order, note=HOSTILE)
            await job.wait(timeout=20)
            ids.append(job.id)
    return ids

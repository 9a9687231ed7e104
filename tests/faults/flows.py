"""Tasks that workflows of the fault tests are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskrunner import JobContext, TaskRunner


class Flows:
    """Registers these tasks with a runner. ``write`` is the journal's."""

    def __init__(self, runner: TaskRunner, write: Callable[[str, JobContext], None]) -> None:
        @runner.task
        async def step(ctx: JobContext) -> int:
            """One more than the step before it."""
            write("start", ctx)
            write("end", ctx)
            return (ctx.previous or 0) + 1

        @runner.task
        async def last(ctx: JobContext, note: str = "") -> Any:
            """What follows others: gives what they came to."""
            write("last", ctx)
            return ctx.previous

        @runner.task(max_retry=0)
        async def refuse(ctx: JobContext) -> None:
            write("start", ctx)
            raise ValueError("no")

        self.step, self.last, self.refuse = step, last, refuse

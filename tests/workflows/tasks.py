"""Tasks that the tests of workflows are made of."""

from __future__ import annotations

import asyncio
from typing import Any

from taskrunner import JobContext, TaskRunner


class Tasks:
    """Registered with a runner. ``started`` are the arguments of those that hold, ``calls`` what ran, in order; ``go``
    lets those go on that hold."""

    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner
        self.calls: list[Any] = []
        self.started: list[Any] = []
        self.go = asyncio.Event()
        self.give = runner.task(name="give")(self._give)
        self.show = runner.task(name="show")(self._show)
        self.add_up = runner.task(name="add_up")(self._add_up)
        self.nothing = runner.task(name="nothing")(self._nothing)
        self.fail = runner.task(name="fail", max_retry=0)(self._fail)
        self.hold = runner.task(name="hold")(self._hold)

    async def _give(self, value: Any) -> Any:
        self.calls.append(value)
        return value

    async def _show(self, context: JobContext) -> Any:
        self.calls.append("show")
        return context.previous

    async def _add_up(self, context: JobContext, further: int = 0) -> int:
        previous = context.previous
        return further + (sum(previous) if isinstance(previous, list) else previous or 0)

    async def _nothing(self) -> None:
        self.calls.append("nothing")

    async def _fail(self, text: str = "no") -> None:
        self.calls.append("fail")
        raise ValueError(text)

    async def _hold(self, value: Any = None) -> Any:
        self.started.append(value)
        await self.go.wait()
        return value

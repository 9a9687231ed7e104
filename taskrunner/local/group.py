"""Group: the tasks of one ``submit_group``, of which the first that fails ends all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .lifecycle import Observer
from .state import TaskState


class Group:
    """Watches over the tasks in progress, and passes on to the pool what it is told of them.

    ``failure``: the error of the first that failed. ``feed`` is given what submits the members, which ends when one
    fails: before the pool has its worker back, so that no other member gets it.
    """

    def __init__(self, pool: Observer) -> None:
        self.failure: BaseException | None = None
        self._pool = pool
        self._running: dict[Any, None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._feeder: asyncio.Task[None] | None = None

    def feed(self, submitting: Coroutine[Any, Any, None]) -> None:
        self._feeder = asyncio.create_task(submitting)

    def changed(self, task: Any, old: TaskState) -> None:
        if task.is_in_progress:
            self._running[task] = None
            self._idle.clear()
        else:
            del self._running[task]
            if task.is_failed and self.failure is None:
                self.failure = _error_of(task)
                self.cancel()
            if not self._running:
                self._idle.set()
        self._pool.changed(task, old)

    def reported(self, task: Any, value: object) -> None:
        self._pool.reported(task, value)

    def cancel(self) -> None:
        """Submits no more, and cancels those that run."""
        if self._feeder is not None:
            self._feeder.cancel()
        for task in [*self._running]:
            task.cancel()

    async def end(self) -> BaseException | None:
        """When all have ended: the first failure, or what kept a member from being submitted. As a value: a SystemExit
        that leaves a task of asyncio's stops the event loop."""
        assert self._feeder is not None
        await asyncio.wait([self._feeder])
        trouble = None if self._feeder.cancelled() else self._feeder.exception()
        if trouble is not None:
            self.cancel()
        await self._idle.wait()
        return self.failure or trouble


def _error_of(task: Any) -> BaseException:
    try:
        task.result()
    except BaseException as error:
        return error
    raise AssertionError("a task that failed has an error")

"""Ledger: what a worker pool knows of its tasks: how many are in which state, which are in progress, which it keeps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .hooks import NO_HOOKS, StateHooks, tell
from .lifecycle import CREATED, FAILED, PENDING, STARTED, tell_state
from .semaphore import Semaphore
from .state import TaskState
from .task import LocalTask
from .waiters import Waiters


class Ledger:
    """An observer that counts, gives the worker of each task back when it has ended, and tells the pool's hooks.

    ``keep``: how many tasks that have ended are kept; None: all. A task that waits for a worker counts as created,
    whatever it has been through before; it is taken into the counts by ``enter``, and out of them by ``leave`` or when
    it starts. So the counts agree with each other whenever anybody looks.
    """

    def __init__(self, workers: Semaphore, hooks: StateHooks | None, keep: int | None) -> None:
        self.counts = [0] * len(TaskState)
        self.running: dict[LocalTask[Any], None] = {}
        self.kept = OrderedDict[LocalTask[Any], None]()
        self._workers = workers
        self._hooks = NO_HOOKS if hooks is None else hooks
        self._keep = keep
        self._waiters = Waiters[None]()

    def enter(self, task: LocalTask[Any]) -> None:
        """It waits for a worker from now on."""
        self.counts[CREATED] += 1
        if self._hooks.when_created is not None:
            tell(self._hooks.when_created, task.id)

    def leave(self) -> None:
        """One that has waited waits no longer, and has not started."""
        self.counts[CREATED] -= 1
        self._look()

    def changed(self, task: Any, old: TaskState) -> None:
        state, counts = task.state, self.counts
        if old is PENDING or old is STARTED:
            counts[old] -= 1
        else:
            counts[CREATED] -= 1
            self.running[task] = None
            self.kept.pop(task, None)
        counts[state] += 1
        if state > STARTED:
            del self.running[task]
            if self._keep != 0:
                self._keep_this(task)
            self._workers.release()
            self._look()
        if self._hooks is not NO_HOOKS:
            known = state is FAILED and self._hooks.when_failed is not None
            tell_state(self._hooks, task, state, task.error if known else None)

    def reported(self, task: Any, value: object) -> None:
        tell(self._hooks.when_reported, task.id, value)

    def _keep_this(self, task: LocalTask[Any]) -> None:
        self.kept[task] = None
        if self._keep is not None and len(self.kept) > self._keep:
            self.kept.popitem(last=False)

    # -- until there is nothing more to do -------------------------------------------------------------------

    @property
    def left(self) -> int:
        """How many tasks wait for a worker or are in progress."""
        return self.counts[CREATED] + len(self.running)

    async def idle(self) -> None:
        """Returns when none is left."""
        if self.left:
            await self._waiters.wait()

    def _look(self) -> None:
        if self._waiters and not self.left:
            self._waiters.tell(None)

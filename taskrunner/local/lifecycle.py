"""Lifecycle: the state that a local task is in, who is told when it changes, and who waits for the end."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from ..errors import TaskTimeout, UsageError
from ..options import Seconds, seconds_or_none
from .hooks import NO_HOOKS, StateHooks, tell
from .state import TaskState
from .waiters import Waiters

log = logging.getLogger("taskrunner.local")

R = TypeVar("R")

# Names of this module: a member of an enum takes longer to look up, and each task does so a dozen times.
CREATED, PENDING, STARTED = TaskState.CREATED, TaskState.PENDING, TaskState.STARTED
DONE, FAILED, CANCELED = TaskState.DONE, TaskState.FAILED, TaskState.CANCELED

_numbers = itertools.count(1)


class Observer(Protocol):
    """Who is told of a task before its hooks are: a pool. Must not raise."""

    def changed(self, task: Lifecycle[Any], old: TaskState) -> None:
        """The task was in the state ``old``, and is in another one now."""

    def reported(self, task: Lifecycle[Any], value: object) -> None:
        """Its function has reported something."""


class Unseen:
    """An error that nobody has looked at yet. If nobody ever does, it is logged."""

    __slots__ = ("_error", "_id", "_loop")

    def __init__(self, id: str, error: BaseException, loop: asyncio.AbstractEventLoop) -> None:
        self._id = id
        self._error: BaseException | None = error
        self._loop = loop

    def look(self) -> None:
        self._error = None

    def __del__(self) -> None:
        if self._error is None:
            return
        complain = partial(log.error, UNSEEN, self._id, exc_info=self._error)
        try:
            # Not here: a collector of garbage may be at work in the middle of anything.
            self._loop.call_soon_threadsafe(complain)
        except RuntimeError:  # it is closed
            complain()


UNSEEN = "local task %r failed, and nobody has asked for its error"


class Ending(NamedTuple, Generic[R]):
    """What those get who wait for a run, whatever becomes of the task afterwards: its value, or an error."""

    value: R | None = None
    error: BaseException | None = None
    trace: TracebackType | None = None
    unseen: Unseen | None = None

    def look(self) -> None:
        """Somebody knows of the error."""
        if self.unseen is not None:
            self.unseen.look()

    def result(self) -> R:
        if self.error is None:
            return cast(R, self.value)
        self.look()
        raise self.error.with_traceback(self.trace)  # else each raise would make its traceback longer


class Lifecycle(Generic[R]):
    """The part of a local task that can be seen from outside: its id, state, attempts, error and result.

    Only ``_move`` and ``_end`` change the state. First the observer is told, then the hooks; they may start the task
    again, so ``_end`` has in hand what belongs to the run that ended, and touches nothing after the hooks.
    """

    __slots__ = (
        *("__weakref__", "_attempts", "_ending", "_error", "_hooks", "_id", "_loop"),
        *("_observer", "_starters", "_state", "_waiters", "_work"),
    )

    def __init__(self, id: str | None, hooks: StateHooks | None) -> None:
        self._id = id
        self._hooks = NO_HOOKS if hooks is None else hooks
        self._state = CREATED
        self._attempts = 0
        self._error: BaseException | None = None
        self._ending: Ending[R] | None = None
        self._observer: Observer | None = None
        self._waiters: Waiters[Ending[R]] | None = None
        self._starters: Waiters[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        if hooks is not None and hooks.when_created is not None:
            tell(hooks.when_created, self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._state.name}>"

    @property
    def id(self) -> str:
        """The one that was given to it, or ``task-N``."""
        if self._id is None:
            self._id = f"task-{next(_numbers)}"
        return self._id

    @property
    def state(self) -> TaskState:
        """What it is doing now."""
        return self._state

    @property
    def attempts(self) -> int:
        """How often its function was called since it was started."""
        return self._attempts

    @property
    def error(self) -> BaseException | None:
        """What the last attempt ended with: the function's own error, TaskTimeout or TaskCancelled. None: nothing has
        gone wrong, or it was started again."""
        if self._ending is not None:
            self._ending.look()
        return self._error

    @property
    def is_created(self) -> bool:
        """It was never started."""
        return self._state is CREATED

    @property
    def is_pending(self) -> bool:
        """It waits for its delay or its next attempt."""
        return self._state is PENDING

    @property
    def is_started(self) -> bool:
        """Its function runs."""
        return self._state is STARTED

    @property
    def is_done(self) -> bool:
        """Its function has returned."""
        return self._state is DONE

    @property
    def is_failed(self) -> bool:
        """It failed, and there is no further attempt."""
        return self._state is FAILED

    @property
    def is_cancelled(self) -> bool:
        """It was cancelled and has ended."""
        return self._state is CANCELED

    @property
    def is_in_progress(self) -> bool:
        """It was started and has not ended: it is pending or started."""
        return self._state is STARTED or self._state is PENDING

    @property
    def is_ended(self) -> bool:
        """It is done, failed or cancelled."""
        return self._state > STARTED

    @property
    def runs_here(self) -> bool:
        """The caller is what it runs: its own function, not a task of asyncio's that this has begun."""
        return self._work is not None and self._work is asyncio.current_task()

    # -- waiting ---------------------------------------------------------------------------------------------

    def result(self) -> R:
        """What the function returned, or its error, raised. Raises

        - what the function raised, or TaskTimeout;
        - RetriesExceeded, whose cause is one of these, when the retries were used up as well;
        - TaskCancelled when it was cancelled;
        - UsageError when it has not ended, or was never started.
        """
        if self._ending is None:
            todo = "await it" if self.is_in_progress else "start() it first, or submit it to a pool"
            raise UsageError(f"local task {self.id!r} has no result: it is {self._state}; {todo}")
        return self._ending.result()

    def __await__(self) -> Generator[Any, Any, R]:
        """Its result, when the run has ended; raises what ``result`` does. Any number may wait, and those of them who
        are cancelled only stop waiting."""
        if self.is_in_progress:
            return (yield from self._ended().__await__()).result()
        return self.result()

    async def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until the run has ended, in whatever way; returns at once when it was not started.

        Raises TaskTimeout when it has not ended after ``timeout`` seconds; it goes on.
        """
        patience = seconds_or_none(timeout, "timeout")
        if not self.is_in_progress:
            return
        try:
            async with asyncio.timeout(patience):
                await self._ended()
        except TimeoutError:
            if self.is_in_progress:
                raise TaskTimeout(f"local task {self.id!r} has not ended within {patience:g} s; it goes on") from None

    async def _ended(self) -> Ending[R]:
        self._refuse_strangers()
        self._waiters = self._waiters or Waiters()
        return await self._waiters.wait()

    async def begun(self) -> None:
        """Returns when it is not pending any more: its function runs, or it has ended before."""
        if self._state is PENDING:
            self._refuse_strangers()
            self._starters = self._starters or Waiters()
            await self._starters.wait()

    def _refuse_strangers(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(f"local task {self.id!r} runs in another event loop; only code in that can wait for it")
        if self.runs_here:
            raise UsageError(f"local task {self.id!r} would wait for itself")

    # -- changes ---------------------------------------------------------------------------------------------

    def _move(self, state: TaskState) -> None:
        """To PENDING or STARTED."""
        old, self._state = self._state, state
        if self._observer is not None:
            self._observer.changed(self, old)
        self._tell_starters()
        if self._hooks is not NO_HOOKS:
            tell_state(self._hooks, self, state)

    def _end(self, state: TaskState, ending: Ending[R], error: BaseException | None = None) -> None:
        """To DONE, FAILED or CANCELED. ``error``: that of the last attempt."""
        observer, waiters, hooks = self._observer, self._waiters, self._hooks
        old, self._state = self._state, state
        self._ending, self._error = ending, error
        self._observer = self._waiters = self._work = None
        if observer is not None:
            observer.changed(self, old)
        if waiters is not None:
            waiters.tell(ending)
        self._tell_starters()
        if hooks is not NO_HOOKS:
            if hooks.when_failed is not None:
                ending.look()
            tell_state(hooks, self, state, error)

    def _tell_starters(self) -> None:
        starters, self._starters = self._starters, None
        if starters is not None:
            starters.tell(None)


def tell_state(hooks: StateHooks, task: Lifecycle[Any], state: TaskState, error: BaseException | None = None) -> None:
    """Calls the hook of a state that the task has got into; ``error`` is for FAILED."""
    hook = hooks.of(state)
    if hook is None:
        return
    if state is PENDING:
        tell(hook, task.id, task.attempts)
    elif state is FAILED:
        tell(hook, task.id, error)
    else:
        tell(hook, task.id)

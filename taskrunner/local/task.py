"""LocalTask: a function that runs in the background of this process, with a delay, a time limit and retries."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from enum import Enum
from typing import Any, Generic, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from ..backoff import Backoff, BackoffFunction
from ..errors import RetriesExceeded, TaskCancelled, TaskInProgress, TaskOptionError, TaskTimeout, UsageError
from ..options import Seconds, seconds, whole
from .calling import call
from .deadlines import deadlines
from .hooks import StateHooks, tell
from .lifecycle import CANCELED, DONE, FAILED, PENDING, STARTED, Ending, Lifecycle, Observer, R, Unseen

log = logging.getLogger("taskrunner.local")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_DURATION = 30.0
"""Seconds that an attempt may take, unless it is told otherwise."""
BACKOFF = Backoff.exponential(base=0.1, cap=30)
"""What lies between two attempts, unless it is told otherwise: 0.1, 0.2, 0.4 … 30 s."""


class LocalKeywords(TypedDict, total=False):
    """The options of a local task; for type checkers."""

    id: str | None
    hooks: StateHooks | None
    delay: Seconds
    max_duration: Seconds | None
    max_retries: int
    backoff: Backoff | BackoffFunction


class Cut(Enum):
    """Why a run was told to end before it was through."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"


CANCEL, TIMEOUT = Cut.CANCEL, Cut.TIMEOUT

current: ContextVar[LocalTask[Any]] = ContextVar("taskrunner.local.current")
"""The local task that the code runs in, or in whose context it was begun."""


def current_task() -> LocalTask[Any]:
    """The local task whose function calls this, also from a thread. Raises UsageError outside of one."""
    try:
        return current.get()
    except LookupError:
        raise UsageError("current_task() was called outside a local task") from None


class LocalTask(Lifecycle[R]):
    """A function and its arguments, to be run in the background of this process.

        task = LocalTask(fetch, url, max_retries=3)
        task.start()
        page = await task

    A coroutine function runs in the event loop, any other function in a thread. Arguments by keyword go into a
    ``functools.partial``. Nothing outlives the process: what must not be lost is a job for a ``TaskRunner``.

    ``id``: its name in hooks and messages; None: ``task-N``. ``hooks``: who is told of each change. ``delay``: seconds
    before the first attempt. ``max_duration``: seconds that each attempt may take; 0 is the default, 30 s, and None no
    limit. ``max_retries``: how often it is tried again after the first attempt has failed, whatever the error; between
    two attempts lie the seconds that ``backoff`` gives, by default 0.1, 0.2, 0.4 … 30.

    When its time is over, or it is cancelled, the function is: it gets one ``asyncio.CancelledError``, and the task has
    ended when the function has, with a timeout or a cancellation, whatever the function makes of it. A thread can't be
    cancelled: a function in one looks at ``current_task().cancelling``, and the task has ended when it returns.

    A task may be started again when it has ended. An error that nobody ever asks for, by awaiting the task, reading
    ``error`` or in a hook, is logged. Raises TaskOptionError for an option that can't be.
    """

    __slots__ = ("_args", "_backoff", "_cut", "_delay", "_function", "_max_duration", "_max_retries")

    @overload
    def __init__(
        self: LocalTask[T],
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        **options: Unpack[LocalKeywords],
    ) -> None: ...

    @overload
    def __init__(self: LocalTask[T], fn: Callable[[*Ts], T], *args: *Ts, **options: Unpack[LocalKeywords]) -> None: ...

    def __init__(
        self,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        id: str | None = None,
        hooks: StateHooks | None = None,
        delay: Seconds = 0,
        max_duration: Seconds | None = MAX_DURATION,
        max_retries: int = 0,
        backoff: Backoff | BackoffFunction = BACKOFF,
        **unknown: object,
    ) -> None:
        if unknown:
            names = ", ".join(unknown)
            raise TaskOptionError(f"no option of local tasks: {names}; keywords of a function need a functools.partial")
        if not callable(fn):
            raise TaskOptionError(f"not a function: {fn!r}; give the function and its arguments: LocalTask(fetch, url)")
        if id is not None and not isinstance(id, str):
            raise TaskOptionError(f"id must be a string, not {id!r}")
        if hooks is not None and not isinstance(hooks, StateHooks):
            raise TaskOptionError(f"hooks must be StateHooks, not {hooks!r}")
        if not callable(backoff):
            raise TaskOptionError(f"backoff must be a Backoff or a function of the attempt, not {backoff!r}")
        self._function: Callable[..., Any] = fn
        self._args = args
        self._delay = 0.0 if delay == 0 else seconds(delay, "delay")
        self._max_duration: float | None = MAX_DURATION
        if max_duration is None:
            self._max_duration = None
        elif max_duration is not MAX_DURATION:
            self._max_duration = seconds(max_duration, "max_duration") or MAX_DURATION
        self._max_retries = 0 if max_retries == 0 else whole(max_retries, "max_retries", 0)
        self._backoff = backoff
        self._cut: Cut | None = None
        super().__init__(id, hooks)

    # -- what is done with it --------------------------------------------------------------------------------

    def start(self) -> Starting[R]:
        """Begins to run it in the background. To wait until its function runs, await what it returns, the task::

            task = await LocalTask(fetch, url, delay=5).start()

        Who is cancelled while it waits for that cancels the task, and its function is never called. Raises
        TaskInProgress while it runs, and UsageError outside of a running event loop.
        """
        self.launch(None)
        return Starting(self)

    def refuse_if_in_progress(self) -> None:
        """Raises TaskInProgress."""
        if self.is_in_progress:
            raise TaskInProgress(f"local task {self.id!r} is {self._state}; it can be started again when it has ended")

    def launch(self, observer: Observer | None) -> None:
        """``start``, for pools."""
        self.refuse_if_in_progress()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(f"local task {self.id!r} can be started only where an event loop runs") from None
        self._observer = observer
        self._cut = self._error = self._ending = None
        self._attempts = 0
        self._move(PENDING)
        run = self._run()
        # Up to where it waits for its first step: a coroutine that was not begun can't see that it is cancelled, and
        # when an event loop ends, it cancels what it has not begun too.
        run.send(None)
        try:
            work = self._loop.create_task(run)
        except BaseException:
            run.close()  # so that it ends as cancelled
            raise
        if self._work is None and self._ending is None:  # else it has begun at once, as asyncio's eager tasks do
            self._work = work
            if self.cancelling:  # by a hook
                work.cancel()

    def cancel(self) -> bool:
        """Cancels the run. True: it will end as cancelled, or ends as such already; False: it is not in progress.

        May be called any number of times, in hooks, and in the task's own function. In a thread it is passed on to the
        event loop, where the run may have ended by then. The function gets one cancellation, so that it can clean up
        in peace.
        """
        if not self.is_in_progress:
            return False
        if not self._passed_on(self._cancel, self._work):
            self._cancel(self._work)
        return True

    def _cancel(self, work: asyncio.Task[None] | None) -> None:
        if work is self._work and self.is_in_progress:
            cut, self._cut = self._cut, CANCEL
            if cut is None and work is not None:
                work.cancel()

    @property
    def cancelling(self) -> bool:
        """The run was told to end: its time is over or it was cancelled. For functions in threads, to look at."""
        return self._cut is not None

    def report(self, value: object = None) -> None:
        """Tells the ``when_reported`` hooks; for the task's own function: ``current_task().report("half of it")``.

        Raises UsageError when the task is not in progress.
        """
        if not self.is_in_progress:
            raise UsageError(f"local task {self.id!r} is {self._state}: only its function can report")
        if not self._passed_on(self.report, value):
            if self._observer is not None:
                self._observer.reported(self, value)
            tell(self._hooks.when_reported, self.id, value)

    def _passed_on(self, method: Callable[..., object], *args: object) -> bool:
        """In another thread than the event loop's: the loop will call the method, in its own time."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is None or self._loop is here:
            return False
        self._loop.call_soon_threadsafe(method, *args)
        return True

    # -- running ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """All attempts. Whatever happens, it does not raise, and the task has ended at the end of it."""
        error: BaseException | None = None
        try:
            await _first_step()
            if self._work is None:
                self._work = asyncio.current_task()
            current.set(self)
            if self._delay:
                await asyncio.sleep(self._delay)
            while not self._is_cut():
                self._attempts += 1
                self._move(STARTED)
                if self._is_cut():  # a hook did it
                    break
                value, error = await self._attempt()
                if self._is_cut() or self._is_cancelled(error):
                    break
                if error is None:
                    return self._end(DONE, Ending(value))
                wait = self._wait_after(error)
                if wait is None:
                    return self._fail(error)
                self._error = error
                self._move(PENDING)
                await asyncio.sleep(wait)
        except (asyncio.CancelledError, GeneratorExit) as cancelled:
            error = error or cancelled
        self._cut = CANCEL
        cancellation = TaskCancelled(f"local task {self.id!r} was cancelled")
        cancellation.__cause__ = error
        self._end(CANCELED, Ending(error=cancellation), cancellation)

    async def _attempt(self) -> tuple[Any, BaseException | None]:
        """Calls the function, waits until it has ended, and gives what it returned or raised. Does not raise."""
        assert self._loop is not None
        limits = None if self._max_duration is None else deadlines(self._loop, self._max_duration)
        if limits is not None:
            limits.add(self._expire)
        value, error = await call(self._function, self._args)
        if limits is not None:
            limits.drop(self._expire)
        if self._cut is TIMEOUT and not self._is_closed(error):
            return None, self._timed_out(error)
        return value, error

    def _is_cut(self) -> bool:
        return self._cut is not None

    def _expire(self) -> None:
        if self._cut is None and self._work is not None:
            self._cut = TIMEOUT
            self._work.cancel()

    def _timed_out(self, error: BaseException | None) -> TaskTimeout:
        """Takes the cancellation back that the timeout was, so that another attempt starts without it."""
        assert self._work is not None
        self._cut = None
        self._work.uncancel()
        timeout = TaskTimeout(f"local task {self.id!r} took longer than {self._max_duration:g} s, its max_duration")
        timeout.__cause__ = error
        return timeout

    def _is_cancelled(self, error: BaseException | None) -> bool:
        """It is a cancellation, or came of one by somebody who has not called ``cancel``: an event loop that ends does
        so, and must not meet a retry."""
        if error is None:
            return False
        if isinstance(error, asyncio.CancelledError | TaskCancelled) or self._is_closed(error):
            return True
        return self._work is not None and self._work.cancelling() > 0

    def _is_closed(self, error: BaseException | None) -> bool:
        """Its coroutine is being closed, because its event loop has ended: nothing can be awaited any more."""
        if not isinstance(error, GeneratorExit):
            return False
        try:
            return not self.runs_here
        except RuntimeError:  # no event loop
            return True

    def _wait_after(self, error: BaseException) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if self._attempts > self._max_retries:
            return None
        try:
            return seconds(self._backoff(self._attempts), "backoff")
        except BaseException:
            log.exception("local task %r is not tried again: its backoff can't be used", self.id)
            return None

    def _fail(self, error: BaseException) -> None:
        raised = error
        if self._max_retries and self._attempts > self._max_retries:
            raised = RetriesExceeded(
                f"local task {self.id!r} failed {self._attempts} times; {_shown(error)}", self._attempts
            )
            raised.__cause__ = error
        assert self._loop is not None
        self._end(FAILED, Ending(None, raised, raised.__traceback__, Unseen(self.id, raised, self._loop)), error)


class Starting(Generic[R]):
    """What ``start`` returns: to await it gives the task, when its function runs or it has ended before."""

    __slots__ = ("_task",)

    def __init__(self, task: LocalTask[R]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, Any, LocalTask[R]]:
        return self._begun().__await__()

    async def _begun(self) -> LocalTask[R]:
        try:
            await self._task.begun()
        except asyncio.CancelledError:
            if self._task.is_pending:
                self._task.cancel()
            raise
        return self._task


@types.coroutine
def _first_step() -> Generator[None, None, None]:
    yield


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__  # its text can't be shown

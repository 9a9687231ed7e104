"""WorkerPool: runs local tasks, so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

from ..errors import PoolStopped, TaskInProgress, TaskOptionError, TaskTimeout, UsageError
from ..options import Seconds, seconds_or_none, whole
from ..shield import to_the_end
from .group import Group
from .hooks import StateHooks
from .ledger import Ledger
from .lifecycle import Observer
from .semaphore import Semaphore
from .stats import PoolStats
from .task import LocalKeywords, LocalTask, current

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class WorkerPool:
    """Runs local tasks in this process, at most ``max_workers`` at once.

        async with WorkerPool(10) as pool:
            tasks = [await pool.submit(fetch, url, max_retries=2) for url in urls]
        print(pool.stats().failed, await tasks[0])

    A block ends when all tasks have, those too that they submit meanwhile; when it is left by an error or is cancelled,
    its tasks are cancelled first. A task that fails is no error of the pool's: it is told by the task, by ``stats`` and
    by hooks. See ``submit_group``.

    ``max_workers``: below 1 it is 1. ``hooks``: told of each task that is submitted, before its own hooks are;
    ``when_created`` says that it was handed in. ``keep``: how many tasks that have ended ``tasks`` still lists, the
    latest ones; True: all of them. By default a pool forgets a task when it has ended, so that any number can go
    through it. A pool belongs to one event loop at a time, and to its thread. Raises TaskOptionError for an option that
    can't be.
    """

    def __init__(self, max_workers: int, *, hooks: StateHooks | None = None, keep: bool | int = False) -> None:
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise TaskOptionError(f"max_workers must be a whole number, not {max_workers!r}")
        workers = whole(max(1, max_workers), "max_workers", 1)
        if not isinstance(keep, int) or keep < 0:
            raise TaskOptionError(f"keep must be True, False or a whole number of at least 0, not {keep!r}")
        if hooks is not None and not isinstance(hooks, StateHooks):
            raise TaskOptionError(f"hooks must be StateHooks, not {hooks!r}")
        self._workers = Semaphore(workers)
        self._ledger = Ledger(self._workers, hooks, None if keep is True else int(keep))
        self._stopped = False

    def __repr__(self) -> str:
        stopped = ", stopped" if self._stopped else ""
        return f"<WorkerPool {self.active_workers} of {self.max_workers} workers active{stopped}>"

    # -- submitting ------------------------------------------------------------------------------------------

    @overload
    async def submit(self, fn: LocalTask[R], /) -> LocalTask[R]: ...

    @overload
    async def submit(
        self, fn: Callable[[*Ts], Awaitable[R]], *args: *Ts, **options: Unpack[LocalKeywords]
    ) -> LocalTask[R]: ...

    @overload
    async def submit(self, fn: Callable[[*Ts], R], *args: *Ts, **options: Unpack[LocalKeywords]) -> LocalTask[R]: ...

    async def submit(
        self, fn: LocalTask[Any] | Callable[[*Ts], Any], *args: *Ts, **options: Unpack[LocalKeywords]
    ) -> LocalTask[Any]:
        """Starts a task as soon as a worker is free, first come first served, and returns it; see ``LocalTask``.

            task = await pool.submit(fetch, url, max_retries=2)
            page = await task

        ``fn`` may be a LocalTask that was made before, without further arguments. The worker is taken through the delay
        and the retries until the task has ended. Who is cancelled while it waits for a worker takes none. A task that
        submits to its own pool and waits can wait for ever when all workers do the same.

        Raises PoolStopped, also when the pool is stopped while the caller waits, TaskInProgress, TaskOptionError.
        """
        if isinstance(fn, LocalTask):
            if args or options:
                raise TaskOptionError("a LocalTask has its arguments and options already; submit it alone")
            task: LocalTask[Any] = fn
        else:
            task = LocalTask(fn, *args, **options)
        await self._submit(task, self._ledger)
        return task

    @overload
    async def submit_batch(self, tasks: Iterable[LocalTask[R] | Callable[[], Awaitable[R]]]) -> list[LocalTask[R]]: ...

    @overload
    async def submit_batch(self, tasks: Iterable[LocalTask[R] | Callable[[], R]]) -> list[LocalTask[R]]: ...

    @overload
    async def submit_batch(self, tasks: Iterable[LocalTask[Any] | Callable[[], object]]) -> list[LocalTask[Any]]: ...

    async def submit_batch(self, tasks: Iterable[Any]) -> list[LocalTask[Any]]:
        """Submits tasks, or functions without arguments, in their order, and returns the tasks when all have begun.

            tasks = await pool.submit_batch(LocalTask(fetch, url) for url in urls)

        What ``submit`` raises ends it; the tasks before that go on, and are the error's ``submitted``.
        """
        members = _tasks(tasks)
        for number, task in enumerate(members):
            try:
                await self._submit(task, self._ledger)
            except (PoolStopped, TaskInProgress) as error:
                error.submitted = tuple(members[:number])
                raise
        return members

    @overload
    async def submit_group(self, tasks: Iterable[LocalTask[R] | Callable[[], Awaitable[R]]]) -> list[LocalTask[R]]: ...

    @overload
    async def submit_group(self, tasks: Iterable[LocalTask[R] | Callable[[], R]]) -> list[LocalTask[R]]: ...

    @overload
    async def submit_group(self, tasks: Iterable[LocalTask[Any] | Callable[[], object]]) -> list[LocalTask[Any]]: ...

    async def submit_group(self, tasks: Iterable[Any]) -> list[LocalTask[Any]]:
        """Runs tasks, or functions without arguments, until all have ended, and returns the tasks in their order.

            tasks = await pool.submit_group(LocalTask(fetch, url) for url in urls)
            pages = [task.result() for task in tasks]

        The first that fails for good ends it: those that run are cancelled, those that wait for a worker never begin,
        and when all have ended its error is raised. So it is when the caller is cancelled, or the pool stopped while
        some wait. A task that is cancelled by itself is no error.
        """
        members = _tasks(tasks)
        group = Group(self._ledger)
        group.feed(self._submit_all(members, group))
        trouble = await to_the_end(asyncio.ensure_future(group.end()), group.cancel)
        if trouble is not None:
            raise trouble
        return members

    async def _submit_all(self, members: Iterable[LocalTask[Any]], observer: Observer) -> None:
        for task in members:
            await self._submit(task, observer)

    async def _submit(self, task: LocalTask[Any], observer: Observer) -> None:
        if self._stopped:
            raise PoolStopped(f"the pool is stopped and has not taken {task!r}; make another pool for it")
        task.refuse_if_in_progress()
        self._ledger.enter(task)
        taken = False
        try:
            taken = self._workers.try_acquire() or await self._workers.acquire()
            if self._stopped:
                raise PoolStopped(f"the pool was stopped while {task!r} waited for a worker; it was not started")
            task.refuse_if_in_progress()
        except BaseException:
            self._ledger.leave()
            if taken:
                self._workers.release()
            raise
        task.launch(observer)  # from here on the ledger sees to the worker

    # -- waiting and stopping --------------------------------------------------------------------------------

    async def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until everything that was submitted has ended; the pool goes on. Who waits for a worker counts too.

        Raises TaskTimeout when that takes longer than ``timeout`` seconds; the tasks go on. Raises UsageError when the
        function of one of its own tasks calls it: it would wait for itself.
        """
        patience = seconds_or_none(timeout, "timeout")
        task = self._own_task()
        if task is not None:
            raise UsageError(f"local task {task.id!r} would wait for itself: it is one of those of the pool")
        try:
            async with asyncio.timeout(patience):
                await self._ledger.idle()
        except TimeoutError:
            left = self._ledger.left
            if left:
                raise TaskTimeout(f"after {patience:g} s the pool has tasks that go on: {left}") from None

    async def stop(self, timeout: Seconds | None = None, cancel: bool = False) -> None:
        """Takes no more tasks, and waits until those in progress have ended; with ``cancel`` cancels them first.

        Everybody whose ``submit`` waits for a worker gets PoolStopped at once. May be called again: to wait once more,
        or with ``cancel`` after all. A task of the pool may stop it too, and does not wait then, as it would wait for
        itself. Raises TaskTimeout after ``timeout`` seconds; the pool is stopped all the same, and also when the caller
        is cancelled.
        """
        patience = seconds_or_none(timeout, "timeout")
        self._close(cancel)
        if self._own_task() is None:
            await self.wait(patience)

    def _close(self, cancel: bool) -> None:
        self._stopped = True
        self._workers.turn_away()
        if cancel:
            for task in [*self._ledger.running]:
                task.cancel()

    def _own_task(self) -> LocalTask[Any] | None:
        """The task of this pool whose function the caller is."""
        task = current.get(None)
        return task if task is not None and task.runs_here and task in self._ledger.running else None

    async def __aenter__(self) -> WorkerPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._close(cancel=True)
        await to_the_end(asyncio.ensure_future(self._finish()), partial(self._close, cancel=True))

    async def _finish(self) -> None:
        """Until nothing is left: those in progress may submit others, as they may in a TaskGroup."""
        await self._ledger.idle()
        await self.stop()

    # -- figures ---------------------------------------------------------------------------------------------

    @property
    def max_workers(self) -> int:
        """How many tasks run at once."""
        return self._workers.limit

    @property
    def active_workers(self) -> int:
        """How many workers have a task, which is pending or started."""
        return len(self._ledger.running)

    @property
    def available_workers(self) -> int:
        """How many workers have none."""
        return self.max_workers - self.active_workers

    @property
    def is_stopped(self) -> bool:
        """It takes no more tasks."""
        return self._stopped

    def tasks(self) -> list[LocalTask[Any]]:
        """The tasks in progress, behind those that have ended and that ``keep`` asked for; in their order."""
        return [*self._ledger.kept, *self._ledger.running]

    def stats(self) -> PoolStats:
        """How many tasks are in which state, now."""
        created, pending, started, done, failed, canceled = self._ledger.counts
        return PoolStats(
            total=sum(self._ledger.counts),
            created=created,
            pending=pending,
            started=started,
            done=done,
            failed=failed,
            canceled=canceled,
            max_workers=self.max_workers,
            active_workers=self.active_workers,
            stopped=self._stopped,
        )


def _tasks(given: Iterable[Any]) -> list[LocalTask[Any]]:
    return [one if isinstance(one, LocalTask) else LocalTask(one) for one in given]

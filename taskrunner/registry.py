"""Registry: the tasks of a runner, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from . import features
from .context import JobContext
from .errors import DuplicateTask, QueueConflict, TaskOptionError, UnknownTask
from .options import TaskKeywords
from .options import name as checked_name
from .session import Session
from .settings import Settings
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


class Registry:
    """What registers tasks and finds them again."""

    settings: Settings

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.concurrency: dict[str, int] = {}

    def session(self) -> Session:
        """What is open in the running loop."""
        raise NotImplementedError

    async def opened(self) -> Session:
        """The session, connected. Raises RedisError."""
        session = self.session()
        if not session.store.clock.known:
            await session.open()
        return session

    @overload
    def task(self, function: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, *, name: str | None = None, **options: Unpack[TaskKeywords]) -> TaskDecorator: ...

    def task(self, function: Any = None, *, name: str | None = None, **options: Any) -> Any:
        """Registers a function as a task; with or without options (see ``TaskKeywords``). Default name: the function's.

        Raises DuplicateTask for a name that is taken, TaskOptionError for an unknown option or a wrong value,
        QueueConflict for a ``concurrency`` other than the one that its queue has.
        """
        if function is not None and not callable(function):
            raise TaskOptionError(f"runner.task takes a function, not {function!r}; a name goes into name=")
        decorator = TaskDecorator(self, name, options)
        return decorator if function is None else decorator(function)

    def declare(self, name: str, **options: Unpack[TaskKeywords]) -> Task[..., Any]:
        """Declares a task that lives in another code base, so that it can be dispatched here by name."""
        return self.register(None, name, dict(options))

    def register(self, function: Callable[..., Any] | None, name: str, options: dict[str, Any]) -> Task[..., Any]:
        """What ``task`` and ``declare`` do."""
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise TaskOptionError(f"a task's name must be 1 to 200 printable characters, not {name!r}")
        if name in self.tasks:
            raise DuplicateTask(f"there is a task {name!r} already; give one of them another name=")
        queue = options.pop("queue", None)
        where = f"task {name!r}"
        queue = self.settings.queue if queue is None else checked_name(queue, f"{where}: queue")
        chosen = features.choose(features.DEFAULTS, options, where, dispatch=False)
        if function is not None:
            for feature in features.FEATURES:
                feature.on_register(where, function, chosen)
        task: Task[..., Any] = Task(
            self,
            function,
            name,
            queue,
            chosen,
            self.settings.serializer,
            self.settings.max_payload,
            self.settings.durability,
            self.settings.partitions,
        )
        self._agree(queue, chosen["concurrency"], where)
        self.tasks[name] = task
        return task

    def _agree(self, queue: str, concurrency: int | None, where: str) -> None:
        """How many jobs of a queue run at once in a process is one number: the first task that names it fixes it."""
        if concurrency is None:
            return
        fixed = self.concurrency.setdefault(queue, concurrency)
        if fixed != concurrency:
            raise QueueConflict(
                f"{where}: queue {queue!r} has concurrency={fixed} already, not {concurrency}; name the same number, "
                "leave it out to inherit that one, or give the task another queue"
            )

    def find(self, task: Task[..., Any] | str) -> Task[..., Any]:
        """The task of that name, or the task itself. Raises UnknownTask, which tells the nearest name."""
        if isinstance(task, Task):
            return task
        found = self.tasks.get(task)
        if found is None:
            near = difflib.get_close_matches(str(task), self.tasks, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownTask(f"no task {task!r} is registered or declared here{hint}")
        return found


class TaskDecorator:
    """What ``runner.task(...)`` with options returns: register the function that follows."""

    def __init__(self, registry: Registry, name: str | None, options: dict[str, Any]) -> None:
        self._registry = registry
        self._name = name
        self._options = options

    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        name = self._name or getattr(function, "__name__", None)
        if name is None:
            raise TaskOptionError(f"{function!r} has no name of its own; give the task one with name=")
        return self._registry.register(function, name, dict(self._options))

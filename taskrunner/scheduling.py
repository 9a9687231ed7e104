"""Scheduling: what a runner has for schedules: decorators for its own, methods for those that come and go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from datetime import datetime, tzinfo
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from .context import JobContext
from .envelope import TRACKED, Draft, Extra
from .errors import NotFound, PayloadError, ScheduleError, ScheduleExists
from .needs import with_lock
from .options import Seconds, TaskKeywords
from .payload import Signature
from .registry import Registry
from .schedule import CatchUp, Schedule, Timing, catch_up, text, timing
from .store.schedules import Definition
from .task import JobSpec, Task

P = ParamSpec("P")
R = TypeVar("R")


class Scheduling(Registry):
    """What schedules jobs. A schedule fires once per tick, whoever and how many consume; its jobs have the ids
    ``NAME@TICK`` with the tick in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: dict[str, tuple[Timing, CatchUp, JobSpec[Any]]] = {}

    # -- declared ----------------------------------------------------------------------------------------------------

    def cron(
        self,
        expr: str,
        *,
        tz: str | tzinfo | None = None,
        catch_up: CatchUp = "latest",
        name: str | None = None,
        **options: Unpack[TaskKeywords],
    ) -> ScheduleDecorator:
        """Registers a function as a task, and a schedule for it that fires by a cron text, without arguments.

        ``expr`` has five fields (minute, hour, day of month, month, day of week 0 to 6), or is ``@hourly``, ``@daily``,
        ``@weekly``, ``@monthly``, ``@yearly`` or ``@every 90s``; ``tz`` is the zone in which it is meant, UTC if none
        is given. ``name`` is that of the task and of the schedule; the other options are those of ``task``. Put above
        ``@runner.task`` it only adds the schedule. The schedule is put in place when a runner starts to consume, and
        stays in the server: see ``prune_schedules`` of ``start``. Raises ScheduleError, TaskOptionError.

            @runner.cron("30 9 * * mon-fri", tz="Europe/Berlin")
            async def report() -> None: ...
        """
        return ScheduleDecorator(self, timing(cron=expr, tz=tz), _policy(catch_up), name, dict(options))

    def every(
        self,
        seconds: Seconds,
        *,
        start: datetime | None = None,
        catch_up: CatchUp = "latest",
        name: str | None = None,
        **options: Unpack[TaskKeywords],
    ) -> ScheduleDecorator:
        """The same with an interval, in seconds (at least 0.01) or as a timedelta.

        The ticks lie on a grid that begins at ``start`` (an aware datetime), else one interval after the schedule was
        first put in place; how long a run takes moves none of them. Raises ScheduleError, TaskOptionError.

            @runner.every(3600)
            async def tidy_up() -> None: ...
        """
        return ScheduleDecorator(self, timing(every=seconds, start=start), _policy(catch_up), name, dict(options))

    def declare_schedule(
        self, function: Any, when: Timing, policy: CatchUp, name: str | None, options: dict[str, Any]
    ) -> Task[..., Any]:
        """What the decorators do with the function, or with the task, that follows."""
        task = function if isinstance(function, Task) else None
        if task is not None and options:
            raise ScheduleError(f"{task} is a task already; give {', '.join(options)} to its @runner.task")
        own = name or (task.name if task is not None else getattr(function, "__name__", None))
        schedule_name = text(own, "the name of a schedule")
        if schedule_name in self._declared:
            raise ScheduleError(f"there is a schedule {schedule_name!r} already; give one of them another name=")
        _takes_nothing(task.function if task is not None else function, schedule_name)
        if task is None:
            task = self.register(function, schedule_name, options)
        self._declared[schedule_name] = (when, policy, task.job())
        return task

    def definitions(self) -> list[Definition]:
        """The schedules that decorators have declared."""
        return [_define(name, spec, when, policy, True) for name, (when, policy, spec) in self._declared.items()]

    # -- made by hand ------------------------------------------------------------------------------------------------

    async def schedule(
        self,
        name: str,
        spec: JobSpec[Any],
        *,
        cron: str | None = None,
        every: Seconds | None = None,
        tz: str | tzinfo | None = None,
        start: datetime | None = None,
        catch_up: CatchUp = "latest",
        lock_key: str | None = None,
    ) -> Schedule:
        """Makes a schedule, or replaces the one of this name, and returns it as it stands in the server then.

        Give either ``cron`` (with ``tz``) or ``every``; see the decorators of these names. No tick comes before
        ``start``, an aware datetime. The options of the spec hold for each firing: ``delay`` and ``expires`` count from
        then. When the times are those that it has, the next tick stays. Missed ticks (nobody consumed, or more than
        5 s late): "latest" fires the last one, "skip" none, "all" every one. With a ``lock_key`` (a text, not a
        template) there is at most one schedule of this task and key; while one of another name has it, ScheduleExists
        is raised. It is also the lock key of the jobs, unless the spec has one of its own. A job that fails does not
        end its schedule. Raises ScheduleError for what can't be, and nothing is written then; RedisError.

            await runner.schedule("invoices-7", invoice.job(7), cron="@monthly", tz="Europe/Berlin")
        """
        if not isinstance(spec, JobSpec):
            raise ScheduleError(f"a schedule takes a job like task.job(7), not {spec!r}")
        when = timing(cron, every, tz, start)
        definition = _define(text(name, "the name of a schedule"), spec, when, _policy(catch_up), False)
        if lock_key is not None:
            key = text(lock_key, "lock_key")
            draft = _under(key, definition.draft, definition.name, self.settings.partitions)
            definition = dataclasses.replace(definition, lock_key=key, draft=draft)
        session = await self.opened()
        [put] = await session.store.schedules.put([definition], session.store.clock.now())
        if isinstance(put, str):
            task = definition.draft.envelope.task
            raise ScheduleExists(
                f"schedule {put!r} has the lock key {lock_key!r} of task {task!r}; unschedule it, or use its name"
            )
        return put.shown()

    async def schedules(self) -> list[Schedule]:
        """All schedules of the namespace, by name; whoever made them. Raises RedisError."""
        session = await self.opened()
        return [one.shown() for one in await session.store.schedules.all()]

    async def unschedule(self, name: str) -> bool:
        """Removes a schedule; jobs that it has fired go on. False when there is none of this name. One that a decorator
        declares comes back when a runner with that decorator starts. Raises RedisError."""
        session = await self.opened()
        [removed] = await session.store.schedules.remove(text(name, "the name of a schedule"))
        return removed

    async def delete_schedule(self, *, lock_key: str) -> int:
        """Removes the schedules that were made with this lock key, whatever their tasks, and returns how many there
        were; the key is free for others then. Jobs that they have fired go on. Raises ScheduleError for a key that can
        be none, RedisError.

            await runner.delete_schedule(lock_key="customer-7")
        """
        session = await self.opened()
        return await session.store.schedules.remove_locked(text(lock_key, "lock_key"))

    async def pause_schedule(self, name: str) -> None:
        """Pauses a schedule: it fires nothing until it is resumed, across restarts and new definitions.

        Raises NotFound, RedisError.
        """
        session = await self.opened()
        if not await session.store.schedules.pause(text(name, "the name of a schedule")):
            raise _unknown(name)

    async def resume_schedule(self, name: str) -> None:
        """Lets a paused schedule go on, with its next tick from now; those during the pause are not fired.

        Raises NotFound, RedisError.
        """
        session = await self.opened()
        if not await session.store.schedules.resume(text(name, "the name of a schedule"), session.store.clock.now()):
            raise _unknown(name)


class ScheduleDecorator:
    """What ``runner.cron(...)`` and ``runner.every(...)`` return: schedule the function, or the task, that follows."""

    def __init__(
        self, home: Scheduling, when: Timing, policy: CatchUp, name: str | None, options: dict[str, Any]
    ) -> None:
        self._home = home
        self._rest = (when, policy, name, options)

    @overload
    def __call__(self, function: Task[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        when, policy, name, options = self._rest
        return self._home.declare_schedule(function, when, policy, name, dict(options))


_policy = catch_up
"""Under another name, where an argument has that one."""


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no schedule {name!r}; `await runner.schedules()` lists them")


def _takes_nothing(function: Callable[..., Any] | None, name: str) -> None:
    """Raises ScheduleError unless a function can be called without arguments, its context apart."""
    if function is None:
        return  # it lives elsewhere
    if not callable(function):
        raise ScheduleError(f"a schedule decorates a function, not {function!r}")
    try:
        Signature(function, JobContext).check((), {}, name)
    except PayloadError as error:
        raise ScheduleError(
            f"{error}: a schedule calls it without arguments; give them defaults, or use "
            f"`await runner.schedule({name!r}, task.job(...))`"
        ) from None


def _under(key: str, draft: Draft, name: str, partitions: int) -> Draft:
    """The draft of a job that has this lock key, unless it has one already. Raises ScheduleError."""
    envelope = draft.envelope
    if Extra.LOCK in envelope.extras:
        return draft
    if partitions > 1 and draft.digest is not None:
        raise ScheduleError(
            f"schedule {name!r}: lock_key can't go together with partitions > 1 and a job that is unique, or has a "
            "limit or a rate: each has its key in one partition; leave one of them out, or use partitions=1"
        )
    needs = with_lock(envelope.extras.get(Extra.NEEDS, ""), key)
    extras = envelope.extras | {Extra.LOCK: key, Extra.NEEDS: needs}
    return dataclasses.replace(
        draft, envelope=dataclasses.replace(envelope, flags=envelope.flags | TRACKED, extras=extras)
    )


def _define(name: str, spec: JobSpec[Any], when: Timing, policy: CatchUp, declared: bool) -> Definition:
    """What the server keeps. Raises ScheduleError, PayloadError."""
    draft = spec.draft(spec.pack(0), 0)
    if draft.custom_id:
        raise ScheduleError(f"schedule {name!r}: each firing has an id of its own; leave out id=")
    if draft.due:
        raise ScheduleError(f"schedule {name!r}: at= is one instant; give the schedule start=, or the job delay=")
    # Made twice, at different instants: what differs counts from the firing.
    expires = draft.envelope.extras.get(Extra.EXPIRES)
    again = spec.draft(spec.pack(1000), 1000).envelope.extras.get(Extra.EXPIRES)
    counted = expires is not None and again != expires
    extras = {key: value for key, value in draft.envelope.extras.items() if not (counted and key == Extra.EXPIRES)}
    envelope = dataclasses.replace(draft.envelope, id="", enqueued_at=0, extras=extras)
    template = dataclasses.replace(draft, envelope=envelope)
    return Definition(name, when, policy, None, declared, template, expires if counted else None)

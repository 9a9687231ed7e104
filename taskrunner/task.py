"""Task: a registered function. Calling it runs it here; dispatching it runs it in a worker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack

from . import features
from .carriage import Request
from .context import JobContext, Reporter, Surroundings, current
from .durability import Durability
from .envelope import Delivery, Dispatchable, Draft, Extra
from .errors import PayloadError, TaskOptionError
from .feature import Call, Lapsed, PackingError, Recipe
from .features.pools import PROCESS
from .features.retries import policy
from .follow_ups import FollowUp, Prepare, prepared
from .hooks import JOB_KINDS, Hooks
from .job import Job, Origin
from .middleware import Around, compose
from .options import DispatchKeywords, Options
from .payload import JSON, Packer, Serializer, Signature, arguments, pack_value
from .plan import Plan
from .priority import queue_of
from .procedure import Procedure
from .processes import Processes
from .session import Session
from .threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")


class Home(Protocol):
    """What a task needs of its runner."""

    def session(self) -> Session: ...


class Valued(Generic[R]):
    """What comes to a value of type ``R``: a job, and what workflows are made of jobs (workflow.py)."""

    __slots__ = ()


class JobSpec(Valued[R]):
    """A job that is not dispatched yet: a task, its arguments and its options. Made by ``task.job(...)``."""

    __slots__ = ("args", "kwargs", "origin", "plan")

    def __init__(self, plan: Plan, origin: Origin, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.plan = plan
        self.origin = origin
        self.args = args
        self.kwargs = kwargs

    def pack(self, now: int) -> bytes | Draft:
        """As much of the job as can fail: its arguments as bytes, or all of it."""
        payload = self.plan.pack(self.args, self.kwargs)
        return payload if self.plan.plain else self.plan.draft(self.args, self.kwargs, now, payload)

    def draft(self, packed: bytes | Draft, now: int) -> Draft:
        """The rest of what ``pack`` began."""
        return packed if isinstance(packed, Draft) else self.plan.draft(self.args, self.kwargs, now, packed)

    def __repr__(self) -> str:
        return f"<JobSpec {self.plan.task} {self.args} {self.kwargs}>"


class Task(Generic[P, R]):
    """A task: ``await task.dispatch(...)``, ``task.job(...)``, ``task.with_options(...)``; ``name`` and ``queue``."""

    def __init__(
        self,
        home: Home,
        function: Callable[..., Any] | None,
        name: str,
        queue: str,
        options: Options,
        serializer: Serializer,
        max_payload: int,
        durability: Durability,
        partitions: int = 1,
    ) -> None:
        self.name = name
        self.queue = queue
        self.options = options
        self.function = function
        self._home = home
        self._serializer = serializer
        self._max_payload = max_payload
        self._durability = durability
        self._partitions = partitions
        self._signature = Signature(function, JobContext) if function is not None else None
        self._packer = Packer(name, self._signature, serializer, max_payload)
        self._plan, self._origin = self.plan({})
        if function is not None:
            functools.update_wrapper(self, function, updated=())

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function itself, here and now, as if it had not been decorated."""
        if self.function is None:
            raise TypeError(f"task {self.name!r} is only declared here, its function lives elsewhere; dispatch it")
        return self.function(*args, **kwargs)

    # -- dispatching -----------------------------------------------------------------------------------------

    def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Job[R]]:
        """Dispatches a job: ``job = await task.dispatch(...)``. One round trip, shared with concurrent dispatches.

        Raises PayloadError, QueueBusy (over its ``max_wait``), QueueFull, RedisConfigurationError, or RedisUnavailable
        when the server stayed away: then nothing was written. Raises DispatchUncertain, a RedisUnavailable, when it was
        sent and got no answer, or was not confirmed as its ``durability`` asks: then the job may exist.
        """
        return self.send(self._plan, self._origin, args, kwargs)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R]:
        """A job to be dispatched later, with ``runner.dispatch_many`` or as part of a workflow."""
        return JobSpec(self._plan, self._origin, args, kwargs)

    def with_options(self, **options: Unpack[DispatchKeywords]) -> BoundTask[P, R]:
        """This task with other options for the jobs dispatched through the result; see ``DispatchKeywords``.

        Raises TaskOptionError for an unknown option or a wrong value.
        """
        return BoundTask(self, *self.plan(options))

    def plan(self, given: Mapping[str, Any]) -> tuple[Plan, Origin]:
        """How jobs with these options are made, and what their handles share."""
        plan = Plan(self.name, self.queue, self.options, self._packer, given, self._durability, self._partitions)
        convert = self._signature.result if self._signature is not None else None
        return plan, Origin(self.name, self._home.session, self._serializer.loads, convert, plan.kept)

    async def send(self, plan: Plan, origin: Origin, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Job[R]:
        session = self._home.session()
        if not session.store.clock.known:
            await session.open()
        draft = plan.draft(args, kwargs, session.store.clock.now())
        if plan.max_wait is not None:
            await session.admission.admit(queue_of(plan.lane), plan.max_wait)
        producer = session.producer
        partition = producer.partition_of(draft)
        duplicate = await producer.submit(draft, partition)
        return Job(duplicate or draft.envelope.id, origin, partition, duplicate is not None)

    # -- running ---------------------------------------------------------------------------------------------

    def recipe(
        self, hooks: Hooks, surroundings: Surroundings, processes: Processes, options: Options | None = None
    ) -> Recipe:
        """This task as a worker runs it, with its own options or those that travelled with a job.

        Raises TaskOptionError for a function that must run in a process and isn't found there by its name.
        """
        options = self.options if options is None else options
        apart = options["pool"] == PROCESS
        run = self._in_process(processes, surroundings) if apart else self._here()
        reporter = surroundings.reporter
        # The wait for the last report is no part of a run that has a timeout; else it needs no call of its own.
        is_timed = options["timeout"] is not None
        call = self._call(surroundings, run, compose(hooks.middleware), None if is_timed else reporter)
        for feature in features.FEATURES:
            call = feature.around(options, call)
        if is_timed and reporter is not None:
            call = _finishing(call, reporter)
        if apart:
            call = processes.in_turn(call)  # outside of the timeout: to wait for a process is no fault of the job
        gates = (feature.gate(options) for feature in features.FEATURES)
        own = {kind: hook for kind in JOB_KINDS if (hook := options.get(f"on_{kind}")) is not None}
        patterns = {kind: hook for kind, hook in own.items() if not callable(hook)}
        keeper = surroundings.keeper
        return Recipe(
            self.name,
            options,
            call,
            policy(options).judge,
            self._pack_result,
            hooks.announcer(
                {kind: hook for kind, hook in own.items() if kind not in patterns},
                {kind: self._follow_up(kind, one, surroundings) for kind, one in patterns.items()},
                self._unpack,
                None if keeper is None else keeper.save,
            ),
            tuple(gate for gate in gates if gate is not None),
            options["result_ttl"],
            "success" in patterns,
            not any(feature.looks_at_all(options) for feature in features.FEATURES),
        )

    def _follow_up(self, kind: str, pattern: Any, surroundings: Surroundings) -> FollowUp:
        """What dispatches a job or a workflow then."""
        if isinstance(pattern, Dispatchable):
            prepare: Prepare = prepared(pattern)
        else:
            assert surroundings.follow_ups is not None
            prepare = surroundings.follow_ups(pattern)
        return FollowUp(kind, self._home.session, prepare)

    def _here(self) -> Callable[..., Awaitable[Any]]:
        """What calls the function in this process."""
        function = self.function
        assert function is not None
        return function if inspect.iscoroutinefunction(function) else functools.partial(in_thread, function)

    def _in_process(self, processes: Processes, surroundings: Surroundings) -> Callable[..., Awaitable[Any]]:
        """What calls the function in another process."""
        function, signature, where = self.function, self._signature, f"task {self.name!r}: pool='process'"
        assert function is not None
        assert signature is not None
        procedure = Procedure.of(function, where)
        found = procedure.find()
        if found is not self and found is not function:
            raise TaskOptionError(f"{where}: what {procedure} is in its module is {found!r}, and not this task")

        async def run(*args: Any, **kwargs: Any) -> Any:
            context = current.get()
            delivery, previous = context.alone(), context.previous
            chosen = (context.max_retry, previous, signature.takes_context)
            return await processes.run(Request(procedure, delivery, *chosen, args, kwargs))

        return run

    def _call(
        self,
        surroundings: Surroundings,
        run: Callable[..., Awaitable[Any]],
        around: Around | None,
        reporter: Reporter | None,
    ) -> Call:
        """The innermost call: arguments, context, middleware, function."""
        signature, loads = self._signature, self._serializer.loads
        assert signature is not None
        # Another process makes the context anew, of what can travel.
        takes_context = signature.takes_context and self.options["pool"] != PROCESS
        typed, name = bool(signature.converters), self.name
        recall, lapsed = surroundings.recall, surroundings.lapsed

        async def invoke(delivery: Delivery) -> Any:
            if Extra.PRECEDING in delivery.envelope.extras and not delivery.envelope.previous and recall is not None:
                await recall(delivery)
            # Hooks, a process that is waited for, and predecessors take their time, and the process may have stood
            # still: the warden can't be sooner than what comes here first.
            if delivery.grant and lapsed is not None and lapsed(delivery):
                raise Lapsed
            context = JobContext(delivery, surroundings)
            token = current.set(context)
            try:
                try:
                    args, kwargs = arguments(loads(delivery.envelope.payload))
                    if typed:
                        args, kwargs = signature.rebuild(args, kwargs, name)
                except Exception as error:
                    raise PackingError(error, "its arguments can't be read") from None
                if takes_context:
                    args = (context, *args)
                if around is None:
                    result = await run(*args, **kwargs)
                else:
                    result = await around(context, functools.partial(run, *args, **kwargs))
                if delivery.saved and reporter is not None:
                    await reporter.finish(delivery)
                return context.kept if result is None else result
            except Exception:
                if delivery.saved and reporter is not None:
                    await reporter.finish(delivery)
                raise
            finally:
                current.reset(token)

        return invoke

    def _unpack(self, delivery: Delivery) -> tuple[list[Any], dict[str, Any]]:
        return arguments(self._serializer.loads(delivery.envelope.payload))

    def _pack_result(self, result: Any) -> bytes:
        if result is None and type(self._serializer) is JSON:
            return b"null"
        what, remedy = f"the result of task {self.name!r}", "return plain data, or set ignore_result"
        try:
            return pack_value(self._serializer, result, self._max_payload, what, remedy)
        except PayloadError as error:
            raise PackingError(error, "its result can't be kept") from None


def _finishing(call: Call, reporter: Reporter) -> Call:
    """A call whose last report is written when it has ended, well or not."""

    async def finished(delivery: Delivery) -> Any:
        try:
            result = await call(delivery)
        except Exception:
            if delivery.saved:
                await reporter.finish(delivery)
            raise
        if delivery.saved:
            await reporter.finish(delivery)
        return result

    return finished


class BoundTask(Generic[P, R]):
    """A task with options for the jobs that are dispatched through it."""

    def __init__(self, task: Task[P, R], plan: Plan, origin: Origin) -> None:
        self._task = task
        self._plan = plan
        self._origin = origin

    def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Job[R]]:
        """As ``Task.dispatch``."""
        return self._task.send(self._plan, self._origin, args, kwargs)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R]:
        """As ``Task.job``."""
        return JobSpec(self._plan, self._origin, args, kwargs)

"""Task: a registered function. Calling it runs it here; dispatching it runs it in a worker."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack

import anyio.to_thread

from . import features
from .context import JobContext, Surroundings, current
from .durability import Durability
from .envelope import Delivery, Draft
from .errors import PayloadError, PayloadTooLarge
from .feature import Call, PackingError, Recipe
from .features.retries import policy
from .hooks import Hooks
from .job import Job, Origin
from .options import DispatchKeywords, Options
from .payload import JSON, Packer, Serializer, Signature, arguments
from .plan import Plan
from .session import Session

P = ParamSpec("P")
R = TypeVar("R")


class Home(Protocol):
    """What a task needs of its runner."""

    def session(self) -> Session: ...


class JobSpec(Generic[R]):
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
    ) -> None:
        self.name = name
        self.queue = queue
        self.options = options
        self.function = function
        self._home = home
        self._serializer = serializer
        self._max_payload = max_payload
        self._durability = durability
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

        Raises PayloadError, QueueFull, RedisConfigurationError, or RedisUnavailable when the server stayed away: then
        nothing was written. Raises DispatchUncertain, a RedisUnavailable, when it was sent and got no answer, or was
        not confirmed as its ``durability`` asks: then the job may exist.
        """
        return self.send(self._plan, self._origin, args, kwargs)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R]:
        """A job to be dispatched later, with ``runner.dispatch_many``."""
        return JobSpec(self._plan, self._origin, args, kwargs)

    def with_options(self, **options: Unpack[DispatchKeywords]) -> BoundTask[P, R]:
        """This task with other options for the jobs dispatched through the result; see ``DispatchKeywords``.

        Raises TaskOptionError for an unknown option or a wrong value.
        """
        return BoundTask(self, *self.plan(options))

    def plan(self, given: Mapping[str, Any]) -> tuple[Plan, Origin]:
        """How jobs with these options are made, and what their handles share."""
        plan = Plan(self.name, self.queue, self.options, self._packer, given, self._durability)
        convert = self._signature.result if self._signature is not None else None
        return plan, Origin(self.name, self._home.session, self._serializer.loads, convert, plan.kept)

    async def send(self, plan: Plan, origin: Origin, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Job[R]:
        session = self._home.session()
        if not session.store.clock.known:
            await session.open()
        draft = plan.draft(args, kwargs, session.store.clock.now())
        producer = session.producer
        partition = producer.partition_of(draft)
        duplicate = await producer.submit(draft, partition)
        return Job(duplicate or draft.envelope.id, origin, partition, duplicate is not None)

    # -- running ---------------------------------------------------------------------------------------------

    def recipe(self, hooks: Hooks, surroundings: Surroundings, options: Options | None = None) -> Recipe:
        """This task as a worker runs it, with its own options or those that travelled with a job."""
        options = self.options if options is None else options
        call = self._call(surroundings)
        for feature in features.FEATURES:
            call = feature.around(options, call)
        gates = (feature.gate(options) for feature in features.FEATURES)
        return Recipe(
            self.name,
            options,
            call,
            policy(options).judge,
            self._pack_result,
            hooks.announcer(options, self._unpack),
            tuple(gate for gate in gates if gate is not None),
            options["result_ttl"],
        )

    def _call(self, surroundings: Surroundings) -> Call:
        """The innermost call: arguments, context, function."""
        function, signature, loads = self.function, self._signature, self._serializer.loads
        assert function is not None
        assert signature is not None
        run = function if inspect.iscoroutinefunction(function) else functools.partial(_in_thread, function)
        takes_context, typed, name = signature.takes_context, bool(signature.converters), self.name

        async def invoke(delivery: Delivery) -> Any:
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
                    return await run(context, *args, **kwargs)
                return await run(*args, **kwargs)
            finally:
                current.reset(token)

        return invoke

    def _unpack(self, delivery: Delivery) -> tuple[list[Any], dict[str, Any]]:
        return arguments(self._serializer.loads(delivery.envelope.payload))

    def _pack_result(self, result: Any) -> bytes:
        if result is None and type(self._serializer) is JSON:
            return b"null"
        try:
            data = self._serializer.dumps(result)
        except Exception as error:
            text = f"the result of task {self.name!r} can't be kept: {error}; return plain data, or set ignore_result"
            raise PackingError(PayloadError(text), "its result can't be kept") from None
        if len(data) > self._max_payload:
            text = (
                f"the result of task {self.name!r} takes {len(data):,} bytes, over max_payload={self._max_payload:,}; "
                "store it elsewhere and return a reference"
            )
            raise PackingError(PayloadTooLarge(text), "its result can't be kept")
        return data


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


async def _in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs a plain function in a thread, in which ``current_job()`` works.

    A thread can't be cancelled: when the run is, its slot and its reservation stay taken until the function returns,
    and then the cancellation goes on. So it runs twice at once only when a stop gave it up (after the shutdown
    timeout) or its reservation was lost.
    """

    def call() -> tuple[Any, BaseException | None]:
        try:
            return function(*args, **kwargs), None
        except BaseException as error:
            return None, error  # as a value: a SystemExit that leaves a task of asyncio's stops the event loop

    work = asyncio.ensure_future(anyio.to_thread.run_sync(call, limiter=_threads()))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(asyncio.wait([work]))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # seen: it is ignored, and that on purpose
        raise cancelled
    result, raised = work.result()
    if raised is not None:
        raise raised
    return result


def _threads() -> anyio.CapacityLimiter:
    """Threads for tasks: as many as there are slots, which limit them already; not anyio's 40 for everybody."""
    loop = asyncio.get_running_loop()
    limiter = _limiters.get(loop)
    if limiter is None:
        _limiters.clear()  # a closed loop's is of no use to anybody
        limiter = _limiters[loop] = anyio.CapacityLimiter(100_000)
    return limiter


_limiters: dict[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = {}

"""TaskRunner: the registry of tasks, what is open, and the start and stop of the worker. Everything else has its room."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from . import embedded, features, hooks, settings
from .context import JobContext, Surroundings
from .dead_letters import DeadLetters, FailedJob, failed_job
from .envelope import Arrival, Delivery, Extra
from .errors import AlreadyStarted, DuplicateTask, RedisUnavailable, TaskOptionError, UnknownTask
from .feature import Recipe
from .forecast import QueueStats
from .hooks import Hooks
from .job import Job, Origin
from .options import DispatchKeywords, Seconds, TaskKeywords, name as checked_name, seconds
from .outcome import Failed
from .payload import Serializer
from .session import Session
from .store.connect import Connector, target, target_of
from .store.heart import Heart
from .store.keys import Keyspace
from .store.store import Store, StoreOptions
from .task import BoundTask, JobSpec, Task
from .worker.monitor import LongQueueHook
from .worker.worker import Worker, WorkerOptions

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class TaskRunner:
    """A runner: register tasks with ``@runner.task``, dispatch them from anywhere, run them with ``runner.start()``.

    ``redis`` is a URL (``redis://``, ``rediss://``, ``unix://``, ``embedded://``, ``embedded:///folder``) or a ready
    ``redis.asyncio.Redis``, whose connection settings are used and which is left alone; None means
    ``TASKRUNNER_REDIS_URL``, else ``embedded://``. The other arguments are explained in the README's table; durations
    are seconds or timedeltas. Raises TaskOptionError for a wrong value.

        runner = TaskRunner("redis://localhost:6379/5", namespace="shop")

        @runner.task(max_retry=10)
        async def greet(name: str) -> None: ...

        async with runner.start():
            await greet.dispatch("Ann")
    """

    def __init__(
        self,
        redis: Any = None,
        *,
        namespace: str = "taskrunner",
        queue: str = "default",
        consumer_group: str = "taskrunner",
        consumers_prefix: str = "worker",
        num_workers: int = 100,
        batch_size: int = 100,
        reservation_timeout: Seconds = 30,
        replication_factor: int | None = None,
        long_queue_threshold: Seconds = 30,
        long_queue_hook: Callable[[QueueStats], Awaitable[None] | None] | None = None,
        failed_task_handler: Callable[[FailedJob], Awaitable[None] | None] | None = None,
        result_ttl: Seconds = 300,
        shutdown_timeout: Seconds = 30,
        max_deliveries: int = 4,
        max_payload: int = 1_000_000,
        partitions: int = 1,
        delete_on_ack: bool = True,
        serializer: Serializer | None = None,
        key_prefix: str = "taskrunner",
        state: Any = None,
    ) -> None:
        self.settings = settings.check(
            namespace=namespace,
            queue=queue,
            consumer_group=consumer_group,
            consumers_prefix=consumers_prefix,
            num_workers=num_workers,
            batch_size=batch_size,
            reservation_timeout=reservation_timeout,
            replication_factor=replication_factor,
            long_queue_threshold=long_queue_threshold,
            long_queue_hook=long_queue_hook,
            failed_task_handler=failed_task_handler,
            result_ttl=result_ttl,
            shutdown_timeout=shutdown_timeout,
            max_deliveries=max_deliveries,
            max_payload=max_payload,
            partitions=partitions,
            delete_on_ack=delete_on_ack,
            serializer=serializer,
            key_prefix=key_prefix,
        )
        self.state = state
        self.tasks: dict[str, Task[..., Any]] = {}
        self.dead_letters = DeadLetters(self.opened, self.settings.serializer)
        self._redis = redis
        self._connector = _connector(redis)
        self._hooks = Hooks()
        self._long_queue_hooks: list[LongQueueHook] = []
        self._session: Session | None = None
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None
        if long_queue_hook is not None:
            self.on_long_queue()(long_queue_hook)

    def __repr__(self) -> str:
        return f"<TaskRunner {self.settings.namespace} ({len(self.tasks)} tasks)>"

    # -- tasks ---------------------------------------------------------------------------------------------------------------

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

    def task(self, function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Registers a function as a task; with or without options (see ``TaskKeywords``). Default name: the function's.

        Raises DuplicateTask for a name that is taken, TaskOptionError for an unknown option or a wrong value.
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
        task: Task[..., Any] = Task(
            self, function, name, queue, chosen, self.settings.serializer, self.settings.max_payload
        )
        self.tasks[name] = task
        return task

    def _find(self, task: Task[..., Any] | str) -> Task[..., Any]:
        if isinstance(task, Task):
            return task
        found = self.tasks.get(task)
        if found is None:
            near = difflib.get_close_matches(str(task), self.tasks, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownTask(f"no task {task!r} is registered or declared here{hint}")
        return found

    # -- dispatching ---------------------------------------------------------------------------------------------------------

    @overload
    async def dispatch(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def dispatch(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...

    async def dispatch(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Dispatches a job of a task, given as such or by its name. As ``Task.dispatch``; raises UnknownTask as well."""
        return await self._find(task).dispatch(*args, **kwargs)

    def with_options(self, **options: Unpack[DispatchKeywords]) -> Dispatcher:
        """``runner.with_options(delay=60).dispatch("task", ...)``: other options for the jobs dispatched through it."""
        return Dispatcher(self._find, dict(options))

    async def dispatch_many(self, specs: Sequence[JobSpec[R]]) -> list[Job[R]]:
        """Dispatches many jobs, 200 per round trip, each on its own. Returns their handles in order.

        Raises PayloadError before anything is written; RedisUnavailable when the server went away in the middle: then
        some of the jobs were accepted.
        """
        session = await self.opened()
        now = session.store.clock.now()
        drafts = [spec.plan.draft(spec.args, spec.kwargs, now) for spec in specs]
        accepted = await session.producer.dispatch_many(drafts)
        return [
            Job(duplicate or draft.envelope.id, spec.origin, partition, duplicate is not None)
            for spec, draft, (partition, duplicate) in zip(specs, drafts, accepted, strict=True)
        ]

    def job(self, id: str) -> Job[Any]:
        """The handle of a job by its id; whether there is such a job shows when it is asked."""
        return Job(id, Origin("", self.session, self.settings.serializer.loads))

    # -- figures -------------------------------------------------------------------------------------------------------------

    async def stats(self, queue: str | None = None) -> QueueStats:
        """The figures of a queue, or of all queues together (None). One round trip per queue and partition."""
        session = await self.opened()
        factor = self.settings.replication_factor
        if queue is not None:
            return await session.store.inspection.stats(checked_name(queue, "queue"), factor)
        return await session.store.inspection.stats_of_all(factor)

    @property
    def ready(self) -> bool:
        """True while this process consumes: connected, and not stopping."""
        return self._worker is not None and self._worker.ready

    # -- hooks ---------------------------------------------------------------------------------------------------------------

    def on_start(self, hook: F) -> F:
        """Told of every run before it begins (``JobEvent``). Hooks may be sync or async; what they raise is logged."""
        self._hooks.job["start"].append(hook)
        return hook

    def on_success(self, hook: F) -> F:
        """Told of every run that returned, before that is recorded: at least once."""
        self._hooks.job["success"].append(hook)
        return hook

    def on_failure(self, hook: F) -> F:
        """Told of every job that failed for good, before that is recorded: at least once."""
        self._hooks.job["failure"].append(hook)
        return hook

    def on_retry(self, hook: F) -> F:
        """Told of every failed run that will be tried again."""
        self._hooks.job["retry"].append(hook)
        return hook

    def on_error(self, hook: F) -> F:
        """Told of failures of the runner's own machinery: ``hook(role, exception)``."""
        self._hooks.error.append(hook)
        return hook

    def on_startup(self, hook: F) -> F:
        """Called without arguments when the runner starts, before it consumes."""
        self._hooks.startup.append(hook)
        return hook

    def on_shutdown(self, hook: F) -> F:
        """Called without arguments when the runner has stopped consuming."""
        self._hooks.shutdown.append(hook)
        return hook

    @overload
    def on_long_queue(self, hook: F, /) -> F: ...
    @overload
    def on_long_queue(
        self, *, threshold: Seconds | None = None, clear: Seconds | None = None, cooldown: Seconds = 0
    ) -> Callable[[F], F]: ...

    def on_long_queue(
        self, hook: Any = None, /, *, threshold: Any = None, clear: Any = None, cooldown: Any = 0
    ) -> Any:
        """Calls the hook with ``QueueStats`` each time that a queue's drain time is over ``threshold`` seconds.

        Evaluated every threshold / 2 (0.1 to 60 s) by one runner of the fleet. ``cooldown``: at least so many seconds
        between two calls for one queue. ``clear``: also called once, with ``stats.is_long`` False, when the drain time
        of an alerted queue has fallen to this.
        """

        def register(hook: Any) -> Any:
            async def tell(stats: QueueStats) -> None:
                await hooks.call(hook, stats)

            limit = self.settings.long_queue_threshold if threshold is None else seconds(threshold, "threshold")
            end = None if clear is None else seconds(clear, "clear")
            self._long_queue_hooks.append(LongQueueHook(tell, limit, end, seconds(cooldown, "cooldown")))
            return hook

        return register if hook is None else register(hook)

    # -- opening and closing -------------------------------------------------------------------------------------------------

    def session(self) -> Session:
        """What is open in the running loop; made when there is nothing."""
        if self._session is None or self._session.loop is not asyncio.get_running_loop():
            chosen = self.settings
            client = secrets.token_hex(8)
            store_options = StoreOptions(
                chosen.consumer_group,
                f"{chosen.consumers_prefix}-{socket.gethostname()}-{secrets.token_hex(6)}",
                client,
                chosen.reservation_timeout,
                chosen.beat,
                chosen.result_ttl,
                chosen.delete_on_ack,
            )
            keyspace = Keyspace(chosen.key_prefix, chosen.namespace, chosen.partitions)
            store = Store(self._connector, keyspace, store_options)
            self._session = Session(store, self._connector, client)
        return self._session

    async def opened(self) -> Session:
        """The session, connected. Raises RedisError."""
        session = self.session()
        if not session.store.clock.known:
            await session.open()
        return session

    async def aclose(self) -> None:
        """Closes the connections that dispatching opened. The runner can be used again."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()

    async def __aenter__(self) -> TaskRunner:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # -- consuming -----------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _started(self, consume: bool, fail_fast: bool) -> AsyncIterator[TaskRunner]:
        if self._running is not None:
            raise AlreadyStarted("the runner runs already; leave its `async with runner.start()` first")
        session = self.session()
        self._running = asyncio.current_task()
        try:
            try:
                await session.store.open()
            except RedisUnavailable:
                if fail_fast:
                    raise
            for hook in self._hooks.startup:
                await hooks.call(hook)
            if consume:
                self._consume(session)
            try:
                yield self
            finally:
                await self._stop()
                for hook in self._hooks.shutdown:
                    await hooks.call(hook)
        finally:
            self._running = None
            await self.aclose()

    def start(
        self, *, consume: bool = True, fail_fast: bool = False
    ) -> contextlib.AbstractAsyncContextManager[TaskRunner]:
        """``async with runner.start():`` consumes inside the block; leaving it drains gracefully.

        ``consume=False`` only dispatches. A server that is away is waited for, or with ``fail_fast=True`` raises
        RedisUnavailable; a wrong password, right or address raises RedisConfigurationError. Raises AlreadyStarted
        while the runner runs.
        """
        if self._running is not None:
            raise AlreadyStarted("the runner runs already; leave its `async with runner.start()` first")
        return self._started(consume, fail_fast)

    async def run(self) -> None:
        """Consumes until SIGTERM or SIGINT, then drains gracefully; a second signal cancels what still runs."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def heard() -> None:
            if stop.is_set() and self._worker is not None:
                self._worker.hurry()
            stop.set()

        with _signals(loop, heard):
            async with self.start():
                await stop.wait()

    def _consume(self, session: Session) -> None:
        chosen = self.settings
        queues = list(dict.fromkeys([chosen.queue, *(task.queue for task in self.tasks.values() if task.function)]))
        worker_options = WorkerOptions(
            queues=queues,
            recipes=self._recipes(),
            lookup=self._lookup,
            bury=self._bury if chosen.failed_task_handler is not None else None,
            error=self._tell_error,
            slots=chosen.num_workers,
            batch_size=chosen.batch_size,
            max_deliveries=chosen.max_deliveries,
            shutdown_timeout=chosen.shutdown_timeout,
            max_loop_block=chosen.max_loop_block,
            replication_factor=chosen.replication_factor,
            hooks=self._long_queue_hooks,
        )
        store = session.store
        heart = Heart(self._connector, store.keyspace, store.options, store.clock)
        worker = self._worker = Worker(store, heart, session.listener, worker_options)
        session.on_notice, session.on_gap = worker.heard, worker.look_again
        session.listen()
        self._consuming = asyncio.create_task(worker.run(), name="taskrunner-worker")

    async def _stop(self) -> None:
        if self._worker is None:
            return
        self._worker.stop.set()
        try:
            await asyncio.shield(self._consuming)
        except asyncio.CancelledError:
            # The host is in a hurry: nothing runs on, and what was running is handed back.
            self._worker.hurry()
            await self._consuming
            raise
        finally:
            self._worker = None

    def _recipes(self) -> dict[str, Recipe]:
        return {
            name: task.recipe(self._hooks, self._surroundings(task))
            for name, task in self.tasks.items()
            if task.function is not None
        }

    def _surroundings(self, task: Task[..., Any]) -> Surroundings:
        return Surroundings(self, self.state, task.options["max_retry"])

    def _lookup(self, delivery: Delivery) -> Recipe | None:
        """The recipe for a delivery that may carry options of its own."""
        task = self.tasks.get(delivery.envelope.task)
        if task is None or task.function is None:
            return None
        sent = delivery.envelope.extras.get(Extra.OPTIONS)
        options = features.arrived(task.options, sent) if sent else None
        return task.recipe(self._hooks, self._surroundings(task), options)

    async def _bury(self, arrival: Arrival, failed: Failed) -> None:
        handler = self.settings.failed_task_handler
        if handler is not None:
            await hooks.call(handler, failed_job(arrival, failed, datetime.now().astimezone(), self.settings.serializer))

    async def _tell_error(self, role: str, error: BaseException) -> None:
        for hook in self._hooks.error:
            await hooks.call(hook, role, error)

    # -- embedding -----------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For FastAPI and Starlette: ``FastAPI(lifespan=runner.lifespan)``. Installs no signal handler."""
        async with self.start():
            yield

    async def cleanup_ctx(self, app: Any) -> AsyncIterator[None]:
        """For aiohttp: ``app.cleanup_ctx.append(runner.cleanup_ctx)``. Installs no signal handler."""
        async with self.start():
            yield


class TaskDecorator:
    """What ``runner.task(...)`` with options returns: register the function that follows."""

    def __init__(self, runner: TaskRunner, name: str | None, options: dict[str, Any]) -> None:
        self._runner = runner
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
        return self._runner.register(function, self._name or function.__name__, dict(self._options))


class Dispatcher:
    """What ``runner.with_options(...)`` returns."""

    def __init__(self, find: Callable[[Any], Task[..., Any]], options: dict[str, Any]) -> None:
        self._find = find
        self._options = options

    @overload
    async def dispatch(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def dispatch(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...

    async def dispatch(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As ``TaskRunner.dispatch``."""
        bound: BoundTask[..., Any] = self._find(task).with_options(**self._options)
        return await bound.dispatch(*args, **kwargs)


def _connector(redis: Any) -> Connector:
    if redis is None:
        redis = os.environ.get("TASKRUNNER_REDIS_URL") or "embedded://"
    if not isinstance(redis, str):
        return Connector(None, target_of(redis))
    if redis.startswith("embedded:"):
        return Connector(lambda: embedded.locate(redis))
    return Connector(None, target(redis))


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> Any:
    """SIGTERM and SIGINT call ``heard`` inside the block; where the loop can't do that (Windows), by the old way."""
    names = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in names}
    for number in names:
        try:
            loop.add_signal_handler(number, heard)
        except (NotImplementedError, RuntimeError):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(heard))
    try:
        yield
    finally:
        for number in names:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])

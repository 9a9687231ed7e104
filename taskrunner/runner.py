"""TaskRunner: what a runner is made of, and its start and stop. The rest has rooms of its own: tasks (registry), what
dispatches them (dispatching), hooks (hooking), what is open (session), the worker (consumer)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from . import embedded, hooks, procedure, settings
from .consumer import Consumer, Home
from .dead_letters import DeadLetters, FailedJob
from .dispatching import Dispatching
from .durability import DurabilityName
from .errors import AlreadyStarted, RedisUnavailable, TaskOptionError, UsageError
from .forecast import QueueStats
from .hooking import Hooking
from .job import Job, Origin
from .limiter import Limiter
from .operation import Operation
from .options import Seconds, truth
from .options import name as checked_name
from .payload import Serializer
from .scheduling import Scheduling
from .session import Session
from .signals import on_stop_signal
from .store.connect import connect
from .store.deployment import Deployment, LocatedServer
from .store.keys import Keyspace
from .store.store import Store, StoreOptions


class TaskRunner(Dispatching, Home, Operation):
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
        max_dead_letters: int | None = 100_000,
        dead_letter_ttl: Seconds | None = timedelta(days=90),
        max_payload: int = 1_000_000,
        partitions: int = 1,
        delete_on_ack: bool = True,
        serializer: Serializer | None = None,
        key_prefix: str = "taskrunner",
        durability: DurabilityName = "memory",
        state: Any = None,
        prune_schedules: bool = False,
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
            max_dead_letters=max_dead_letters,
            dead_letter_ttl=dead_letter_ttl,
            max_payload=max_payload,
            partitions=partitions,
            delete_on_ack=delete_on_ack,
            serializer=serializer,
            key_prefix=key_prefix,
            durability=durability,
            prune_schedules=prune_schedules,
        )
        Scheduling.__init__(self)
        Hooking.__init__(self)
        self.state = state
        self.dead_letters = DeadLetters(
            self.opened, self._origin_of, self.settings.serializer, self.settings.durability
        )
        redis = (os.environ.get("TASKRUNNER_REDIS_URL") or "embedded://") if redis is None else redis
        self.owns_server = redis == "embedded://"
        """True when the server is that of this process alone: whoever starts several processes must share one out."""
        self._deployment = _deployment(redis)
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._consumer: Consumer | None = None
        self._started = False
        if long_queue_hook is not None:
            self.on_long_queue()(long_queue_hook)

    def __repr__(self) -> str:
        return f"<TaskRunner {self.settings.namespace} ({len(self.tasks)} tasks)>"

    # -- handles ---------------------------------------------------------------------------------------------

    def _origin_of(self, task: str, kept: bool) -> Origin:
        convert = self.tasks[task].plan({})[1].convert if task in self.tasks else None
        return Origin(task, self.session, self.settings.serializer.loads, convert, kept)

    def job(self, id: str) -> Job[Any]:
        """The handle of a job by its id; whether there is such a job shows when it is asked."""
        return Job(id, Origin("", self.session, self.settings.serializer.loads))

    # -- limits ----------------------------------------------------------------------------------------------

    def limiter(self, name: str, *, limit: int, timeout: Seconds) -> Limiter:
        """A limiter: at most ``limit`` at once hold a slot of that name, over all processes; each for ``timeout``
        seconds unless it is renewed. Needs no task and no ``start()``. Nothing is written before somebody asks for one.

        Raises TaskOptionError for a name that is not 1 to 200 printable characters, a limit below 1, or no timeout.

            limiter = runner.limiter("google_places", limit=3, timeout=5)
            async with limiter.slot("request-17", wait=10): ...
        """
        return Limiter(self.session, name, limit, timeout)

    # -- figures ---------------------------------------------------------------------------------------------

    async def stats(self, queue: str | None = None) -> QueueStats:
        """The figures of a queue, or of all queues together (None). One round trip per queue and partition."""
        session = await self.opened()
        factor = self.settings.replication_factor
        if queue is not None:
            name = checked_name(queue, "queue")
            return await session.read(lambda inspection: inspection.stats(name, factor))
        return await session.read(lambda inspection: inspection.stats_of_all(factor))

    @property
    def ready(self) -> bool:
        """True while this process consumes: connected, and not stopping."""
        return self._consumer is not None and self._consumer.ready

    # -- opening and closing ---------------------------------------------------------------------------------

    def session(self) -> Session:
        """What is open in the running loop; made when there is nothing. A thread's own loop has its own."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            if procedure.loading_main:
                raise UsageError(
                    "a process of pool='process' reads this program for its functions, and the program dispatches or "
                    'starts again: do that below `if __name__ == "__main__":`'
                )
            for other in [one for one in self._sessions if one.is_closed()]:
                self._sessions.pop(other, None)  # asyncio.run() ended without aclose()
            session = self._sessions[loop] = self._new_session()
        return session

    def _new_session(self) -> Session:
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
            max_dead_letters=chosen.max_dead_letters,
            dead_letter_ttl=chosen.dead_letter_ttl,
        )
        keyspace = Keyspace(chosen.key_prefix, chosen.namespace, chosen.partitions)
        store = Store(self._deployment, keyspace, store_options)
        session = Session(store, self._deployment, client, chosen.replication_factor)
        session.cancel_teller = self.cancel_teller
        return session

    async def aclose(self) -> None:
        """Closes the connections that dispatching opened in this loop. The runner can be used again."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    async def __aenter__(self) -> TaskRunner:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # -- consuming -------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        consume: bool = True,
        fail_fast: bool = False,
        queues: Sequence[str] | None = None,
        prune_schedules: bool | None = None,
    ) -> contextlib.AbstractAsyncContextManager[TaskRunner]:
        """``async with runner.start():`` consumes inside the block; leaving it drains gracefully.

        ``consume=False`` only dispatches. ``queues`` are the names of those that it consumes; None: its default queue
        and those of its tasks. ``prune_schedules`` removes the schedules that decorators have declared somewhere and
        this runner's do not (None: as ``TaskRunner`` was told). A server that is away is waited for, or with
        ``fail_fast=True`` raises RedisUnavailable; a wrong password, right or address raises RedisConfigurationError.
        Raises AlreadyStarted while the runner runs, TaskOptionError for a wrong name.
        """
        self._refuse_second_start()
        prune = self.settings.prune_schedules if prune_schedules is None else truth(prune_schedules, "prune_schedules")
        return self._run_block(consume, fail_fast, _queues(queues), prune)

    async def run(self, *, queues: Sequence[str] | None = None, prune_schedules: bool | None = None) -> None:
        """Consumes until SIGTERM or SIGINT, then drains gracefully; a second signal cancels what still runs.

        ``queues`` and ``prune_schedules`` as for ``start``. Raises TaskOptionError for a wrong name.
        """
        loop, stop, serving = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()
        starting = True

        def heard() -> None:
            if starting and serving is not None and not stop.is_set():
                serving.cancel()  # a start can hang: in a server that doesn't answer, in a hook of the user's
            elif stop.is_set() and self._consumer is not None:
                self._consumer.hurry()
            stop.set()

        with on_stop_signal(loop, heard):
            try:
                async with self.start(queues=queues, prune_schedules=prune_schedules):
                    starting = False
                    await stop.wait()
            except asyncio.CancelledError:
                if not (starting and stop.is_set()) or serving is None:
                    raise
                serving.uncancel()

    @contextlib.asynccontextmanager
    async def _run_block(
        self, consume: bool, fail_fast: bool, queues: Sequence[str] | None, prune_schedules: bool
    ) -> AsyncGenerator[TaskRunner]:
        self._refuse_second_start()
        self._started = True
        try:
            session = self.session()
            try:
                await session.store.open()
            except RedisUnavailable:
                if fail_fast:
                    raise
            for hook in self.hooks.startup:
                await hooks.call(hook)
            self._consumer = Consumer(self, session, self._deployment, queues, prune_schedules) if consume else None
            try:
                yield self
            finally:
                await self._stop_consuming()
        finally:
            self._started = False
            await self.aclose()

    async def _stop_consuming(self) -> None:
        try:
            if self._consumer is not None:
                await self._consumer.stop()
        finally:
            self._consumer = None
            for hook in self.hooks.shutdown:
                await hooks.call(hook)

    def _refuse_second_start(self) -> None:
        if self._started:
            raise AlreadyStarted("the runner runs already; leave its `async with runner.start()` first")

    # -- embedding -------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncGenerator[None]:
        """For FastAPI and Starlette: ``FastAPI(lifespan=runner.lifespan)``. Installs no signal handler."""
        async with self.start():
            yield

    async def cleanup_ctx(self, app: Any) -> AsyncIterator[None]:
        """For aiohttp: ``app.cleanup_ctx.append(runner.cleanup_ctx)``. Installs no signal handler."""
        async with self.start():
            yield


def _queues(names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not names:
        raise TaskOptionError(f"queues must be a list with the name of at least one queue, not {names!r}")
    return [checked_name(one, "queues") for one in names]


def _deployment(redis: Any) -> Deployment:
    if isinstance(redis, str) and redis.startswith("embedded:"):
        return LocatedServer(lambda: embedded.locate(redis))
    return connect(redis)

"""JobContext: what a task can know about the job that it runs."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from .envelope import Delivery, Extra
from .errors import NotInJob, UsageError
from .needs import fence
from .priority import queue_of

_log = logging.getLogger("taskrunner.job")


class Keeper(Protocol):
    """Keeps interim values of jobs; see ``JobContext.save``."""

    async def save(self, delivery: Delivery, value: Any) -> None: ...

    async def saved(self, delivery: Delivery) -> Any: ...


class Reporter(Protocol):
    """Writes how far jobs are; see ``JobContext.progress``."""

    async def report(self, delivery: Delivery, done: Any, total: Any, message: Any) -> None: ...

    async def finish(self, delivery: Delivery) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for every run of a task in one process. ``loads`` reads what the serializer has written;
    ``keeper`` and ``reporter`` are None where nobody can keep anything, in a process of ``pool="process"``."""

    runner: Any
    state: Any
    max_retry: int
    loads: Callable[[bytes], Any]
    keeper: Keeper | None = None
    reporter: Reporter | None = None
    recall: Callable[[Delivery], Awaitable[None]] | None = None
    """Reads what the jobs came to that this one follows, where that has not come along with it."""
    lapsed: Callable[[Delivery], bool] | None = None
    """Whether the reservation of a job that holds seats may be over, so that its function must not be called."""
    follow_ups: Callable[[Any], Any] | None = None
    """Makes the dispatch of a workflow ready that is a callback of the task; see follow_ups.py."""


class JobContext:
    """The running job, as its task sees it. A task whose first parameter is annotated with this class gets one.

    ``job_id``, ``task``, ``queue``; ``attempt`` (1 = first run) of ``max_retry`` + 1; ``deliveries``, how often the job
    was handed to a worker since its last attempt began; ``state`` as given to the runner; ``runner`` itself. ``kept``
    is what this run saved or read as saved, its result if it returns None.
    """

    __slots__ = ("_delivery", "_started", "_surroundings", "kept")

    def __init__(self, delivery: Delivery, surroundings: Surroundings) -> None:
        self._delivery = delivery
        self._surroundings = surroundings
        self._started = time.time()
        self.kept: Any = None

    def __repr__(self) -> str:
        return f"<JobContext {self.task} {self.job_id} attempt {self.attempt}>"

    @property
    def job_id(self) -> str:
        return self._delivery.envelope.id

    @property
    def task(self) -> str:
        return self._delivery.envelope.task

    @property
    def queue(self) -> str:
        return queue_of(self._delivery.queue)

    @property
    def attempt(self) -> int:
        return self._delivery.envelope.attempt

    @property
    def max_retry(self) -> int:
        chosen = self._delivery.envelope.extras.get(Extra.OPTIONS, {})
        return int(chosen.get("max_retry", self._surroundings.max_retry))

    @property
    def deliveries(self) -> int:
        return self._delivery.deliveries + int(self._delivery.envelope.extras.get(Extra.DELIVERIES, 0))

    @property
    def enqueued_at(self) -> datetime:
        """When the job was dispatched, by the server's clock."""
        return datetime.fromtimestamp(self._delivery.envelope.enqueued_at / 1000, UTC)

    @property
    def started_at(self) -> datetime:
        """When this run began, by this machine's clock."""
        return datetime.fromtimestamp(self._started, UTC)

    @property
    def headers(self) -> Mapping[str, str]:
        """What the dispatch gave as ``headers``."""
        headers: Mapping[str, str] = self._delivery.envelope.extras.get(Extra.HEADERS, {})
        return headers

    @property
    def fence(self) -> int:
        """A number for "write only if newer" in a database, 63 bits: it grows with every delivery of this job.

        That of a job with a lock key or a limit grows with every hand-over of the lock, from job to job, so it also
        tells two jobs of one key apart: what a run writes that has lost its lock meanwhile has the smaller number.

            UPDATE accounts SET balance = :balance, fence = :fence WHERE id = :id AND fence < :fence

        Made of the entry's id (server milliseconds, sequence) and the delivery count, or of the number of the grant.
        """
        if self._delivery.grant:
            return fence(self._delivery.grant)
        milliseconds, _, sequence = self._delivery.entry_id.partition(b"-")
        return int(milliseconds) << 22 | min(int(sequence), 0x3FFF) << 8 | min(self._delivery.deliveries, 0xFF)

    @property
    def lock_key(self) -> str | None:
        """The lock key under which the job runs, as ``lock_key`` made it; None when it has none."""
        key: str | None = self._delivery.envelope.extras.get(Extra.LOCK)
        return key

    @property
    def previous(self) -> Any:
        """The result of the job that this one follows, or None when it follows none or that one returned nothing.

        Read anew at each access; no rebuilding of types, as nobody knows here what that job's annotation was.
        """
        data = self._delivery.envelope.previous
        return self._surroundings.loads(data) if data else None

    @property
    def cancelled(self) -> bool:
        """True once this run was told to stop: by its timeout, because the job was cancelled, because another worker
        has it now, or because the worker's shutdown timeout is over.

        A coroutine gets a CancelledError then. A thread can't be interrupted: one that works long should look, and
        return or raise. Its outcome counts no more.

            for row in rows:
                if ctx.cancelled:
                    return
        """
        return self._delivery.cancelled

    async def save(self, value: Any) -> None:
        """Keeps an interim value of the job; the last one counts. A round trip.

        The next attempt reads it with ``await ctx.saved()``, after a failure as after a crash; from outside it is
        ``(await job.info()).saved``, also of a failed job. If this run then returns None, it is the job's result. It is
        known as long as the job's outcome (``result_ttl``), while the job lives at most seven days from the last save.
        Of a run that has lost its job, or whose job was cancelled, nothing is kept: its outcome counts no more either.

        A plain function in a thread calls ``anyio.from_thread.run(ctx.save, value)``. Raises PayloadError for what
        can't be serialised, PayloadTooLarge over ``max_payload``, RedisUnavailable when the server stayed away, and
        UsageError in a process of ``pool="process"``.
        """
        await self._keeper().save(self._delivery, value)
        self.kept = value

    async def saved(self) -> Any:
        """The value that this job saved last, in whichever attempt; None when it saved none. A round trip.

        Raises RedisUnavailable and UsageError like ``save``.
        """
        value = await self._keeper().saved(self._delivery)
        self.kept = value
        return value

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tells how far the job is: ``done`` of ``total`` (None: nobody knows), in any unit, and a line of text.

        From outside it is ``(await job.info()).progress``, and whoever follows ``job.events()`` is told. It may be
        called for each row of a million: it returns at once, the worker writes the latest up to ten times a second, and
        the last one before the outcome is recorded. It is kept as long as a saved value (see ``save``), also of a
        failed job, and stands when the job runs again until that run tells its own. Of a run that has lost its job
        nothing is written.

        A job never fails because the server is away: what can't be written is left out. A plain function in a thread
        calls ``anyio.from_thread.run(ctx.progress, 3, 10)``. Raises TaskOptionError for amounts that are no finite
        numbers from 0 to 2**53, or a message that is no text of at most 1,000 characters, and UsageError in a process
        of ``pool="process"``.

            for n, row in enumerate(rows, 1):
                await load(row)
                await ctx.progress(n, len(rows), f"row {row.id}")
        """
        reporter = self._surroundings.reporter
        if reporter is None:
            raise UsageError("a process has no way to the server: tell progress in a task with pool='thread', or async")
        await reporter.report(self._delivery, done, total, message)

    def _keeper(self) -> Keeper:
        keeper = self._surroundings.keeper
        if keeper is None:
            raise UsageError("a process has no way to the server: save values in a task with pool='thread', or async")
        return keeper

    def alone(self) -> Delivery:
        """The facts of this run without its arguments, for another process."""
        envelope = self._delivery.envelope
        bare = dataclasses.replace(envelope, payload=b"", previous=b"-" if envelope.previous else b"")
        return dataclasses.replace(self._delivery, envelope=bare)

    @property
    def state(self) -> Any:
        return self._surroundings.state

    @property
    def runner(self) -> Any:
        return self._surroundings.runner

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that adds job id, task, queue and attempt to each record, as ``extra`` and in front of the text."""
        extra = {"job_id": self.job_id, "task": self.task, "queue": self.queue, "attempt": self.attempt}
        return _JobLogger(_log, extra)


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        extra = dict(self.extra or {})
        kwargs["extra"] = {**extra, **kwargs.get("extra", {})}
        return f"[{extra['task']} {extra['job_id']}] {msg}", kwargs


current: ContextVar[JobContext] = ContextVar("taskrunner_job")


def current_job() -> JobContext:
    """The job that this code runs in, in the task itself or anywhere below it, threads of plain functions included.

    Raises NotInJob outside a job.
    """
    try:
        return current.get()
    except LookupError:
        raise NotInJob("current_job() works only inside a running task") from None

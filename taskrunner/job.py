"""Job: the handle of a dispatched job."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from .envelope import Extra
from .errors import JobCancelled, JobExpired, JobFailed, JobNotFound, ResultNotKept, ResultTimeout
from .options import seconds
from .priority import queue_of
from .progress import JobProgress, read_progress
from .session import Session
from .store.inspect import Sight
from .store.keys import PartitionKeys
from .store.listing import Listed
from .store.wire import Ended

R = TypeVar("R")


class JobStatus(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


ENDED = {"s": JobStatus.SUCCEEDED, "f": JobStatus.FAILED, "c": JobStatus.CANCELLED, "e": JobStatus.EXPIRED}


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What is known of a job. Instants are aware; ``run_time`` in seconds is the last run's; ``due_at`` only while it
    waits for a time; ``worker`` only while it runs; ``error`` only when it failed for good; ``lock_key`` only while it
    has not ended. ``saved`` is the last value that the job saved (``JobContext.save``) and ``progress`` how far it is
    (``JobContext.progress``), both not in listings."""

    id: str
    task: str
    queue: str
    status: JobStatus
    attempts: int
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    ended_at: datetime | None = None
    run_time: float | None = None
    worker: str | None = None
    deliveries: int = 0
    error: JobFailed | None = None
    saved: Any = None
    lock_key: str | None = None
    progress: JobProgress | None = None


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What ``job.events()`` gives: where a job stands. ``at`` is when it ended, else when this was seen, by the
    server's clock; ``due_at`` only while it waits for a time; ``error`` only when it failed for good. Instants are
    aware."""

    id: str
    task: str
    status: JobStatus
    at: datetime
    attempts: int
    progress: JobProgress | None = None
    due_at: datetime | None = None
    error: JobFailed | None = None

    @property
    def ended(self) -> bool:
        """True of the last one."""
        return self.status in ENDED.values()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the same names, instants as text (ISO 8601), ``error`` as a line of text without the traceback, and
        ``ended``."""
        return {
            "id": self.id,
            "task": self.task,
            "status": self.status.value,
            "at": self.at.isoformat(),
            "attempts": self.attempts,
            "progress": None if self.progress is None else self.progress.as_dict(),
            "due_at": None if self.due_at is None else self.due_at.isoformat(),
            "error": None if self.error is None else str(self.error),
            "ended": self.ended,
        }


@dataclass(frozen=True, slots=True)
class Origin:
    """What the handles of one task's jobs share: how to reach the server, and how to read a result. ``kept`` is False
    for jobs whose end leaves no record."""

    task: str
    session: Callable[[], Session]
    loads: Callable[[bytes], Any]
    convert: Callable[[Any], Any] | None = None
    kept: bool = True


class Job(Generic[R]):
    """The handle of a dispatched job: ``id``, ``task``, and ``deduplicated`` (True: an equal job was alive, and this is
    that job's handle)."""

    __slots__ = ("_origin", "_partition", "deduplicated", "id")

    def __init__(self, id: str, origin: Origin, partition: int | None = None, deduplicated: bool = False) -> None:
        self.id = id
        self.deduplicated = deduplicated
        self._origin = origin
        self._partition = partition

    @property
    def task(self) -> str:
        """The task's name; empty for a handle that was made from an id alone."""
        return self._origin.task

    def __repr__(self) -> str:
        return f"<Job {self.task or '?'} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    async def status(self) -> JobStatus:
        """Where the job stands. Raises JobNotFound for an id that is unknown, or past its ``result_ttl``."""
        return (await self._look())[0].status

    async def info(self) -> JobInfo:
        """What is known of the job. Raises JobNotFound like ``status``."""
        info, partition = await self._look()
        data, told = await self._origin.session().remains(partition, self.id)
        if told is not None:
            info = replace(info, progress=read_progress(told))
        return info if data is None else replace(info, saved=self._origin.loads(data))

    async def _look(self) -> tuple[JobInfo, int]:
        found = await self._origin.session().find(self.id, self._partition)
        if found is None:
            raise self._unknown()
        keys, seen = found
        return _info_of(self.id, self.task, seen), keys.number

    async def wait(self, timeout: float | timedelta | None = None) -> None:
        """Waits until the job has ended, in whatever way. Raises ResultTimeout after ``timeout`` seconds."""
        await self._ended(timeout)

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """The task's return value, when the job has ended; waits for it up to ``timeout`` seconds (None: for ever).

        Raises JobFailed, JobCancelled, JobExpired, ResultTimeout, JobNotFound or ResultNotKept.
        """
        ended = await self._ended(timeout)
        status = ENDED[ended.state]
        if status is JobStatus.FAILED:
            raise _failure(ended)
        if status is JobStatus.CANCELLED:
            raise JobCancelled(f"job {self.id} was cancelled")
        if status is JobStatus.EXPIRED:
            raise JobExpired(f"job {self.id} did not start in time and never will")
        value = self._origin.loads(ended.result)
        convert = self._origin.convert
        return value if convert is None else convert(value)  # type: ignore[no-any-return]

    async def cancel(self) -> bool:
        """Cancels the job, wherever it is: one that waits never runs, one that runs is cut on whatever machine it is.

        True: it is cancelled, and whatever its run may still come to is refused; its unique key is free, ``status()``
        is cancelled and ``result()`` raises JobCancelled, at once and for all who wait. False: it had ended, or is
        unknown. A thread can't be cut: it goes on in its slot, and can look at ``ctx.cancelled``. A job with
        ``ignore_result`` leaves no trace in its stream, so it can be cancelled only while it waits for its time, unless
        it is unique, has a lock key, a limit or a rate, or its id is the caller's. Raises RedisUnavailable when the
        server stays away: then cancel again.

            if not await job.cancel():
                print("too late:", await job.status())
        """
        return await self._origin.session().cancel(self.id, self._partition)

    def events(self) -> AsyncIterator[JobUpdate]:
        """Follows the job: gives a JobUpdate for what is so now, and one for each change until it has ended.

        Changes are of status, attempts, due time and progress. Progress and the end are told by the server; that a run
        has started, or waits for its retry, is seen within two seconds. Of many in a row the latest counts, so one may
        be left out, but never the end. Outages are waited out. Each call follows for itself, and whoever breaks out of
        the loop leaves nothing behind. Raises JobNotFound for an id that is unknown, also when the job leaves no record
        of its end, and ResultNotKept for a job with ``ignore_result``.

            async for update in job.events():
                await response.write(b"data: " + json.dumps(update.as_dict()).encode() + b"\n\n")
        """
        if not self._origin.kept:
            raise self._not_kept()
        return _Updates(self.id, self._origin, self._partition, self._unknown)

    async def _ended(self, timeout: float | timedelta | None) -> Ended:
        if not self._origin.kept:
            raise self._not_kept()
        limit = math.inf if timeout is None else seconds(timeout, "timeout")
        try:
            async with asyncio.timeout(None if timeout is None else limit):
                ended = await self._origin.session().outcome(self.id, self._partition)
        except TimeoutError:
            raise ResultTimeout(f"job {self.id} has not ended within {limit:g} s; it goes on") from None
        if ended is None:
            raise self._unknown()
        return ended

    def _not_kept(self) -> ResultNotKept:
        return ResultNotKept(f"job {self.id} has ignore_result=True: no record of its end is kept")

    def _unknown(self) -> JobNotFound:
        return JobNotFound(f"job {self.id} is unknown: it never was, keeps no record, or its result_ttl is over")


class _Updates(AsyncIterator[JobUpdate]):
    """Listens only while it is asked for the next one, so that there is nothing to close; and looks first, so that what
    came meanwhile is seen."""

    def __init__(self, id: str, origin: Origin, partition: int | None, unknown: Callable[[], JobNotFound]) -> None:
        self._id = id
        self._origin = origin
        self._partition = partition
        self._unknown = unknown
        self._keys: PartitionKeys | None = None
        self._last: JobUpdate | None = None

    async def __anext__(self) -> JobUpdate:
        if self._last is not None and self._last.ended:
            raise StopAsyncIteration
        session = self._origin.session()
        if self._keys is None:
            found = await session.find(self._id, self._partition)
            if found is None:
                raise self._unknown()
            self._keys = found[0]
        update = await session.follow(self._id, self._keys, self._news)
        if update is None:
            raise self._unknown()
        self._last = update
        return update

    def _news(self, seen: Ended | Sight, told: bytes | None) -> JobUpdate | bool:
        """What differs from the last one; else True."""
        info = _info_of(self._id, self._origin.task, seen)
        at = info.ended_at or _instant(self._origin.session().store.clock.now())
        progress = read_progress(told)
        update = JobUpdate(self._id, info.task, info.status, at, info.attempts, progress, info.due_at, info.error)
        return True if self._last is not None and update == replace(self._last, at=at) else update


def _failure(ended: Ended) -> JobFailed:
    error_type, message, traceback, reason = ended.error or ("", "", "", "")
    return JobFailed(error_type, message, traceback, ended.attempts, reason)


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _info_of(id: str, task: str, seen: Ended | Sight) -> JobInfo:
    return _info_of_ended(id, seen) if isinstance(seen, Ended) else _info_of_sight(id, task, seen)


def _info_of_ended(id: str, ended: Ended) -> JobInfo:
    return JobInfo(
        id,
        ended.task,
        queue_of(ended.queue),
        ENDED[ended.state],
        ended.attempts,
        enqueued_at=_instant(ended.enqueued_at),
        ended_at=_instant(ended.ended_at),
        run_time=ended.seconds,
        error=_failure(ended) if ended.error is not None else None,
    )


def info_of(listed: Listed, state: str) -> JobInfo:
    """What a listing shows of one job."""
    if listed.ended is not None:
        return _info_of_ended(listed.id, listed.ended)
    if listed.dead is not None:
        dead = listed.dead
        error = JobFailed(dead.error_type, dead.message, dead.traceback, dead.attempts, dead.reason)
        failed_at, queue = _instant(dead.failed_at), queue_of(listed.lane)
        return JobInfo(
            listed.id, dead.task, queue, JobStatus.FAILED, dead.attempts, ended_at=failed_at,
            deliveries=dead.deliveries, error=error,
        )  # fmt: skip
    due = listed.at if state in (JobStatus.SCHEDULED, JobStatus.RETRYING) else 0
    return _info_of_sight(
        listed.id, "", Sight(state, listed.lane, due, listed.worker, listed.deliveries, listed.envelope)
    )


def _info_of_sight(id: str, task: str, sight: Sight) -> JobInfo:
    envelope = sight.envelope
    return JobInfo(
        id,
        envelope.task if envelope else task,
        queue_of(sight.queue),
        JobStatus(sight.state),
        envelope.attempt if envelope else 1,
        enqueued_at=_instant(envelope.enqueued_at) if envelope else None,
        due_at=_instant(sight.due) if sight.due else None,
        worker=sight.worker or None,
        deliveries=sight.deliveries,
        lock_key=envelope.extras.get(Extra.LOCK) if envelope else None,
    )

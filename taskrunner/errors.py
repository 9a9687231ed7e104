"""Every error that taskrunner raises.

TaskRunnerError
├── RedisError
│   ├── RedisUnavailable          the server can't be reached, or doesn't do what it is asked, for now
│   │   ├── QueueFull             the server is out of memory and refused the job
│   │   └── DispatchUncertain     a job may or may not have been accepted as durably as was asked
│   ├── RedisConfigurationError   wrong password, ACL, TLS, address or server version: retrying won't help
│   └── EmbeddedServerError       the embedded server can't be started
├── UsageError
│   ├── TaskOptionError           an option that doesn't exist, or a value that it can't have
│   ├── DuplicateTask             two tasks with one name
│   ├── UnknownTask               dispatch by a name that nobody registered or declared
│   ├── QueueConflict             a queue with two different numbers for its `concurrency`
│   ├── ScheduleError             a schedule that can't be: bad cron text, time zone or interval
│   │   └── ScheduleExists        there is one already for this task and lock key
│   ├── WorkflowError             a chain, group or graph that can't be, or can't be dispatched once more
│   ├── AlreadyStarted            start() while the runner runs
│   ├── TaskInProgress            start() of a local task that runs already
│   └── NotInJob                  current_job() outside a job
├── NotFound                      no dead letter or schedule of that name
├── UniqueConflict                an equal job is alive, so this one can't run again now
├── QueueBusy                     the queue would make the job wait longer than its `max_wait`
├── LimitReached                  a limiter had no free slot in the time that was given
├── SlotLost                      a block ran longer than its slot of a limiter could be held
├── PayloadError                  arguments or a result that can't travel
│   └── PayloadTooLarge           ... because they are too big
├── JobError                      what waiting for a job can come to
│   ├── JobFailed                 it failed for good
│   ├── JobCancelled              it was cancelled
│   ├── JobExpired                it did not start before its `expires`
│   ├── JobNotFound               its id is not known, or not any more
│   ├── ResultNotKept             it has `ignore_result`
│   └── ResultTimeout             it has not ended yet
├── JobTimeout                    a run took longer than the task's `timeout`
├── ProcessCrashed                the process that ran a job with pool="process" died
├── TaskTimeout                   a local task took longer than its `max_duration`, or than somebody was to wait for it
├── TaskCancelled                 a local task was cancelled
├── RetriesExceeded               a local task failed, and so did all of its retries
├── PoolStopped                   a worker pool takes no more tasks
└── Signal                        what a task raises to say what happens next
    ├── Retry                     run me again, as after an error
    ├── Snooze                    run me again later, this was no attempt
    └── GiveUp                    fail for good
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any


class TaskRunnerError(Exception):
    """The root: ``except TaskRunnerError`` catches everything that taskrunner raises."""


# -- the server ----------------------------------------------------------------------------------------------


class RedisError(TaskRunnerError):
    """The server side of things went wrong."""


class RedisUnavailable(RedisError):
    """The server can't be reached, or can't do what it is asked for now. Workers go on by themselves afterwards."""


class QueueFull(RedisUnavailable):
    """The server is out of memory and refused to take the job; nothing was written."""


class DispatchUncertain(RedisUnavailable):
    """A job may or may not have been accepted: its dispatch was sent and got no answer, or was not confirmed in time.

    ``job_id`` is its id; ``job_ids`` are those of all jobs in doubt, for ``dispatch_many``. ``reason`` says what
    happened. Dispatching again with the same id (``with_options(id=error.job_id)``) makes no second job while the first
    one is known.
    """

    def __init__(self, reason: str, job_ids: Sequence[str]) -> None:
        super().__init__(reason, tuple(job_ids))
        self.reason = reason
        self.job_ids = tuple(job_ids)
        self.job_id = self.job_ids[0]

    def __str__(self) -> str:
        others = f" and {len(self.job_ids) - 1} more" if len(self.job_ids) > 1 else ""
        return (
            f"job {self.job_id}{others} may exist or not: {self.reason}. "
            "Dispatching again with the same id is safe while that is known"
        )


class RedisConfigurationError(RedisError):
    """Wrong password, missing right, wrong TLS setting, bad address, a server that is too old: no retry will help."""


class EmbeddedServerError(RedisError):
    """The embedded server can't be found or started."""


# -- how the library is used ---------------------------------------------------------------------------------


class UsageError(TaskRunnerError):
    """The calling code asks for something that can't be."""


class TaskOptionError(UsageError, ValueError):
    """An option that doesn't exist, or a value that it can't have."""


class DuplicateTask(UsageError):
    """Two tasks were registered under one name."""


class UnknownTask(UsageError, LookupError):
    """A job was dispatched by a name that is neither registered nor declared."""


class QueueConflict(UsageError, ValueError):
    """Two tasks of one queue ask for a different ``concurrency``; how many of a queue run at once is one number."""


class ScheduleError(UsageError, ValueError):
    """A schedule that can't be: cron text that can't be read or never comes true, an unknown time zone, no interval."""


class ScheduleExists(ScheduleError):
    """There is a schedule already for this task and lock key, under another name."""


class WorkflowError(UsageError, ValueError):
    """A chain, group or graph that can't be: a cycle, a chain of one step, a part that stands in it twice, something
    that is no part of a workflow; or one that was dispatched before. Nothing was written."""


class AlreadyStarted(UsageError):
    """``start()`` was called while the runner runs."""


class TaskInProgress(UsageError):
    """A local task was started, or submitted to a pool, while it runs already. It goes on as if nobody had asked.

    ``submitted``: with ``submit_batch``, the tasks before it, which were submitted and go on.
    """

    submitted: Sequence[Any] = ()


class NotInJob(UsageError, LookupError):
    """``current_job()`` was called outside a job."""


# -- what is in the way ---------------------------------------------------------------------------------------


class NotFound(TaskRunnerError, LookupError):
    """There is no dead letter of that id, or no schedule of that name."""


class UniqueConflict(TaskRunnerError):
    """A job can't run again now because an equal one is alive, whose id is ``job_id``. Nothing was changed."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message, job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return str(self.args[0])


class QueueBusy(TaskRunnerError):
    """The job would wait longer than its ``max_wait``; nothing was written. ``eta``: seconds that the queue will take
    to drain, ``inf`` when nobody consumes."""

    def __init__(self, message: str, eta: float) -> None:
        super().__init__(message, eta)
        self.eta = eta

    def __str__(self) -> str:
        return str(self.args[0])


class LimitReached(TaskRunnerError):
    """A limiter had no free slot within the time that ``limiter.slot`` was to wait; or a local semaphore turned away
    those who waited."""


class SlotLost(TaskRunnerError):
    """The slot of a limiter ended while its block ran, which was cancelled for that: it could not be renewed in time,
    or was released elsewhere. What the block has done since then may have overlapped with the next holder."""


# -- payloads and results ------------------------------------------------------------------------------------


class PayloadError(TaskRunnerError, ValueError):
    """Arguments or a result can't be serialised, or don't fit the task's signature. Nothing was written."""


class PayloadTooLarge(PayloadError):
    """Arguments or a result are bigger than ``max_payload``."""


class JobError(TaskRunnerError):
    """What waiting for a job can come to, other than its result."""


class JobFailed(JobError):
    """The job failed for good.

    ``error_type`` is the class name of the last error, ``message`` its text, ``traceback`` its formatted traceback
    (shortened, may be empty), ``attempts`` the number of runs, ``reason`` why there was no further one. ``job_id`` is
    set when a workflow has failed: which of its jobs was the first.
    """

    def __init__(
        self,
        error_type: str,
        message: str,
        traceback: str = "",
        attempts: int = 1,
        reason: str = "",
        job_id: str = "",
    ) -> None:
        text = f"{error_type}: {message}" if message else error_type
        super().__init__(f"job {job_id}: {text}" if job_id else text)
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
        self.attempts = attempts
        self.reason = reason
        self.job_id = job_id


class JobCancelled(JobError):
    """The job was cancelled before it could finish."""


class JobExpired(JobError):
    """The job did not start before its ``expires`` and never will."""


class JobNotFound(JobError, LookupError):
    """The job's id is unknown, or it ended longer than its ``result_ttl`` ago."""


class ResultNotKept(JobError):
    """The job was dispatched with ``ignore_result=True``: nobody can ask for its result."""


class ResultTimeout(JobError, TimeoutError):
    """The job has not ended within the time given; it goes on."""


class JobTimeout(TaskRunnerError, TimeoutError):
    """A run took longer than the task's ``timeout`` and was cancelled; it counts as a failure."""


class ProcessCrashed(TaskRunnerError):
    """The process that ran a job with ``pool="process"`` died before it had an answer; counts as a failure of that
    job."""


# -- local tasks ---------------------------------------------------------------------------------------------


class TaskTimeout(TaskRunnerError, TimeoutError):
    """A local task took longer than its ``max_duration`` and was cancelled; it counts as a failure. Or it, or all those
    of a pool, took longer than the caller was to wait; then they go on."""


class TaskCancelled(TaskRunnerError):
    """A local task was cancelled, by ``cancel()``, by its pool, or because the event loop ended. ``__cause__`` is what
    its function raised then."""


class RetriesExceeded(TaskRunnerError):
    """A local task failed, and so did all of its retries. ``__cause__`` is the last error, ``attempts`` how often its
    function was called."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message, attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return str(self.args[0])


class PoolStopped(TaskRunnerError):
    """A worker pool takes no more tasks, and has not taken this one.

    ``submitted``: with ``submit_batch``, the tasks before it, which were submitted and go on.
    """

    submitted: Sequence[Any] = ()


# -- what a task raises to say what happens next -------------------------------------------------------------


class Signal(TaskRunnerError):
    """Raised inside a task to say what happens next; not a failure by itself."""


class Retry(Signal):
    """Run this job again, as after an error: it spends an attempt, and fails when none is left.

    ``delay`` in seconds (or a timedelta) replaces the task's backoff; ``Retry(0)`` runs again at once.
    """

    def __init__(self, delay: float | timedelta | None = None, reason: str = "the task asked for a retry") -> None:
        super().__init__(reason)
        self.delay = delay

    def __reduce__(self) -> tuple[type[Retry], tuple[float | timedelta | None, str]]:
        return type(self), (self.delay, str(self))


class Snooze(Signal):
    """Run this job again after ``delay`` seconds (or a timedelta); this run spends no attempt."""

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__(f"snoozed for {delay}")
        self.delay = delay

    def __reduce__(self) -> tuple[type[Snooze], tuple[float | timedelta]]:
        return type(self), (self.delay,)


class GiveUp(Signal):
    """Fail this job for good, whatever attempts are left."""

    def __init__(self, reason: str = "the task gave up") -> None:
        super().__init__(reason)
        self.reason = reason

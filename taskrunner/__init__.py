"""taskrunner: background jobs for asyncio on Redis Streams."""

from .backoff import Backoff
from .context import JobContext, current_job
from .dead_letters import FailedJob
from .errors import (
    AlreadyStarted,
    DispatchUncertain,
    DuplicateTask,
    EmbeddedServerError,
    GiveUp,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LimitReached,
    NotFound,
    NotInJob,
    PayloadError,
    PayloadTooLarge,
    ProcessCrashed,
    QueueBusy,
    QueueConflict,
    QueueFull,
    RedisConfigurationError,
    RedisError,
    RedisUnavailable,
    ResultNotKept,
    ResultTimeout,
    Retry,
    ScheduleError,
    ScheduleExists,
    SlotLost,
    Snooze,
    TaskOptionError,
    TaskRunnerError,
    UniqueConflict,
    UnknownTask,
    UsageError,
)
from .forecast import QueueStats, TaskStats
from .hooks import JobEvent
from .job import Job, JobInfo, JobStatus
from .limiter import Holder, Limiter
from .limits import Limit, Rate
from .middleware import CallNext
from .runner import TaskRunner
from .schedule import Schedule
from .slot import Slot
from .task import JobSpec, Task

__version__ = "0.1.0"

__all__ = [
    "AlreadyStarted",
    "Backoff",
    "CallNext",
    "DispatchUncertain",
    "DuplicateTask",
    "EmbeddedServerError",
    "FailedJob",
    "GiveUp",
    "Holder",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "JobSpec",
    "JobStatus",
    "JobTimeout",
    "Limit",
    "LimitReached",
    "Limiter",
    "NotFound",
    "NotInJob",
    "PayloadError",
    "PayloadTooLarge",
    "ProcessCrashed",
    "QueueBusy",
    "QueueConflict",
    "QueueFull",
    "QueueStats",
    "Rate",
    "RedisConfigurationError",
    "RedisError",
    "RedisUnavailable",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleError",
    "ScheduleExists",
    "Slot",
    "SlotLost",
    "Snooze",
    "Task",
    "TaskOptionError",
    "TaskRunner",
    "TaskRunnerError",
    "TaskStats",
    "UniqueConflict",
    "UnknownTask",
    "UsageError",
    "__version__",
    "current_job",
]

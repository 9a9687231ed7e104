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
    NotInJob,
    PayloadError,
    PayloadTooLarge,
    QueueFull,
    RedisConfigurationError,
    RedisError,
    RedisUnavailable,
    ResultNotKept,
    ResultTimeout,
    Retry,
    Snooze,
    TaskOptionError,
    TaskRunnerError,
    UnknownTask,
    UsageError,
)
from .forecast import QueueStats, TaskStats
from .hooks import JobEvent
from .job import Job, JobInfo, JobStatus
from .runner import TaskRunner
from .task import JobSpec, Task

__version__ = "0.1.0"

__all__ = [
    "AlreadyStarted",
    "Backoff",
    "DispatchUncertain",
    "DuplicateTask",
    "EmbeddedServerError",
    "FailedJob",
    "GiveUp",
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
    "NotInJob",
    "PayloadError",
    "PayloadTooLarge",
    "QueueFull",
    "QueueStats",
    "RedisConfigurationError",
    "RedisError",
    "RedisUnavailable",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "Snooze",
    "Task",
    "TaskOptionError",
    "TaskRunner",
    "TaskRunnerError",
    "TaskStats",
    "UnknownTask",
    "UsageError",
    "__version__",
    "current_job",
]

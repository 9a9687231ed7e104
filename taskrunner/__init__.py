"""taskrunner: background jobs for asyncio on Redis Streams."""

from .assembly import chain, group
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
    WorkflowError,
)
from .forecast import QueueStats, TaskStats
from .hooks import JobEvent
from .job import Job, JobInfo, JobStatus, JobUpdate
from .limiter import Holder, Limiter
from .limits import Limit, Rate
from .middleware import CallNext
from .progress import JobProgress
from .runner import TaskRunner
from .schedule import Schedule
from .slot import Slot
from .task import JobSpec, Task
from .workflow import Chain, Graph, GraphNode, Group
from .workflow_job import ChainJob, GraphJob, GroupJob
from .workflow_state import ChainInfo, GraphInfo, GroupInfo

__version__ = "0.1.0"

__all__ = [
    "AlreadyStarted",
    "Backoff",
    "CallNext",
    "Chain",
    "ChainInfo",
    "ChainJob",
    "DispatchUncertain",
    "DuplicateTask",
    "EmbeddedServerError",
    "FailedJob",
    "GiveUp",
    "Graph",
    "GraphInfo",
    "GraphJob",
    "GraphNode",
    "Group",
    "GroupInfo",
    "GroupJob",
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
    "JobProgress",
    "JobSpec",
    "JobStatus",
    "JobTimeout",
    "JobUpdate",
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
    "WorkflowError",
    "__version__",
    "chain",
    "current_job",
    "group",
]

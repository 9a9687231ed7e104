"""Tasks and worker pools inside one process, without Redis: for work that may end with the process.

from taskrunner.local import WorkerPool

async with WorkerPool(10) as pool:
    task = await pool.submit(fetch, url, max_retries=2)
    page = await task
"""

from ..errors import PoolStopped, RetriesExceeded, TaskCancelled, TaskInProgress, TaskTimeout
from .hooks import StateHooks
from .pool import WorkerPool
from .semaphore import Semaphore
from .state import TaskState
from .stats import PoolStats
from .task import LocalTask, current_task

__all__ = [
    "LocalTask",
    "PoolStats",
    "PoolStopped",
    "RetriesExceeded",
    "Semaphore",
    "StateHooks",
    "TaskCancelled",
    "TaskInProgress",
    "TaskState",
    "TaskTimeout",
    "WorkerPool",
    "current_task",
]

"""TaskState: what a local task is doing."""

from __future__ import annotations

from enum import IntEnum


class TaskState(IntEnum):
    """What a local task is doing. It moves only so::

        CREATED ──> PENDING ──> STARTED ──> DONE, FAILED or CANCELED
                    │     ^        │
                    │     └────────┘ another attempt
                    └──> CANCELED

    and from DONE, FAILED and CANCELED to PENDING, when it is started again.
    """

    CREATED = 0
    """It was not started yet."""
    PENDING = 1
    """It waits for its delay, for its next attempt, or for its turn in the event loop."""
    STARTED = 2
    """Its function runs."""
    DONE = 3
    """Its function has returned."""
    FAILED = 4
    """Its function has raised an error, or was cancelled because it took too long, and there is no further attempt."""
    CANCELED = 5
    """It was cancelled, and its function, if it had begun, has ended."""

    def __str__(self) -> str:
        """Its name, for messages and logs, as with a ``JobStatus``: "pending"."""
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

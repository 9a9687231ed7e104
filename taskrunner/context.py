"""JobContext: what a task can know about the job that it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .envelope import Delivery, Extra
from .errors import NotInJob

_log = logging.getLogger("taskrunner.job")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for every run of a task in one process."""

    runner: Any
    state: Any
    max_retry: int


class JobContext:
    """The running job, as its task sees it. A task whose first parameter is annotated with this class gets one.

    ``job_id``, ``task``, ``queue``; ``attempt`` (1 = first run) of ``max_retry`` + 1; ``deliveries``, how often the job
    was handed to a worker since its last attempt began; ``state`` as given to the runner; ``runner`` itself.
    """

    __slots__ = ("_delivery", "_started", "_surroundings")

    def __init__(self, delivery: Delivery, surroundings: Surroundings) -> None:
        self._delivery = delivery
        self._surroundings = surroundings
        self._started = time.time()

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
        return self._delivery.queue

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
        """A number that grows with every delivery of this job, for "write only if newer" in a database. 63 bits.

        Made of the entry's id (server milliseconds, sequence) and the delivery count.
        """
        milliseconds, _, sequence = self._delivery.entry_id.partition(b"-")
        return int(milliseconds) << 22 | min(int(sequence), 0x3FFF) << 8 | min(self._delivery.deliveries, 0xFF)

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

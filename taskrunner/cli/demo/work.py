"""The jobs: this is what an application's own module looks like. ``taskrunner run`` could run it just as well."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ... import JobContext, QueueStats, TaskRunner
from .counting import Count, count_by_line

LONG, SHORT = 1.0, 0.3
"""Seconds of drain time over which the queue counts as long, and at which it does no more."""
RESERVATION = 2.0
"""Seconds; short, so that nobody has to wait for the killed worker's jobs as long as by default (30 s)."""

runner = TaskRunner(
    "embedded://",
    namespace="demo",
    queue="files",
    num_workers=8,
    reservation_timeout=RESERVATION,
    consumers_prefix=f"worker-{os.getpid()}",  # so that the demo can tell which process holds a job
)


@dataclass(frozen=True, slots=True)
class Report:
    """A job's result: the count, the process that made it, and how often the job had been given to one by then."""

    count: Count
    pid: int
    deliveries: int


@runner.task
def count_file(ctx: JobContext, path: str) -> Report:
    """Counts one file. A plain function runs in a thread, so the event loop stays free."""
    return Report(count_by_line(path), os.getpid(), ctx.deliveries)


@runner.on_long_queue(threshold=LONG, clear=SHORT, cooldown=3600)
def report_long_queue(stats: QueueStats) -> None:
    """Runs in whichever worker leads; the demo reads what workers print. An application would call for help here."""
    news = {"is_long": stats.is_long, "waiting": stats.waiting, "drain_time": stats.drain_time}
    print(json.dumps({"long_queue": news}), flush=True)

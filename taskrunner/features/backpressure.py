"""Backpressure: a job that would wait too long is not dispatched at all.

    await resize.with_options(max_wait=60).dispatch("cat.png")     # QueueBusy when the queue is 5 minutes behind

``max_wait`` (seconds) is compared with the forecast of the job's queue, ``stats().drain_time`` over all its priorities,
before anything is sent: over it the dispatch raises ``QueueBusy``, with the forecast as ``eta`` (``inf`` when jobs wait
and nobody consumes), and nothing is written. It is a forecast and no promise: it is up to 0.1 s old, counts what is
ready and not what is due later, and dispatches of the same instant don't see each other. An empty queue always accepts.
Schedules and jobs that follow another one are not asked.
"""

from __future__ import annotations

from ..feature import Feature, Option
from ..options import seconds_or_none


class Backpressure(Feature):
    """See the module's docstring. The forecast is asked for by the session's ``Admission``."""

    options = {"max_wait": Option(None, seconds_or_none)}

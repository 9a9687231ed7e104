"""Timeouts: how long one run may take, and how long a worker may hold a job without a heartbeat.

    @runner.task(timeout=30, reservation_timeout=120)
    async def report(day: str) -> None: ...

A run over ``timeout`` is cancelled and counts as a failure with ``JobTimeout``. One that goes on all the same, as a
thread does, keeps its slot until it returns, and is told of in the log as stuck. ``reservation_timeout`` replaces the
runner's for this task: a job whose worker fell silent is taken by another one after that many seconds.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from ..envelope import Delivery, Draft, Extra
from ..errors import JobTimeout
from ..feature import Arguments, Call, Feature, Fill, Option
from ..options import Options, seconds_or_none
from ..template import Parameters

log = logging.getLogger("taskrunner.worker")

STUCK = 5.0
"""Seconds that a run may take to end after its timeout before it is called stuck: longer than cleaning up takes."""


class Timeouts(Feature):
    """See the module's docstring."""

    options = {
        "timeout": Option(None, partial(seconds_or_none, zero=False), travels=True),
        "reservation_timeout": Option(None, partial(seconds_or_none, zero=False), on_dispatch=False),
    }

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        if options["reservation_timeout"] is None:
            return None
        milliseconds = max(1, round(options["reservation_timeout"] * 1000))

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            draft.envelope.extras[Extra.RESERVATION] = milliseconds

        return fill

    def around(self, options: Options, call: Call) -> Call:
        limit: float | None = options["timeout"]
        if limit is None:
            return call

        async def limited(delivery: Delivery) -> Any:
            late = asyncio.timeout(limit)
            loop = asyncio.get_running_loop()
            mark = loop.call_later(limit, _mark, delivery)
            alarm = loop.call_later(limit + STUCK, _tell_stuck, delivery, limit)
            try:
                async with late:
                    result = await call(delivery)
            except TimeoutError:
                # A TimeoutError of the task's own is its business; only ours becomes JobTimeout.
                if late.expired():
                    raise JobTimeout(f"the run took longer than its timeout of {limit:g} s and was cancelled") from None
                raise
            finally:
                mark.cancel()
                alarm.cancel()
            if late.expired():
                raise JobTimeout(f"the run took longer than its timeout of {limit:g} s and would not be cancelled")
            return result

        return limited


def _mark(delivery: Delivery) -> None:
    delivery.cancelled = True


def _tell_stuck(delivery: Delivery, limit: float) -> None:
    log.error(
        "job %s of task %r is stuck: it was cancelled after its timeout of %g s and still runs; it keeps its slot",
        delivery.envelope.id,
        delivery.envelope.task,
        limit,
    )

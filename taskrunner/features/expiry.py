"""Expiry: a job that has not started in time never will.

    await alarm.with_options(expires=60).dispatch("door 3")

``expires`` is seconds after the dispatch, in a workflow after the job's turn has come; or an aware datetime. The job
ends as ``expired``; waiting for it raises ``JobExpired``. A job that has started is never cut short by this; retries
are held to the same instant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..envelope import Delivery, Draft, Extra
from ..feature import Arguments, Feature, Fill, Gate, Option
from ..options import Options, instant, seconds
from ..outcome import Expired, Outcome
from ..template import Parameters


def _expires(value: Any, what: str) -> float | datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        instant(value, what)
        return value
    return seconds(value, what, zero=False)


class Expiry(Feature):
    """See the module's docstring."""

    options = {"expires": Option(None, _expires)}

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        limit: float | datetime | None = options["expires"]
        if limit is None:
            return None

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            if isinstance(limit, datetime):
                draft.envelope.extras[Extra.EXPIRES] = instant(limit, "expires")
            else:
                draft.lasts = round(limit * 1000)
                draft.envelope.extras[Extra.EXPIRES] = now + draft.lasts

        return fill

    def gate(self, options: Options) -> Gate | None:
        # The instant travels in the envelope, so the gate is there for every task: a dispatch may set it for any.
        return _late


def _late(delivery: Delivery, now: int) -> Outcome | None:
    extras = delivery.envelope.extras
    limit = extras.get(Extra.EXPIRES)
    if limit is None and Extra.LASTS in extras:
        limit = delivery.envelope.enqueued_at + extras[Extra.LASTS]
    return Expired() if limit is not None and now >= limit else None

"""Limits: never more than N jobs at once, never more than R starts in a time, over the whole fleet.

    @runner.task(limit=Limit(3), rate_limit=Rate(100, per=60))
    async def ask(question: str) -> str: ...

A job that must wait for others of its limit is "blocked", one that must wait for a permit of its rate "scheduled";
neither takes a slot of a worker, and nobody asks again and again. A job may have a lock key, a limit and a rate: it
takes all of them in one step, when it is about to run, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..envelope import Draft, Extra
from ..errors import TaskOptionError
from ..feature import Arguments, Feature, Fill, Option
from ..limits import Limit, Rate
from ..needs import Permit, Seat, digest, with_need
from ..options import Options
from ..template import Parameters, key_of


def _limit(value: Any, what: str) -> Limit | None:
    if value is not None and not isinstance(value, Limit):
        raise TaskOptionError(f"{what} must be a Limit, like Limit(10, key='tenant:{{tenant}}'), not {value!r}")
    return value


def _rate(value: Any, what: str) -> Rate | None:
    if value is not None and not isinstance(value, Rate):
        raise TaskOptionError(f"{what} must be a Rate, like Rate(100, per=60), not {value!r}")
    return value


class Limits(Feature):
    """See the module's docstring."""

    options = {
        "limit": Option(None, _limit, on_dispatch=False),
        "rate_limit": Option(None, _rate, on_dispatch=False),
    }

    def keyed(self, options: Options) -> tuple[str, ...]:
        return tuple(name for name in self.options if options[name] is not None)

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        limit: Limit | None = options["limit"]
        rate: Rate | None = options["rate_limit"]
        makers = list[Callable[[Arguments], Seat | Permit]]()
        if limit is not None:
            count, limited = limit.count, _named("limit", limit.key, task, parameters)
            makers.append(lambda arguments: Seat(limited(arguments), count))
        if rate is not None:
            interval, burst, rated = rate.interval, rate.capacity, _named("rate", rate.key, task, parameters)
            makers.append(lambda arguments: Permit(rated(arguments), interval, burst))
        if not makers:
            return None

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            extras = draft.envelope.extras
            for make in makers:
                extras[Extra.NEEDS] = with_need(extras.get(Extra.NEEDS, ""), make(arguments))

        return fill


def _named(kind: str, key: Any, task: str, parameters: Parameters | None) -> Callable[[Arguments], str]:
    """The digest of the limit or rate that a job falls under."""
    if key is None:
        own = digest(f"{kind} of task", task)
        return lambda arguments: own
    text = key_of(key, f"the {kind} key of task {task!r}", parameters)
    return lambda arguments: digest(kind, text(arguments.args, arguments.kwargs))

"""Priority: which jobs of a queue start first.

    @runner.task(priority="low")
    async def reindex(day: str) -> None: ...

    await reindex.with_options(priority="high").dispatch("2026-11-23")

``"high"``, ``"normal"`` (the default) or ``"low"``. Of ten jobs that a worker takes from a queue while all three wait,
seven are high, two normal and one is low: low ones start late, and never starve. A job keeps its priority through
retries. The plan makes the name of the job's lane of it.
"""

from __future__ import annotations

from typing import Any

from ..errors import TaskOptionError
from ..feature import Feature, Option
from ..priority import PRIORITIES


def _priority(value: Any, what: str) -> str:
    if not isinstance(value, str) or value not in PRIORITIES:
        raise TaskOptionError(f"{what} must be one of {', '.join(map(repr, PRIORITIES))}, not {value!r}")
    return value


class Priority(Feature):
    """See the module's docstring."""

    options = {"priority": Option("normal", _priority)}

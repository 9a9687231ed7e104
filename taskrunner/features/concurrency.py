"""Concurrency: how many jobs of a queue run at once in one process.

    @runner.task(queue="reports", concurrency=2)
    async def report(day: str) -> None: ...

It belongs to the *queue*, with all its priorities and all its tasks, beside the runner's ``num_workers``. The first
task that names it fixes it; others inherit it, or name the same number. The registry compares, and raises
``QueueConflict``.
"""

from __future__ import annotations

from typing import Any

from ..feature import Feature, Option
from ..options import whole


def _concurrency(value: Any, what: str) -> int | None:
    return None if value is None else whole(value, what, 1)


class Concurrency(Feature):
    """See the module's docstring."""

    options = {"concurrency": Option(None, _concurrency, on_dispatch=False)}

"""How far jobs are: one key for each job that has told it."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any

import orjson

from ..envelope import Delivery
from .keys import PartitionKeys
from .links import Link
from .saved import LIFETIME
from .scripts import PROGRESS

Report = tuple[float, float | None, str | None]
"""How much is done, of how much, and a text."""


async def write(
    link: Link, partition: PartitionKeys, group: str, worker_id: str, reports: Sequence[tuple[Delivery, Report]]
) -> None:
    """Keeps up to 200 reports in the places of those before, and tells whoever watches these jobs. May be sent twice.
    Of a run that has lost its job nothing is kept. Raises RedisError."""
    keys = [partition.watchers]
    arguments: list[Any] = [group, worker_id, LIFETIME]
    for delivery, report in reports:
        id = delivery.envelope.id
        keys += (partition.progress(id), partition.queue(delivery.queue).stream)
        arguments += (delivery.entry_id, delivery.deliveries, id, notice(id), orjson.dumps(report))
    await link.run(PROGRESS, keys, arguments)


def notice(id: str) -> str:
    """What those hear who watch a job; another word than that of its end, which wakes all who wait for its result."""
    return f"progress {id}"


def read(data: bytes | None) -> tuple[Report, int] | None:
    """What is kept, and when it was written in ms; None for nothing, and for what is nothing of ours."""
    instant, _, text = (data or b"").partition(b" ")
    try:
        done, total, message = orjson.loads(text)
        at = int(instant)
    except (ValueError, TypeError):
        return None
    numbers = isinstance(done, (int, float)) and isinstance(total, (int, float, NoneType))
    return ((done, total, message), at) if numbers and isinstance(message, (str, NoneType)) else None

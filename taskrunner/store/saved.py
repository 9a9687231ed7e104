"""Interim values of jobs: one key for each job that saved one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..envelope import Delivery
from .keys import PartitionKeys
from .links import Link
from .scripts import SAVE

LIFETIME = 7 * 86_400
"""Seconds that a value is kept after it was saved, while its job lives: through any backoff, and not for ever, since
nobody is told of the end of a job that was lost."""


async def save(
    link: Link, partition: PartitionKeys, group: str, worker_id: str, delivery: Delivery, data: bytes
) -> bool:
    """Keeps a value in the place of the one before. May be sent twice. False when the job is not that run's any more:
    then nothing is kept."""
    keys = [partition.saved(delivery.envelope.id), partition.queue(delivery.queue).stream]
    arguments = [group, worker_id, delivery.entry_id, delivery.deliveries, LIFETIME, data]
    return bool(await link.run(SAVE, keys, arguments))


async def read(link: Link, partition: PartitionKeys, id: str) -> bytes | None:
    """The value, or None."""
    data: bytes | None = await link.call(b"GET", partition.saved(id))
    return data


async def read_all(link: Link, partition: PartitionKeys, id: str) -> tuple[bytes | None, bytes | None]:
    """The value, and how far the job is as ``progress.read`` takes it; in one round trip. Raises RedisError."""
    value, told = await link.ask([(b"GET", partition.saved(id)), (b"GET", partition.progress(id))])
    return value, told


async def expire(link: Link, partition: PartitionKeys, ended: Iterable[tuple[str, int]]) -> None:
    """The values of jobs that have ended live as long as their outcomes, and so does their progress: id, milliseconds.
    Raises RedisError."""
    commands: list[Any] = []
    for id, milliseconds in ended:
        commands += ((b"PEXPIRE", key, milliseconds) for key in (partition.saved(id), partition.progress(id)))
    await link.ask(commands)

"""Settings of a runner, checked once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .durability import Durability, DurabilityName
from .durability import durability as checked_durability
from .errors import TaskOptionError
from .forecast import QueueStats
from .options import Seconds, name, seconds, seconds_or_none, truth, whole
from .payload import JSON, Serializer


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``TaskRunner(...)`` was given, checked. Durations in seconds."""

    namespace: str
    queue: str
    consumer_group: str
    consumers_prefix: str
    num_workers: int
    batch_size: int
    reservation_timeout: float
    replication_factor: int | None
    long_queue_threshold: float
    long_queue_hook: Callable[[QueueStats], Awaitable[None] | None] | None
    failed_task_handler: Callable[[Any], Awaitable[None] | None] | None
    result_ttl: float
    shutdown_timeout: float
    max_deliveries: int
    max_dead_letters: int | None
    dead_letter_ttl: float | None
    max_payload: int
    partitions: int
    delete_on_ack: bool
    serializer: Serializer
    key_prefix: str
    durability: Durability
    prune_schedules: bool

    @property
    def beat(self) -> float:
        """Seconds between heartbeats: a quarter of the reservation, so that three may be lost."""
        return self.reservation_timeout / 4

    @property
    def max_loop_block(self) -> float:
        """Seconds of a blocked event loop after which a worker must lose its jobs."""
        return self.reservation_timeout * 4


def check(
    *,
    namespace: str,
    queue: str,
    consumer_group: str,
    consumers_prefix: str,
    num_workers: int,
    batch_size: int,
    reservation_timeout: Seconds,
    replication_factor: int | None,
    long_queue_threshold: Seconds,
    long_queue_hook: Any,
    failed_task_handler: Any,
    result_ttl: Seconds,
    shutdown_timeout: Seconds,
    max_deliveries: int,
    max_dead_letters: int | None,
    dead_letter_ttl: Seconds | None,
    max_payload: int,
    partitions: int,
    delete_on_ack: bool,
    serializer: Serializer | None,
    key_prefix: str,
    durability: DurabilityName,
    prune_schedules: bool,
) -> Settings:
    """Settings, or a TaskOptionError that names the wrong one."""
    for what, hook in (("long_queue_hook", long_queue_hook), ("failed_task_handler", failed_task_handler)):
        if hook is not None and not callable(hook):
            raise TaskOptionError(f"{what} must be a function, not {hook!r}")
    if serializer is not None and not (hasattr(serializer, "dumps") and hasattr(serializer, "loads")):
        raise TaskOptionError(f"serializer must have dumps and loads, {serializer!r} has not")
    reservation = seconds(reservation_timeout, "reservation_timeout")
    if reservation < 0.1:
        raise TaskOptionError(f"reservation_timeout must be at least 0.1 s, not {reservation_timeout!r}")
    return Settings(
        namespace=name(namespace, "namespace"),
        queue=name(queue, "queue"),
        consumer_group=name(consumer_group, "consumer_group"),
        consumers_prefix=name(consumers_prefix, "consumers_prefix"),
        num_workers=whole(num_workers, "num_workers", 1),
        batch_size=whole(batch_size, "batch_size", 1),
        reservation_timeout=reservation,
        replication_factor=None if replication_factor is None else whole(replication_factor, "replication_factor", 1),
        long_queue_threshold=seconds(long_queue_threshold, "long_queue_threshold"),
        long_queue_hook=long_queue_hook,
        failed_task_handler=failed_task_handler,
        result_ttl=seconds(result_ttl, "result_ttl", zero=False),
        shutdown_timeout=seconds(shutdown_timeout, "shutdown_timeout"),
        max_deliveries=whole(max_deliveries, "max_deliveries", 1),
        max_dead_letters=None if max_dead_letters is None else whole(max_dead_letters, "max_dead_letters", 1),
        dead_letter_ttl=seconds_or_none(dead_letter_ttl, "dead_letter_ttl", zero=False),
        max_payload=whole(max_payload, "max_payload", 1),
        partitions=whole(partitions, "partitions", 1),
        delete_on_ack=truth(delete_on_ack, "delete_on_ack"),
        serializer=JSON() if serializer is None else serializer,
        key_prefix=name(key_prefix, "key_prefix"),
        durability=checked_durability(durability, "durability"),
        prune_schedules=truth(prune_schedules, "prune_schedules"),
    )

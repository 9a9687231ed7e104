"""Heartbeats, over a blocking connection, for a thread of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ..envelope import Arrival
from .clock import ServerClock
from .deployment import Deployment
from .keys import Keyspace, PartitionKeys
from .links import BlockingLink
from .scripts import BEAT
from .store import BATCH, StoreOptions


class Heart:
    """Renews what a worker holds. Used by one thread; shares nothing with the event loop but what is passed in."""

    def __init__(self, deployment: Deployment, keyspace: Keyspace, options: StoreOptions, clock: ServerClock) -> None:
        # A beat that hangs must fail while there is still time for another one.
        timeout = max(0.25, options.reservation / 8)
        self._links = [BlockingLink(deployment, one.prefix, timeout) for one in keyspace.partitions]
        self._keyspace = keyspace
        self._options = options
        self._clock = clock

    def beat(self, held: Sequence[Arrival], facts: dict[str, Any]) -> list[Arrival]:
        """Renews these deliveries and the worker's place in the registry. Returns those that it doesn't hold any more.

        Raises RedisError; whatever was renewed before stays renewed.
        """
        lost: list[Arrival] = []
        for partition in self._keyspace.partitions:
            ours = [delivery for delivery in held if delivery.partition == partition.number]
            for start in range(0, max(len(ours), 1), BATCH):
                lost += self._beat(partition, ours[start : start + BATCH], orjson.dumps(facts))
        return lost

    def _beat(self, partition: PartitionKeys, held: Sequence[Arrival], facts: bytes) -> list[Arrival]:
        options = self._options
        names = list(dict.fromkeys(delivery.queue for delivery in held))
        keys = [partition.workers, partition.worker_facts, partition.janitor]
        reservation = round(options.reservation * 1000)
        arguments: list[Any] = [options.group, options.worker_id, 2 * reservation, facts]
        arguments += (reservation, round(options.beat * 1000))
        for name in names:
            keys.append(partition.queue(name).stream)
            ours = [delivery for delivery in held if delivery.queue == name]
            arguments.append(len(ours))
            for delivery in ours:
                arguments += (delivery.entry_id, delivery.deliveries)
        now, *lost = self._links[partition.number].run(BEAT, keys, arguments)
        self._clock.learn(now)
        # After a worker has taken over its own job (its loop was blocked) it holds both: the lost one is the older one.
        older_last = sorted(held, key=lambda delivery: -delivery.deliveries)
        known = {(delivery.queue, delivery.entry_id): delivery for delivery in older_last}
        return [known[names[lost[n]], lost[n + 1]] for n in range(0, len(lost), 2)]

    def close(self) -> None:
        for link in self._links:
            link.close()

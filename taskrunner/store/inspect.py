"""Reads for people: what is known of a job, the figures of a queue. Nothing here changes anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from .. import forecast
from ..envelope import Delivery, Envelope
from ..forecast import Capacity, QueueStats, TaskStats
from ..priority import lanes, queue_of
from . import wire
from .keys import Keyspace, PartitionKeys
from .links import Link
from .listing import Listing
from .scripts import LOOK, OBSERVE, STATS, WATCH

WAITING = {b"s": "scheduled", b"r": "retrying", b"b": "blocked"}
"""States of live records of jobs that are not in the stream."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a job that has not ended. ``state`` is a JobStatus value; instants are server time in ms."""

    state: str
    queue: str
    due: int
    worker: str
    deliveries: int
    envelope: Envelope | None


@dataclass(slots=True)
class Counts:
    """The figures of one lane in one partition, as the server keeps them. ``paused`` and ``workers`` are facts of its
    queue and of the partition."""

    now: int
    entries: int
    pending: int
    scheduled: int
    dead: int
    oldest: int
    unsettled: dict[str, int]
    runs: dict[str, dict[str, Any]]
    rates: dict[str, str]
    workers: list[dict[str, Any]]
    kept: int
    paused: bool = False
    blocked: int = 0

    @property
    def waiting(self) -> int:
        return max(0, self.entries - self.pending - self.kept)


class Inspection:
    """Reads over one link per partition."""

    def __init__(self, links: Sequence[Link], keyspace: Keyspace, group: str) -> None:
        self._links = links
        self._keyspace = keyspace
        self._group = group
        self.listing = Listing(links, keyspace, group)

    # -- one job ---------------------------------------------------------------------------------------------

    async def look(self, partition: PartitionKeys, id: str) -> wire.Ended | Sight | None:
        """What is known of a job: its outcome, or where it stands, or None."""
        keys = [partition.job(id), partition.live]
        reply = await self._links[partition.number].run(LOOK, keys, [id, self._group, partition.prefix])
        return _seen(reply, partition) if reply else None

    async def observe(
        self, partition: PartitionKeys, id: str, channel: str
    ) -> tuple[wire.Ended | Sight, bytes | None] | None:
        """What is known of a job, and how far it is as ``progress.read`` takes it; None when it is unknown. While it
        lives, the channel will hear of its end and of each report."""
        keys = [partition.job(id), partition.live, partition.watchers, partition.progress(id)]
        arguments = [id, self._group, partition.prefix, channel]
        reply = await self._links[partition.number].run(OBSERVE, keys, arguments)
        return (_seen(reply[1:], partition), reply[0] or None) if reply else None

    async def find(self, id: str, partition: int | None = None) -> tuple[PartitionKeys, wire.Ended | Sight] | None:
        """The same when the partition may be unknown: a unique job's is that of its key, which an id doesn't tell."""
        partitions = self._keyspace.partitions
        for one in partitions if partition is None else (partitions[partition],):
            seen = await self.look(one, id)
            if seen is not None:
                return one, seen
        return None

    async def watch(self, partition: PartitionKeys, id: str, channel: str) -> wire.Ended | bool:
        """The outcome of a job; or True: the channel will hear of it; or False: it is unknown."""
        keys = [partition.job(id), partition.live, partition.watchers]
        reply = await self._links[partition.number].run(WATCH, keys, [id, channel])
        return wire.read_record(reply) if isinstance(reply, bytes) else bool(reply)

    # -- queues ----------------------------------------------------------------------------------------------

    async def lanes(self) -> list[str]:
        """The names of all lanes that jobs were ever dispatched to, or that a worker ever read."""
        names = set[bytes]()
        for partition in self._keyspace.partitions:
            names.update(await self._links[partition.number].call(b"SMEMBERS", partition.queues))
        return sorted(name.decode() for name in names)

    async def queues(self) -> list[str]:
        """The names of the queues that these belong to."""
        return sorted({queue_of(lane) for lane in await self.lanes()})

    async def counts(self, partition: PartitionKeys, lane: str) -> Counts:
        """The figures of one lane."""
        [counts] = await self._counts(partition, queue_of(lane), (lane,))
        return counts

    async def _counts(self, partition: PartitionKeys, queue: str, lanes: Sequence[str]) -> list[Counts]:
        """Those of several lanes of one queue, of one instant."""
        keys = [partition.workers, partition.worker_facts, partition.paused]
        for lane in lanes:
            names = partition.queue(lane)
            keys += [names.stream, names.due, names.dead, names.waiting, names.runs, names.rates, names.tallies]
        now, paused, facts, *rows = await self._links[partition.number].run(STATS, keys, [self._group, queue])
        workers = [orjson.loads(text) for text in facts]
        return [_counts_of(now, row, workers, paused == b"1") for row in rows]

    async def stats(self, queue: str, replication_factor: int | None) -> QueueStats:
        """The figures of a queue, over its lanes and all partitions."""
        return summarise(queue, await self._counts_everywhere(queue, lanes(queue)), replication_factor)

    async def stats_of_all(self, replication_factor: int | None) -> QueueStats:
        """The figures of all queues together, under the name ``*``."""
        counts: list[Counts] = []
        for queue, there in groupby(sorted(await self.lanes(), key=queue_of), queue_of):
            counts += await self._counts_everywhere(queue, list(there))
        return summarise("*", counts, replication_factor)

    async def _counts_everywhere(self, queue: str, lanes: Sequence[str]) -> list[Counts]:
        return [
            counts for partition in self._keyspace.partitions for counts in await self._counts(partition, queue, lanes)
        ]


def _seen(reply: list[Any], partition: PartitionKeys) -> wire.Ended | Sight:
    kind = reply[0]
    if kind == b"ended":
        return wire.read_record(reply[1])
    if kind == b"waiting":
        waiting = wire.arrive(b"", [wire.VERSION, reply[4]], 0, "", partition.number, 0.0)
        envelope = waiting.envelope if isinstance(waiting, Delivery) else None
        state = WAITING.get(reply[1], "scheduled")
        return Sight(state, reply[2].decode(), round(float(reply[3])), "", 0, envelope)
    queue = reply[1].decode()
    arrival = wire.arrive(reply[2], reply[5], reply[4], queue, partition.number, 0.0)
    envelope = arrival.envelope if isinstance(arrival, Delivery) else None
    worker = reply[3].decode()
    return Sight("running" if worker else "queued", queue, 0, worker, reply[4], envelope)


def _counts_of(now: int, row: list[Any], workers: list[dict[str, Any]], paused: bool) -> Counts:
    entries, pending, scheduled, dead, oldest = row[:5]
    unsettled = {task: int(n) for task, n in _pairs(row[5])}
    runs = {task: orjson.loads(text) for task, text in _pairs(row[6])}
    rates = {name: text.decode() for name, text in _pairs(row[7])}
    facts = (unsettled, runs, rates, workers, row[8], paused, row[9])
    return Counts(now, entries, pending, scheduled, dead, oldest, *facts)


def _pairs(flat: list[bytes]) -> Iterable[tuple[str, bytes]]:
    return ((flat[n].decode(), flat[n + 1]) for n in range(0, len(flat), 2))


def summarise(queue: str, counts: list[Counts], replication_factor: int | None) -> QueueStats:
    """The figures of a queue, from those of its lanes in all partitions."""
    now = max((count.now for count in counts), default=0)
    waiting, running = sum(count.waiting for count in counts), sum(count.pending for count in counts)
    runs = _merged(counts)
    run_times = {task: run["sum"] / run["n"] for task, run in runs.items() if run["n"] > 0}
    unsettled: dict[str, int] = {}
    for count in counts:
        for task, n in count.unsettled.items():
            unsettled[task] = unsettled.get(task, 0) + max(n, 0)
    fleet = counts[0].workers if counts else []
    workers = [facts for facts in fleet if queue == "*" or queue in facts.get("queues", ())]
    all_slots = sum(min(facts["slots"], facts.get("caps", {}).get(queue, facts["slots"])) for facts in workers)
    slots = all_slots / len(workers) if workers else 0
    in_hand = max(0, sum(unsettled.values()) - waiting)
    per_task = forecast.still_waiting(unsettled, run_times, in_hand, all_slots)
    average = forecast.mean_run_time(per_task, run_times)
    replicas = replication_factor if replication_factor is not None else len(workers)
    capacity = Capacity(replicas, slots, _measured(counts, "slots"), _loop_time(counts))
    if replication_factor is not None and not workers:
        capacity = Capacity(0, 0, None, 0.0)  # nobody consumes, whatever was configured
    oldest = [count.oldest for count in counts if count.oldest]
    held_up = any(count.paused and count.waiting for count in counts)
    return QueueStats(
        queue=queue,
        waiting=waiting,
        running=running,
        scheduled=sum(count.scheduled for count in counts),
        blocked=sum(count.blocked for count in counts),
        dead=sum(count.dead for count in counts),
        workers=round(slots),
        replicas=replicas,
        avg_run_time=average,
        arrival_rate=sum(forecast.rate(c.rates["arrived"], now) for c in counts if "arrived" in c.rates),
        completion_rate=sum(forecast.rate(c.rates["completed"], now) for c in counts if "completed" in c.rates),
        oldest_wait=max(0.0, (now - min(oldest)) / 1000) if oldest and waiting else 0.0,
        drain_time=math.inf if held_up else forecast.drain_time(waiting, average, capacity),
        per_task={task: _task_stats(per_task.get(task, 0.0), runs.get(task)) for task in {*unsettled, *runs}},
        paused=bool(counts) and all(count.paused for count in counts),
    )


def _task_stats(waiting: float, run: dict[str, Any] | None) -> TaskStats:
    if run is None:
        return TaskStats(round(waiting), 0.0, 0.0, 0, 0, 0)
    average = run["sum"] / run["n"] if run["n"] else 0.0
    p95 = forecast.percentile(run["buckets"], 0.95)
    return TaskStats(round(waiting), average, p95, int(run["ok"]), int(run["failed"]), int(run["retried"]))


def _merged(counts: list[Counts]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for count in counts:
        for task, run in count.runs.items():
            total = merged.setdefault(task, {"ok": 0, "failed": 0, "retried": 0, "n": 0.0, "sum": 0.0, "buckets": {}})
            for name in ("ok", "failed", "retried", "n", "sum"):
                total[name] += run[name]
            for bucket, n in run["buckets"].items():
                total["buckets"][bucket] = total["buckets"].get(bucket, 0.0) + n
    return merged


def _measured(counts: list[Counts], field: str) -> float | None:
    """Amount per busy second, from the decaying sums "time amount" that workers report; None when there are none."""
    sums = [[float(part) for part in count.rates[field].split()] for count in counts if field in count.rates]
    time = sum(one[0] for one in sums)
    return sum(one[1] for one in sums) / time if time > 0 else None


def _loop_time(counts: list[Counts]) -> float:
    jobs_per_microsecond = _measured(counts, "loop")
    return 1 / jobs_per_microsecond / 1e6 if jobs_per_microsecond else 0.0

"""Mends what an examination finds. Each step is a script that looks again before it writes, so workers may go on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..envelope import Delivery
from . import wire
from .examine import Crew, Subject, nodes, read_crew
from .keys import PartitionKeys
from .scripts import LEAVE, RECOUNT
from .store import BATCH, Store
from .survey import Survey, survey

ATTEMPTS = 5
"""Times that the entries of a queue are counted, while they come and go."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many of each were mended. ``busy``: queues whose counts could not be corrected, as entries came and went;
    they are right again when the queue is empty."""

    readded: int = 0
    orphaned: int = 0
    consumers: int = 0
    unique: int = 0
    seats: int = 0
    workflows: int = 0
    counts: int = 0
    busy: tuple[str, ...] = ()


async def repair(subject: Subject) -> Repaired:
    """Ends what can't go on and puts back what would never come, all of it. Touches no job that is sound. Raises
    RedisError."""
    store, done = subject.store, Repaired()
    for partition in store.partitions:
        done = replace(done, consumers=done.consumers + await _remove_consumers(store, partition))
        async for page in store.auditor(partition, uncertain=not subject.certain).whole("mend"):
            readded, orphaned = done.readded + len(page.readded), done.orphaned + len(page.orphaned)
            done = replace(done, readded=readded, orphaned=orphaned)
    known = Survey()
    for partitions in await nodes(store):  # after the audit, which ends the jobs that hold them
        await survey(store.control(partitions[0]), partitions, known, repair=True)
    workflows = set[str]()
    for partition in store.partitions:
        for _ in range(ATTEMPTS):  # one part may have hidden another one
            async for step in store.workflow_auditor(partition).whole("mend"):
                workflows.update(id for _, id in step.damages)
    counts, busy = 0, list[str]()
    for queue in await store.inspection.lanes():
        for partition in store.partitions:
            wrong = await _recount(store, partition, queue)
            if wrong < 0:
                busy.append(queue)
            counts += max(wrong, 0)
    done = replace(done, unique=known.held, seats=known.seats, workflows=len(workflows) + known.unlisted)
    return replace(done, counts=counts, busy=tuple(dict.fromkeys(busy)))


async def _remove_consumers(store: Store, partition: PartitionKeys) -> int:
    """Removes the consumers of workers that are gone and hold nothing."""
    crew, removed = Crew(), 0
    await read_crew(store, partition, crew)
    link = store.control(partition)
    streams = [partition.queue(name.decode()).stream for name in await link.call(b"SMEMBERS", partition.queues)]
    keys = [partition.workers, partition.worker_facts, partition.leader, *streams]
    for name in crew.gone:  # the script keeps those that hold something
        removed += await link.run(LEAVE, keys, [store.options.group, name]) == 0
    return removed


async def _recount(store: Store, partition: PartitionKeys, queue: str) -> int:
    """Corrects the counts of a queue's unsettled jobs. Returns how many were wrong, or -1 if it is too busy."""
    names, link = partition.queue(queue), store.control(partition)
    for _ in range(ATTEMPTS):
        counts = await store.inspection.counts(partition, queue)
        if counts.kept or sum(counts.unsettled.values()) == counts.entries:
            return 0  # of kept entries most are settled, and which they are is written nowhere
        info = await link.call(b"XINFO", b"STREAM", names.stream) if counts.entries else []
        if not info:
            return 0  # the audit has put an empty queue right
        facts = dict(zip(info[::2], info[1::2], strict=True))
        tasks: dict[str, int] = {}
        start: bytes = b"-"
        while rows := await link.call(b"XRANGE", names.stream, start, "+", b"COUNT", BATCH):
            for entry, fields in rows:
                arrival = wire.arrive(entry, fields or [], 1, queue, partition.number, 0.0)
                if isinstance(arrival, Delivery):
                    tasks[arrival.envelope.task] = tasks.get(arrival.envelope.task, 0) + 1
            start = b"(" + rows[-1][0]
        pairs = [part for task, number in tasks.items() for part in (task, number)]
        arguments = [facts[b"length"], facts[b"last-generated-id"], *pairs]
        wrong = int(await link.run(RECOUNT, [names.stream, names.waiting], arguments))
        if wrong >= 0:
            return wrong
    return -1

"""The store: one method per transition, each for a batch, each one script or command. Nothing else talks to Redis.

A Store belongs to one event loop. Its links are opened when they are first needed, and each role has its own, so that
a blocking fetch, a slow read and a settle never wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..durability import Durability
from ..envelope import Arrival, Delivery, Draft
from ..errors import DispatchUncertain, RedisConfigurationError, RedisError
from ..failpoints import reach
from ..forecast import Load
from ..outcome import Settlement
from . import saved, wire
from .audit import REST_BEATS, Auditor
from .batches import Batches
from .cancellation import Cancellation
from .clock import ServerClock
from .confirm import ConfirmedBatches, Unconfirmed
from .deployment import Deployment
from .finding import facts
from .inspect import Inspection
from .items import SettlementItems, add_draft
from .keys import Keyspace, PartitionKeys
from .links import Link
from .outbox import Outbox
from .reader import Reader
from .schedules import Schedules
from .scripts import DISPATCH, JOIN, LEAD, LEAVE, PAUSE, PROMOTE, PRUNE, RECLAIM, SETTLE, SWEEP, TRIM
from .seating import Seating
from .slots import Slots
from .translate import Unanswered
from .workflow_audit import WorkflowAuditor
from .workflows import Workflows

BATCH = 200
"""Most items of one script call: about a millisecond of server time."""
BATCH_BYTES = 1_000_000
"""Most bytes of letters in one script call, unless one alone has more: some milliseconds of server time."""
PROMOTED = 200
RECLAIMED = 100
TRIMMED = 2_000
"""Most entries of an audit trail that one call removes: a quarter of a millisecond."""


@dataclass(frozen=True)
class StoreOptions:
    """What a store must know of its runner. Durations in seconds."""

    group: str
    worker_id: str
    client_id: str
    reservation: float
    beat: float
    result_ttl: float
    delete_on_ack: bool
    audit_age: float = 7 * 86400.0
    max_dead_letters: int | None = None
    dead_letter_ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """What a worker finds: the ``lanes`` there are, the ``foreign`` ones of them, which hold what is no stream, and the
    queues that are ``paused`` (``*``: all)."""

    lanes: Sequence[str]
    foreign: Sequence[str]
    paused: frozenset[str]


class Store:
    """Transitions of jobs in one namespace."""

    def __init__(self, deployment: Deployment, keyspace: Keyspace, options: StoreOptions) -> None:
        self.keyspace = keyspace
        self.options = options
        self.clock = ServerClock()
        self.deployment = deployment
        self.on_drop: Callable[[str, int], None] = lambda queue, dropped: None
        """Told of dead letters that the bounds have dropped: of which queue, and how many."""
        most, ttl = options.max_dead_letters, options.dead_letter_ttl
        # As the scripts take them, 0 for none. Each partition has its share of the jobs.
        self._bounds = (-(-most // len(keyspace.partitions)) if most else 0, max(1, round(ttl * 1000)) if ttl else 0)
        self._links: list[Link] = []
        self._controls = [self._link(partition) for partition in keyspace.partitions]
        self.inspection = Inspection(self._controls, keyspace, options.group)
        self.schedules = Schedules(self._controls, keyspace, options.client_id)
        self.cancellation = Cancellation(
            self._controls,
            keyspace,
            options.client_id,
            options.result_ttl,
            options.reservation,
            options.delete_on_ack,
        )
        self.seating = Seating(
            [self._link(partition) for partition in keyspace.partitions],
            options.group,
            options.worker_id,
            options.reservation,
            options.beat,
        )
        self._dispatches = [self._outlets(partition) for partition in keyspace.partitions]
        self.workflows = Workflows(
            self._controls,
            self._dispatches,
            self.cancellation.batches,
            keyspace,
            options.result_ttl,
            options.reservation,
            options.delete_on_ack,
        )
        self.outbox = Outbox(self._controls, keyspace, options.result_ttl, options.reservation, options.delete_on_ack)
        self._settles = [
            Batches(self._link(partition), partition.batch(options.client_id + "s"))
            for partition in keyspace.partitions
        ]
        self.slots = [Slots(self._link(one), one, options.client_id) for one in keyspace.partitions]

    def _outlets(self, partition: PartitionKeys) -> list[Batches]:
        """One for each durability, in their order: whoever waits for a disk holds up nobody else."""
        key = partition.batch(self.options.client_id + "d")
        return [
            Batches(self._link(partition), key),
            *(
                ConfirmedBatches(self._link(partition), f"{key}{durability:d}", durability)
                for durability in (Durability.REPLICATED, Durability.FSYNCED)
            ),
        ]

    def _link(self, partition: PartitionKeys) -> Link:
        link = Link(self.deployment, partition.prefix)
        self._links.append(link)
        return link

    @property
    def partitions(self) -> tuple[PartitionKeys, ...]:
        return self.keyspace.partitions

    # -- opening and closing ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects once and learns the server's time. Raises RedisError."""
        seconds, micros = await self._controls[0].call(b"TIME")
        self.clock.learn(int(seconds) * 1000 + int(micros) / 1000)

    async def prepare(self, partition: PartitionKeys, lanes: Sequence[str], further: Sequence[str] = ()) -> Joined:
        """Makes the streams and groups of these lanes, and of the ``further`` ones that somebody has made; from the
        first entry, so that what is already there is seen. Returns what there is.

        Raises RedisConfigurationError when strangers hold the streams of all.
        """
        names = [*lanes, *further]
        keys = [partition.queues, partition.workers, partition.paused, *(partition.queue(one).stream for one in names)]
        arguments: list[Any] = [self.options.group, partition.wake]
        for n, name in enumerate(names):
            arguments += (name, int(n < len(lanes)))
        reply: list[list[bytes]] = await self._controls[partition.number].run(JOIN, keys, arguments)
        known, foreign, paused = ([name.decode() for name in names] for names in reply)
        if len(foreign) == len(known):
            strange = ", ".join(partition.queue(lane).stream for lane in foreign)
            text = f"foreign data under our keys ({strange}: no stream); use another namespace or key_prefix"
            raise RedisConfigurationError(text)
        return Joined(known, foreign, frozenset(paused))

    async def pause(self, partition: PartitionKeys, queue: str, *, paused: bool, answer: str = "") -> bool:
        """Pauses a queue (``*``: all) or lets it go on. Returns whether that changed something.

        ``answer``: a channel, a blank and a word; each worker that has obeyed says the word there, its partition and
        its id.
        """
        keys, how = [partition.paused, partition.workers], "pause" if paused else "resume"
        return bool(await self._controls[partition.number].run(PAUSE, keys, [how, queue, partition.wake, answer]))

    async def answer(self, partition: PartitionKeys, asked: str) -> None:
        """Says that this worker has obeyed: see ``pause``."""
        channel, _, word = asked.partition(" ")
        text = f"{word} {partition.number} {self.options.worker_id}"
        await self._controls[partition.number].call(b"PUBLISH", channel, text)

    async def living(self, partition: PartitionKeys) -> list[str]:
        """The ids of the workers that count as alive."""
        link = self._controls[partition.number]
        seconds, micros = await link.call(b"TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        return [id.decode() for id in await link.call(b"ZRANGEBYSCORE", partition.workers, f"({now}", "+inf")]

    async def evicts(self) -> str:
        """The server's policy for what it deletes when its memory is full, if it may delete our keys; else nothing."""
        policy = (await facts(self._controls[0], "memory") or {}).get("maxmemory_policy", "")
        return "" if policy == "noeviction" else policy

    async def close(self) -> None:
        for slots in self.slots:
            await slots.close()
        ending: list[Batches | Schedules] = [*chain.from_iterable(self._dispatches), *self._settles]
        for batches in (*ending, *self.cancellation.batches, self.schedules):
            try:
                await batches.forget()
            except RedisError:
                pass  # the key expires by itself
        for link in self._links:
            await link.close()

    # -- producing -------------------------------------------------------------------------------------------

    async def dispatch(self, partition: int, queue: str, drafts: Sequence[Draft], patience: float) -> dict[int, str]:
        """Takes up to BATCH drafts of one queue and durability. Returns index → id of the job that a draft duplicates.

        Raises QueueFull, RedisConfigurationError, RedisUnavailable after ``patience`` seconds (nothing written), or
        DispatchUncertain with one id per draft: then the jobs may or may not have been taken.
        """
        keys = self.keyspace.partitions[partition]
        names = keys.queue(queue)
        fixed = [keys.live, keys.queues, keys.janitor, *names.ready]
        items: list[Any] = [queue, keys.wake]
        leases: list[str] = []
        for draft in drafts:
            add_draft(draft, wire.seal(draft.envelope), fixed, leases, items, keys)
        fixed += leases
        reach("before_dispatch")
        outlet = self._dispatches[partition][drafts[0].durability if drafts else Durability.MEMORY]
        try:
            reply = await outlet.send(DISPATCH, fixed, items, patience)
        except Unanswered as error:
            known = _duplicates(error.reply) if isinstance(error, Unconfirmed) else {}
            ids = [known.get(n) or draft.envelope.id for n, draft in enumerate(drafts)]
            raise DispatchUncertain(str(error), ids) from None
        reach("after_dispatch")
        return _duplicates(reply) if reply else {}

    # -- consuming -------------------------------------------------------------------------------------------

    def reader(self, partition: PartitionKeys) -> Reader:
        """A reader for one partition, with a connection of its own."""
        options = self.options
        control = self._controls[partition.number]
        return Reader(self._link(partition), control, partition, options.group, options.worker_id, options.beat)

    async def settle(
        self, partition: int, queue: str, settlements: Sequence[Settlement], held: int, load: Load, patience: float
    ) -> bytes:
        """Records up to BATCH outcomes of one queue. Returns one byte per item: 1, or 0 when its token is stale."""
        keys = self.keyspace.partitions[partition]
        names = keys.queue(queue)
        built = SettlementItems(keys, self.clock.now(), self.options.result_ttl)
        for settlement in settlements:
            built.add(settlement)
        fixed = [keys.live, keys.watchers, keys.janitor, *names.all, *built.keys, *built.leases]
        if built.locks:
            fixed.append(keys.alone)
        head = [self.options.group, self.options.worker_id, held, int(self.options.delete_on_ack), queue, keys.wake]
        head += [round(load.busy * 1e6), round(load.occupied * 1e6), load.jobs, load.slots, keys.prefix, *self._bounds]
        reply: bytes = await self._settles[partition].send(SETTLE, fixed, head + built.items, patience)
        verdicts, _, dropped = reply.partition(b" ")
        if dropped:
            self.on_drop(queue, int(dropped))
        return verdicts

    async def drop(self, partition: PartitionKeys, queue: str) -> int:
        """Drops up to 200 of the dead letters of a queue that are beyond the bounds. Returns how many."""
        names = partition.queue(queue)
        arguments = ["bounds", *self._bounds]
        control = self._controls[partition.number]
        return int(await control.run(PRUNE, [partition.janitor, *names.grave], arguments))

    async def expire_saved(self, ended: Sequence[Settlement]) -> None:
        """What these jobs saved lives from now on as long as their outcomes."""
        by_partition: dict[int, list[tuple[str, int]]] = {}
        for one in ended:
            if isinstance(one.delivery, Delivery):
                ttl = round((self.options.result_ttl if one.ttl is None else one.ttl) * 1000) or 1
                by_partition.setdefault(one.delivery.partition, []).append((one.delivery.envelope.id, ttl))
        for number, values in by_partition.items():
            await saved.expire(self._controls[number], self.partitions[number], values)

    async def promote(self, partition: PartitionKeys, queue: str) -> tuple[int, float | None, int]:
        """Moves up to 200 due jobs of a queue into its stream. Returns how many, seconds until the next is due, and how
        many of them could only be ended as failed: what was kept of them is gone."""
        names = partition.queue(queue)
        keys = [partition.live, partition.watchers, partition.janitor, *names.buried]
        control, ttl = self._controls[partition.number], round(self.options.result_ttl * 1000) or 1
        arguments = [PROMOTED, queue, BATCH_BYTES, ttl, partition.prefix]
        moved, wait, now, lost = await control.run(PROMOTE, keys, arguments)
        self.clock.learn(now)
        return moved, None if wait < 0 else wait / 1000, lost

    async def reclaim(
        self, partition: PartitionKeys, queue: str, limit: int, last: int = 0, busy: bool = False, times: int = 1
    ) -> tuple[bool, list[Arrival]]:
        """Takes over up to ``limit`` jobs of silent workers. Returns whether there is more to look at, and the jobs.

        Silent for ``times`` reservations. Of those whose delivery count becomes ``last`` it takes one, or none when
        ``busy``.
        """
        options, names = self.options, partition.queue(queue)
        keys = [partition.janitor, names.stream, partition.workers, partition.worker_facts]
        pause = round(
            self.options.beat * 450
        )  # just under half a beat, so that two ticks never both find the turn taken
        arguments = [options.group, options.worker_id, round(options.reservation * 1000), round(options.beat * 1000)]
        arguments = [*arguments, min(limit, RECLAIMED), queue, pause, last, int(busy), times]
        asked = time.monotonic()
        reply = await self._controls[partition.number].run(RECLAIM, keys, arguments)
        return reply[0] == b"1", _arrivals(reply[1:], queue, partition.number, asked)

    async def sweep(self, partition: PartitionKeys, queue: str) -> list[Arrival]:
        """Everything that is pending for this worker in a queue, as if it had just arrived. Changes nothing."""
        stream, found = partition.queue(queue).stream, list[Arrival]()
        start: Any = b"-"
        while True:
            asked = time.monotonic() - self.options.beat  # pending since nobody knows when: the next beat must renew it
            arguments = [self.options.group, self.options.worker_id, start, BATCH]
            reply = await self._controls[partition.number].run(SWEEP, [stream], arguments)
            found += _arrivals(reply, queue, partition.number, asked)
            if len(reply) < 3 * BATCH:
                return found
            start = b"(" + reply[-3]

    async def trim(self, partition: PartitionKeys, queue: str) -> int:
        """Trims the audit trail of a queue (``delete_on_ack=False``) by age. Returns how many entries went."""
        names, total = partition.queue(queue), 0
        arguments = [self.options.group, round(self.options.audit_age * 1000), TRIMMED]
        control = self._controls[partition.number]
        while removed := int(await control.run(TRIM, [names.stream, names.rates], arguments)):
            total += removed
        return total

    def control(self, partition: PartitionKeys) -> Link:
        """The link for whatever is no transition of a job."""
        return self._controls[partition.number]

    def auditor(self, partition: PartitionKeys, *, uncertain: bool = False) -> Auditor:
        """Who compares what is known of this partition's jobs with what is there. ``uncertain``: finished entries may
        stand in the streams, whatever this runner does with its own."""
        options, link = self.options, self._controls[partition.number]
        times = (options.reservation, options.beat, options.result_ttl)
        trail = uncertain or not options.delete_on_ack
        return Auditor(link, partition, options.group, options.worker_id, *times, trail)

    def workflow_auditor(self, partition: PartitionKeys) -> WorkflowAuditor:
        """Who sees to it that this partition's workflows can end."""
        options = self.options
        rest = options.beat * REST_BEATS
        return WorkflowAuditor(self._controls, self.keyspace, partition, options.result_ttl, rest)

    async def leave(self, partition: PartitionKeys, queues: Sequence[str]) -> int:
        """Signs this worker off. Returns how many streams still have entries pending for it."""
        keys = [partition.workers, partition.worker_facts, partition.leader]
        keys += [partition.queue(queue).stream for queue in queues]
        arguments = [self.options.group, self.options.worker_id]
        return int(await self._controls[partition.number].run(LEAVE, keys, arguments, timeout=5))

    async def lead(self, seconds: float) -> bool:
        """Whether this runner is, for so many seconds, the one that evaluates the long-queue hook."""
        keys = [self.partitions[0].leader, self.partitions[0].workers]
        return bool(await self._controls[0].run(LEAD, keys, [self.options.worker_id, round(seconds * 1000)]))


def _duplicates(pairs: Sequence[Any]) -> dict[int, str]:
    return {pairs[n]: pairs[n + 1].decode() for n in range(0, len(pairs), 2)}


def _arrivals(triples: Sequence[Any], queue: str, partition: int, asked: float) -> list[Arrival]:
    return [
        wire.arrive(triples[n], triples[n + 1 + 1], triples[n + 1], queue, partition, asked)
        for n in range(0, len(triples), 3)
    ]

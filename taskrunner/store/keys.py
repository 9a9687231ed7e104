"""Every key that taskrunner writes. All keys of a partition share one hash tag, and so one cluster slot.

    PREFIX:{NAMESPACE.P}:…      type     lifetime                      what it is                     ended by
    stream:QUEUE                stream   permanent                     the jobs that are ready        settle (entries)
    due:QUEUE                   zset     while jobs wait               job id -> due time in ms       promote
    letters:QUEUE               hash     while jobs wait               job id -> its letter           promote
    retrying:QUEUE              zset     while jobs wait               those of due that are retries  promote
    tallies:QUEUE               hash     while jobs wait               state and task -> how many     promote
    parked:QUEUE                zset     while jobs wait for others    job id -> since when, ms       settle
    dead:QUEUE                  zset     while there are dead letters  job id -> when it failed, ms   operator, bounds
    dead-letters:QUEUE          hash     while there are dead letters  job id -> its record           operator, bounds
    dead-tasks:QUEUE            zset     while there are dead letters  task, instant, id; by name     operator, bounds
    succeeded:QUEUE             list     result_ttl                    the latest ids, newest first   expiry
    cancelled:QUEUE             list     result_ttl                    the same                       expiry
    expired:QUEUE               list     result_ttl                    the same                       expiry
    waiting:QUEUE               hash     permanent                     task -> jobs not yet settled   -
    runs:QUEUE                  hash     permanent                     task -> run times, counts      -
    rates:QUEUE                 hash     permanent                     arrivals, completions          -
    live                        hash     while jobs live               job id -> state, queue, entry  settle
    watchers                    hash     while somebody waits          job id -> channels to tell     settle
    job:ID                      string   result_ttl                    outcome of a job               expiry
    saved:ID                    string   7 days, then result_ttl       what a job saved of its work   expiry
    progress:ID                 string   7 days, then result_ttl       how far a job is, and since    expiry
    unique:DIGEST               string   while its job lives           id of the job that holds it    settle
    next:DIGEST                 string   while a job waits for that    id of the job that waits       settle
    period:DIGEST               string   unique_for                    id of the job that took it     expiry
    lease:DIGEST                zset     while jobs want these seats   job id -> place, -grant        settle
    rate:DIGEST                 zset     while the rate is used up     when full; job -> its turn    expiry
    alone                       hash     while locked jobs live        lock -> the one that wants it  settle
    outlived                    zset     while cancelled jobs run      their seats -> until, ms       seats, promote
    workflow:ID                 hash     while it runs, result_ttl     nodes that wait, values        end, expiry
    workflow-nodes:ID           string   while it runs, result_ttl     a letter per node: how it is   end, expiry
    workflow-jobs:ID            hash     while it runs, result_ttl     node -> a job of another id    end, expiry
    workflows                   zset     while workflows run           workflow -> since when, ms     settle
    followers                   hash     while jobs live that others   job id -> its nodes            settle
                                         wait for
    unfolding                   zset     while a workflow is large     what is left over of it        unfold
    staged:TOKEN                hash     10 minutes                    a workflow on its way in       begin, expiry
    outbox:PARTITION            stream   permanent, partitions > 1     what another partition must    deliver
                                                                       know of workflows (entries)
    received                    hash     permanent, partitions > 1     partition -> last that came    -
    slots:DIGEST                zset     while slots are held          holder -> until when, in ms    release, expiry
    slot-owners:DIGEST          hash     while slots are held          holder -> its ticket, grant    release, expiry
    slot-queue:DIGEST           zset     while somebody waits, 20 s    ticket -> place in line        release, expiry
    slot-waiters:DIGEST         hash     while somebody waits, 20 s    ticket -> what it waits for    release, expiry
    batch:CLIENT                string   10 minutes                    last batch and its reply       expiry
    queues                      set      permanent                     names of the lanes             -
    schedules                   hash     while there are schedules     name -> its definition         unschedule
    ticks                       zset     while there are schedules     name, revision -> next tick    unschedule
    fired                       hash     while there are schedules     name -> its latest tick, ms    unschedule
    schedule-locks              hash     while there are schedules     task and lock key -> name      unschedule
    paused                      set      while some queue is paused    names of those, * for all      resume
    workers                     zset     while workers live            worker -> alive until, ms      leave, reclaim
    worker-facts                hash     while workers live            worker -> facts about it       leave, reclaim
    janitor                     hash     permanent                     cursors, grace, turns, counts  -
    leader                      string   three evaluations             who fires the long-queue hook  expiry

``docs/internals.md`` repeats the permanent set for operators; a test holds it against this table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ..needs import rates, seats

KINDS = {
    "stream:": "stream",
    "due:": "zset",
    "letters:": "hash",
    "retrying:": "zset",
    "tallies:": "hash",
    "parked:": "zset",
    "dead:": "zset",
    "dead-letters:": "hash",
    "dead-tasks:": "zset",
    "succeeded:": "list",
    "cancelled:": "list",
    "expired:": "list",
    "waiting:": "hash",
    "runs:": "hash",
    "rates:": "hash",
    "live": "hash",
    "watchers": "hash",
    "job:": "string",
    "saved:": "string",
    "progress:": "string",
    "unique:": "string",
    "next:": "string",
    "period:": "string",
    "lease:": "zset",
    "rate:": "zset",
    "outlived": "zset",
    "alone": "hash",
    "workflow:": "hash",
    "workflow-nodes:": "string",
    "workflow-jobs:": "hash",
    "workflows": "zset",
    "followers": "hash",
    "unfolding": "zset",
    "staged:": "hash",
    "outbox:": "stream",
    "received": "hash",
    "slots:": "zset",
    "slot-owners:": "hash",
    "slot-queue:": "zset",
    "slot-waiters:": "hash",
    "batch:": "string",
    "queues": "set",
    "schedules": "hash",
    "ticks": "zset",
    "fired": "hash",
    "schedule-locks": "hash",
    "paused": "set",
    "workers": "zset",
    "worker-facts": "hash",
    "janitor": "hash",
    "leader": "string",
}
"""Name, or beginning of the names, and type of every key."""

EXPIRING = (
    *("job:", "saved:", "progress:", "succeeded:", "cancelled:", "expired:", "period:", "rate:", "batch:", "leader"),
    *("slots:", "slot-owners:", "slot-queue:", "slot-waiters:"),
    *("workflow:", "workflow-nodes:", "workflow-jobs:", "staged:"),
)
"""Beginnings of the names that end by expiry."""

PERMANENT = ("stream:", "waiting:", "runs:", "rates:", "queues", "janitor", "outbox:", "received")
"""Beginnings of the names that stay after a drain."""


FIELDS = ("stream", "due", "letters", "retrying", "tallies", "waiting", "rates")
DEAD = ("dead", "dead_letters", "dead_tasks")
ENDED = ("runs", "succeeded", "cancelled", "expired")
"""The keys of a queue, in the order in which the scripts take them; most need only the first ones."""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue in one partition. ``ready``, ``buried`` and ``all`` are the first 7, 10 and 14 of them,
    ``grave`` those of its dead letters."""

    queue: str
    stream: str
    due: str
    letters: str
    retrying: str
    tallies: str
    waiting: str
    rates: str
    dead: str
    dead_letters: str
    dead_tasks: str
    runs: str
    succeeded: str
    cancelled: str
    expired: str
    ready: tuple[str, ...] = field(init=False)
    buried: tuple[str, ...] = field(init=False)
    all: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(getattr(self, one) for one in (*FIELDS, *DEAD, *ENDED))
        for part, count in (("ready", len(FIELDS)), ("buried", len(FIELDS + DEAD)), ("all", len(names))):
            object.__setattr__(self, part, names[:count])

    @property
    def grave(self) -> tuple[str, ...]:
        return self.buried[len(FIELDS) :]


class PartitionKeys:
    """The keys of one partition."""

    def __init__(self, prefix: str, namespace: str, number: int) -> None:
        self.number = number
        self.prefix = f"{prefix}:{{{namespace}.{number}}}:"
        self.live = self.prefix + "live"
        self.watchers = self.prefix + "watchers"
        self.queues = self.prefix + "queues"
        self.paused = self.prefix + "paused"
        self.workers = self.prefix + "workers"
        self.worker_facts = self.prefix + "worker-facts"
        self.janitor = self.prefix + "janitor"
        self.leader = self.prefix + "leader"
        self.outlived = self.prefix + "outlived"
        self.alone = self.prefix + "alone"
        self.workflows = self.prefix + "workflows"
        self.followers = self.prefix + "followers"
        self.unfolding = self.prefix + "unfolding"
        self.received = self.prefix + "received"
        self.schedules = self.prefix + "schedules"
        self.ticks = self.prefix + "ticks"
        self.fired = self.prefix + "fired"
        self.schedule_locks = self.prefix + "schedule-locks"
        self.wake = self.prefix + "wake"  # a channel, not a key
        self._job = self.prefix + "job:"
        self._queues: dict[str, QueueKeys] = {}

    def queue(self, name: str) -> QueueKeys:
        keys = self._queues.get(name)
        if keys is None:
            kinds = (one.replace("_", "-") for one in (*FIELDS, *DEAD, *ENDED))
            keys = self._queues[name] = QueueKeys(name, *(f"{self.prefix}{kind}:{name}" for kind in kinds))
        return keys

    def job(self, id: str) -> str:
        return self._job + id

    def saved(self, id: str) -> str:
        return f"{self.prefix}saved:{id}"

    def progress(self, id: str) -> str:
        return f"{self.prefix}progress:{id}"

    def unique(self, digest: str) -> str:
        return f"{self.prefix}unique:{digest}"

    def next(self, digest: str) -> str:
        return f"{self.prefix}next:{digest}"

    def period(self, digest: str) -> str:
        return f"{self.prefix}period:{digest}"

    def lease(self, digest: str) -> str:
        return f"{self.prefix}lease:{digest}"

    def needed(self, needs: str) -> list[str]:
        """The keys of the seats and permits that a job needs."""
        return [*map(self.lease, seats(needs)), *(f"{self.prefix}rate:{digest}" for digest in rates(needs))]

    def workflow(self, id: str) -> tuple[str, str, str]:
        """Of a workflow: itself, its nodes, its jobs."""
        return f"{self.prefix}workflow:{id}", f"{self.prefix}workflow-nodes:{id}", f"{self.prefix}workflow-jobs:{id}"

    def staged(self, token: str) -> str:
        return f"{self.prefix}staged:{token}"

    def outbox(self, partition: int) -> str:
        """What the partition of that number must know."""
        return f"{self.prefix}outbox:{partition}"

    def slots(self, digest: str) -> tuple[str, str, str, str]:
        """Of a limiter: its holders, their owners, the line of those who wait, and what they wait for."""
        names = ("slots", "slot-owners", "slot-queue", "slot-waiters")
        one, two, three, four = (f"{self.prefix}{name}:{digest}" for name in names)
        return one, two, three, four

    def batch(self, client: str) -> str:
        return f"{self.prefix}batch:{client}"

    def channel(self, client: str) -> str:
        """Where a client hears that jobs ended."""
        return f"{self.prefix}ended:{client}"


class Keyspace:
    """All partitions of a namespace, and which one a job belongs to."""

    def __init__(self, prefix: str, namespace: str, partitions: int) -> None:
        self.partitions = tuple(PartitionKeys(prefix, namespace, number) for number in range(partitions))

    def partition_of(self, text: str) -> int:
        """The partition of a job: by its unique key if it has one, else by its id; the same in every process."""
        if len(self.partitions) == 1:
            return 0
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") % len(self.partitions)

"""Every key that taskrunner writes. All keys of a partition share one hash tag, and so one cluster slot.

    PREFIX:{NAMESPACE.P}:…      type     lifetime                      what it is                     ended by
    stream:QUEUE                stream   permanent                     the jobs that are ready        settle (entries)
    due:QUEUE                   zset     while jobs wait               job id -> due time in ms       promote
    letters:QUEUE               hash     while jobs wait               job id -> its letter           promote
    retrying:QUEUE              zset     while jobs wait               those of due that are retries  promote
    tallies:QUEUE               hash     while jobs wait               state and task -> how many     promote
    dead:QUEUE                  zset     while there are dead letters  job id -> when it failed, ms   the operator
    dead-letters:QUEUE          hash     while there are dead letters  job id -> its record           the operator
    dead-tasks:QUEUE            zset     while there are dead letters  task, instant, id; by name     the operator
    succeeded:QUEUE             list     result_ttl                    the latest ids, newest first   expiry
    cancelled:QUEUE             list     result_ttl                    the same                       expiry
    expired:QUEUE               list     result_ttl                    the same                       expiry
    waiting:QUEUE               hash     permanent                     task -> jobs not yet settled   -
    runs:QUEUE                  hash     permanent                     task -> run times, counts      -
    rates:QUEUE                 hash     permanent                     arrivals, completions          -
    live                        hash     while jobs live               job id -> state, queue, entry  settle
    watchers                    hash     while somebody waits          job id -> channels to tell     settle
    job:ID                      string   result_ttl                    outcome of a job               expiry
    unique:DIGEST               string   while its job lives           id of the job that holds it    settle
    next:DIGEST                 string   while a job waits for that    id of the job that waits       settle
    period:DIGEST               string   unique_for                    id of the job that took it     expiry
    batch:CLIENT                string   10 minutes                    last batch and its reply       expiry
    queues                      set      permanent                     names of the queues            -
    paused                      set      while some queue is paused    names of those, * for all      resume
    workers                     zset     while workers live            worker -> alive until, ms      leave, reclaim
    worker-facts                hash     while workers live            worker -> facts about it       leave, reclaim
    janitor                     hash     permanent                     cursors, grace, turns, counts  -
    leader                      string   three evaluations             who fires the long-queue hook  expiry

``docs/internals.md`` repeats the permanent set for operators; a test holds it against this table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

KINDS = {
    "stream:": "stream",
    "due:": "zset",
    "letters:": "hash",
    "retrying:": "zset",
    "tallies:": "hash",
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
    "unique:": "string",
    "next:": "string",
    "period:": "string",
    "batch:": "string",
    "queues": "set",
    "paused": "set",
    "workers": "zset",
    "worker-facts": "hash",
    "janitor": "hash",
    "leader": "string",
}
"""Name, or beginning of the names, and type of every key."""

EXPIRING = ("job:", "succeeded:", "cancelled:", "expired:", "period:", "batch:", "leader")
"""Beginnings of the names that end by expiry."""

PERMANENT = ("stream:", "waiting:", "runs:", "rates:", "queues", "janitor")
"""Beginnings of the names that stay after a drain."""


FIELDS = ("stream", "due", "letters", "retrying", "tallies", "waiting", "rates")
DEAD = ("dead", "dead_letters", "dead_tasks")
ENDED = ("runs", "succeeded", "cancelled", "expired")
"""The keys of a queue, in the order in which the scripts take them; most need only the first ones."""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue in one partition. ``ready``, ``buried`` and ``all`` are the first 7, 10 and 14 of them."""

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
    ready: tuple[str, ...]
    buried: tuple[str, ...]
    all: tuple[str, ...]


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
        self.wake = self.prefix + "wake"  # a channel, not a key
        self._job = self.prefix + "job:"
        self._queues: dict[str, QueueKeys] = {}

    def queue(self, name: str) -> QueueKeys:
        keys = self._queues.get(name)
        if keys is None:
            all = tuple(f"{self.prefix}{field.replace('_', '-')}:{name}" for field in (*FIELDS, *DEAD, *ENDED))
            keys = self._queues[name] = QueueKeys(name, *all, all[: len(FIELDS)], all[: len(FIELDS + DEAD)], all)
        return keys

    def job(self, id: str) -> str:
        return self._job + id

    def unique(self, digest: str) -> str:
        return f"{self.prefix}unique:{digest}"

    def period(self, digest: str) -> str:
        return f"{self.prefix}period:{digest}"

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

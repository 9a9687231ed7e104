"""How long a queue will take to drain: the arithmetic behind ``stats()`` and the long-queue hook. Pure functions.

TaskRunner's formula is T_avg × Q_len ÷ (workers × replicas). It is kept, with each part measured where it was assumed:

- T_avg is weighted by what is really waiting, task by task, over the last thousand runs of each, and over up to ten
  thousand when their times differ so much that a thousand tell no mean.
- Q_len counts what is ready and not started.
- Workers are the slots that are really occupied while jobs wait. When jobs are so short that a worker's event loop is
  the limit, and not its slots, the loop's own time per job is the lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Load:
    """What one worker did while jobs were waiting for it. Seconds, except ``jobs`` and ``slots``.

    ``busy`` is how long it never ran out of jobs, ``occupied`` the time its slots were occupied in that, ``jobs`` how
    many it finished in that.
    """

    busy: float
    occupied: float
    jobs: int
    slots: int


@dataclass(frozen=True, slots=True)
class TaskStats:
    """Figures of one task in one queue. Run times in seconds, over the last 1,000 to 10,000 runs.

    ``waiting`` is exact while nothing runs, and estimated while several tasks run at once. ``succeeded``, ``failed``
    and ``retried`` count since the queue exists.
    """

    waiting: int
    avg_run_time: float
    p95_run_time: float
    succeeded: int
    failed: int
    retried: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Figures of one queue (``queue`` is ``"*"`` for all together). Seconds and jobs per second.

    ``waiting`` is ready and not started, ``running`` is in a worker's hands, ``workers`` is the number of slots per
    replica, ``replicas`` the live processes (or ``replication_factor``). ``drain_time`` is the expected time until what
    is waiting now is done; ``inf`` when nobody consumes, or when jobs wait in a queue that is ``paused``.
    ``oldest_wait`` is the age of the oldest waiting job.
    """

    queue: str
    waiting: int
    running: int
    scheduled: int
    blocked: int
    dead: int
    workers: int
    replicas: int
    avg_run_time: float
    arrival_rate: float
    completion_rate: float
    oldest_wait: float
    drain_time: float
    is_long: bool = False
    per_task: Mapping[str, TaskStats] = field(default_factory=dict)
    paused: bool = False

    def desired_replicas(self, target: float) -> int:
        """How many replicas would drain the queue within ``target`` seconds; at least 1 while jobs wait."""
        if not self.waiting:
            return 0
        if not math.isfinite(self.drain_time) or target <= 0:
            return max(1, self.replicas)
        return max(1, math.ceil(self.drain_time * self.replicas / target))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the fleet can do: live replicas, slots of each, slots that are really occupied when jobs wait (None: not
    measured yet), and seconds of event loop that each job costs a replica (0: never the limit so far)."""

    replicas: float
    slots: float
    occupied: float | None
    loop_time: float


def still_waiting(
    unsettled: Mapping[str, int], run_times: Mapping[str, float], in_hand: int, slots: int
) -> dict[str, float]:
    """Per task, how many jobs are waiting, when ``unsettled`` counts those in the workers' hands as well.

    Which tasks those are of isn't recorded. By Little's law a task occupies slots in proportion to (jobs × run time),
    so that is how the running ones are taken off: slow tasks fill the slots, fast ones the queue. What the workers hold
    beyond their ``slots`` was read ahead or awaits its settling, and is like the whole.
    """
    total = sum(unsettled.values())
    waiting = {task: float(n) for task, n in unsettled.items() if n > 0}
    if in_hand >= total:
        return dict.fromkeys(waiting, 0.0)
    running = min(in_hand, slots) if slots else in_hand
    left, open_tasks = float(running), dict(waiting)
    while left > 1e-9 and open_tasks:
        weights = {task: n * max(run_times.get(task, 0.0), 1e-9) for task, n in open_tasks.items()}
        whole = sum(weights.values())
        taken = 0.0
        for task, weight in weights.items():
            share = min(left * weight / whole, open_tasks[task])
            waiting[task] -= share
            open_tasks[task] -= share
            taken += share
        open_tasks = {task: n for task, n in open_tasks.items() if n > 1e-9}
        left -= taken
        if taken <= 1e-9:
            break
    return {task: n * (total - in_hand) / (total - running) for task, n in waiting.items()}


def mean_run_time(waiting: Mapping[str, float], run_times: Mapping[str, float]) -> float:
    """T_avg, weighted by what is waiting; a task that has never run counts as the mean of the others."""
    known = [run_times[task] for task in waiting if task in run_times]
    fallback = sum(known) / len(known) if known else (sum(run_times.values()) / len(run_times) if run_times else 0.0)
    total = sum(waiting.values())
    if total <= 0:
        return sum(run_times.values()) / len(run_times) if run_times else 0.0
    return sum(n * run_times.get(task, fallback) for task, n in waiting.items()) / total


def drain_time(waiting: float, average: float, capacity: Capacity) -> float:
    """Expected seconds until ``waiting`` jobs of ``average`` seconds each are done."""
    if waiting <= 0:
        return 0.0
    if capacity.replicas <= 0 or capacity.slots <= 0:
        return math.inf
    slots = capacity.slots if capacity.occupied is None else min(capacity.occupied, capacity.slots)
    by_slots = waiting * average / (slots * capacity.replicas)
    by_loop = waiting * capacity.loop_time / capacity.replicas
    return max(by_slots, by_loop)


def percentile(buckets: Mapping[str, float], share: float) -> float:
    """A quantile of a histogram in half powers of two of microseconds, in seconds; right to about a fifth."""
    total = sum(buckets.values())
    seen = 0.0
    for bucket in sorted(buckets, key=int):
        seen += buckets[bucket]
        if seen >= share * total:
            return float(2 ** ((int(bucket) + 0.5) / 2) / 1e6)
    return 0.0


FLOW_WINDOW = 10_000.0
"""ms; the same as in the scripts' prelude."""


def rate(flow: str, now: int) -> float:
    """Events per second, from an exponentially decaying sum "value last since" (see the prelude's flow())."""
    value, last, since = (float(part) for part in flow.split())
    age = max(now - since, 1000.0)
    gap = max(now - last, 0.0)
    return value * math.exp(-gap / FLOW_WINDOW) / (FLOW_WINDOW * -math.expm1(-age / FLOW_WINDOW)) * 1000

"""The plan of a run: its settings, its workload and its faults, all out of one seed.

The seed decides what is dispatched and what is done to whom at which time. It does not decide the interleaving, which
is the machine's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

FAILPOINTS = (
    "before_settle=kill",
    "after_settle=kill",
    "after_fetch=kill",
    "after_reclaim=kill",
    "after_promote=kill",
    "before_run=kill",
    "before_admit=kill",
    "after_admit=kill",
    "before_beat=raise",
    "after_fetch=raise",
    "before_settle=raise",
    "after_settle=raise",
    "after_reclaim=raise",
    "after_promote=raise",
    "before_admit=raise",
    "after_admit=raise",
    "before_settle=sleep",
    "after_fetch=sleep",
    "before_admit=sleep",
    "after_admit=sleep",
    "before_run=sleep",
    "after_unfold=kill",
    "after_deliver=kill",
    "after_deliver=raise",
)

KINDS: Mapping[str, float] = {
    "plain": 50,
    "retrying": 10,
    "unique": 14,
    "latest": 10,
    "delayed": 8,
    "brief": 4,  # expires soon after its dispatch
    "long": 2.5,
    "failing": 4,
    "blocking": 0.8,
    "threaded": 4,  # a plain def
    "unwanted": 6,  # cancelled by its producer, at any time
    "locked": 14,
    "elsewhere": 5,  # locked, too, in a queue of its own
    "relocked": 4,  # locked, and retried
    "snoozing": 3,  # locked, and put off by itself
    "dropped": 5,  # locked, and cancelled by its producer
    "solitary": 4,  # locked and unique
    "both": 5,  # locked and limited
    "limited": 8,
    "sharing": 4,  # under the same limit, in a queue of its own
    "rated": 5,
}
"""Kinds of jobs and how often each is dispatched. Poison and wedging jobs are counted, not weighed: see ``Plan``."""

TWO_KEYS = ("solitary", "both")
"""Kinds whose jobs have two keys, which must be in one partition: so there is only one where they are dispatched."""

WORKER_FAULTS: Mapping[str, float] = {
    "kill worker": 5,
    "stop worker": 5,
    "end worker": 2,
    "failpoint": 4,
    "kill producer": 1,
    "poison": 2,
    "wedge": 2,
}
"""What is done to single processes."""

COMMON_FAULTS: Mapping[str, float] = {
    "kill server": 3,
    "outage": 1.5,
    "pause server": 2,
    "freeze server": 1.5,
    "kill connections": 3,
    "flush scripts": 3,
    "cut connections": 3,
    "lose replies": 5,
    "break exchange": 2,
    "black hole": 2,
    "lose heartbeats": 2,
    "slow network": 1,
    "full server": 1,
}
"""What is done to the server, or to the ways to it."""

FIRST_OF_ALL = (
    ("wedge", "stop worker", "poison", "kill worker"),
    ("lose replies", "kill server", "freeze server", "lose heartbeats"),
)
"""What comes in every run, in an order of the seed's, before the rest: so that a short one has seen something too."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: so many seconds after the one before it ended, for so many seconds."""

    kind: str
    pause: float
    seconds: float
    choice: int
    """A number to choose a victim or a variant with."""


@dataclass(frozen=True)
class Plan:
    """A run. Durations in seconds."""

    seed: int
    seconds: float
    workers: int
    producers: int
    reservation: float
    slots: int
    partitions: int
    fsync: str
    senders: int
    pause: float
    weights: Mapping[str, float]
    max_retry: int = 3
    max_deliveries: int = 4

    @property
    def runner_options(self) -> dict[str, Any]:
        """What every runner of the run is made with."""
        return {
            "namespace": f"chaos-{self.seed}",
            "reservation_timeout": self.reservation,
            "num_workers": self.slots,
            "partitions": self.partitions,
            "max_deliveries": self.max_deliveries,
            "result_ttl": 3600,
            "shutdown_timeout": 4 * self.reservation,
        }

    def worker_faults(self) -> Iterator[Fault]:
        """Faults of single processes, without end."""
        return self._faults(WORKER_FAULTS, FIRST_OF_ALL[0], "worker")

    def common_faults(self) -> Iterator[Fault]:
        """Faults of what all share, without end."""
        return self._faults(COMMON_FAULTS, FIRST_OF_ALL[1], "common")

    def finale(self) -> Iterator[Fault]:
        """What comes last in every run, one after the other on a stage that is calm otherwise: so that even a short run
        has seen the interesting states."""
        kinds = (("flush scripts", 0.1), ("lose outcomes", 0.1), ("stop worker", 2.3), ("wedge", 0.1))
        for kind, reservations in kinds:
            yield Fault(kind, 0.3, reservations * self.reservation, self.seed)

    def _faults(self, weights: Mapping[str, float], first: tuple[str, ...], lane: str) -> Iterator[Fault]:
        chance = random.Random(f"{self.seed} {lane}")
        kinds, shares = list(weights), list(weights.values())
        begin = chance.sample(first, len(first))
        while True:
            kind = begin.pop() if begin else chance.choices(kinds, shares)[0]
            pause = chance.uniform(0.2, 1.5)
            yield Fault(kind, pause, self._seconds(kind, chance), chance.randrange(1 << 30))

    def _seconds(self, kind: str, chance: random.Random) -> float:
        """How long a fault lasts; for those of processes in reservations, as those are what it is about."""
        low, high = {
            "stop worker": (0.8, 3.0),
            "outage": (1.3, 2.5),
            "freeze server": (1.2, 2.5),
            "pause server": (0.1, 0.6),
            "black hole": (0.3, 2.0),
            "lose heartbeats": (1.8, 2.8),
            "failpoint": (3.0, 5.0),
            "slow network": (1.0, 2.0),
        }.get(kind, (0.1, 0.8))
        return chance.uniform(low, high) * self.reservation

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make(seed: int, seconds: float, workers: int = 4) -> Plan:
    """The plan of a seed."""
    chance = random.Random(seed)
    kinds = {kind: share * chance.uniform(0.3, 2.0) for kind, share in KINDS.items()}
    partitions = chance.choice((1, 1, 2))
    if partitions > 1:
        kinds = {kind: share for kind, share in kinds.items() if kind not in TWO_KEYS}
    return Plan(
        seed=seed,
        seconds=seconds,
        workers=workers,
        producers=2,
        reservation=round(chance.uniform(1.0, 2.0), 2),
        slots=chance.choice((8, 16)),
        partitions=partitions,
        fsync=chance.choice(("no", "no", "always")),
        senders=chance.choice((2, 3, 4)),
        pause=chance.uniform(0.03, 0.1),
        weights=kinds,
    )

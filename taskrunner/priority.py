"""Priorities: each queue has three lanes, and to the server a lane is a queue of its own.

The rule: of ten jobs that a worker takes from a queue while all three priorities wait, seven are high, two normal and
one is low. So nothing starves, and where some priority has no job, the highest one that has takes its place.

A fourth lane, the *first*, is there as soon as a job has waited for a seat. Whoever was let go stands in it and goes
before all others of the queue, because others wait behind it. It can't hold more jobs than may run at once; but where
they are short, one follows the other, so what goes before is made up for: while both wait, half of the jobs that a
worker takes are from other lanes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

PRIORITIES = ("high", "normal", "low")
WEIGHTS = {"high": 7, "normal": 2, "low": 1}
"""Of ten jobs of a queue that a worker takes, so many are of this priority while all three wait."""
FIRST = "first"
"""What stands in the place of a priority in the name of a first lane. It is none that anybody can choose."""
_ORDER = (FIRST, *PRIORITIES)


def lane(queue: str, priority: str) -> str:
    """The name of a lane: the queue's own for normal jobs, else ``QUEUE/PRIORITY``, which no queue can be called."""
    return queue if priority == "normal" else f"{queue}/{priority}"


def first_lane(queue: str) -> str:
    """Where the jobs of a queue go that were let out of a line: before all others, as others wait behind them."""
    return lane(queue, FIRST)


def lanes(queue: str) -> tuple[str, ...]:
    """All lanes of a queue, whether they exist or not, the most urgent first."""
    return tuple(lane(queue, priority) for priority in _ORDER)


def queue_of(lane: str) -> str:
    """The queue that a lane belongs to: the name that people see."""
    return lane.partition("/")[0]


def priority_of(lane: str) -> str:
    """The priority of the jobs in a lane; of the first lane, that it is the first."""
    return lane.partition("/")[2] or "normal"


def by_priority(lanes: Iterable[str]) -> list[str]:
    """These lanes, the most urgent first, else in their order."""
    return sorted(lanes, key=lambda lane: _ORDER.index(priority_of(lane)))


class Turns:
    """Whose turn it is: the queues in equal shares, and in each queue its lanes by their weights, evenly mixed.

    It goes on where it ended, so that a worker that takes jobs one by one keeps to the rule as well.

    A first lane has no turns of its own: what it brings takes those of the other lanes of its queue, the last ones
    before the others, and ``came`` gives them back. What it took beyond half, the others get before it takes again.
    """

    def __init__(self, lanes: Sequence[str]) -> None:
        queues: dict[str, list[str]] = {}
        for one in lanes:
            queues.setdefault(queue_of(one), []).append(one)
        self._cycles = [_mixed(of_queue) for of_queue in queues.values()]
        self._places = [0] * len(self._cycles)
        self._next = 0
        self._firsts = {n: _First(first_lane(queue), lanes) for n, (queue, lanes) in enumerate(queues.items())
                        if len(lanes) > 1 and first_lane(queue) in lanes}  # fmt: skip

    def share_out(self, jobs: int) -> dict[str, int]:
        """How many of the next so many jobs each lane may fill first. Lanes that get none are left out; so are first
        lanes, see ``giving_way``."""
        shares: dict[str, int] = {}
        count = len(self._cycles)
        if not count:
            return shares
        for first in self._firsts.values():
            first.way = []
        for n in range(min(jobs, count)):
            queue = (self._next + n) % count
            cycle, place = self._cycles[queue], self._places[queue]
            turns = jobs // count + (n < jobs % count)
            for turn in range(place, place + turns):
                one = cycle[turn % len(cycle)]
                shares[one] = shares.get(one, 0) + 1
            self._places[queue] = (place + turns) % len(cycle)
            if queue in self._firsts:
                first = self._firsts[queue]
                first.may_take([cycle[turn % len(cycle)] for turn in range(place, place + turns)])
        self._next = (self._next + jobs) % count
        return shares

    def giving_way(self) -> dict[str, list[str]]:
        """For each first lane the places that it may take of the latest shares: by the lanes that give up one, in this
        order, for each job that it brings."""
        return {first.lane: first.way for first in self._firsts.values() if first.way}

    def came(self, lanes: Iterable[str]) -> None:
        """What the latest shares brought, as the lane of each job."""
        if not self._firsts:
            return
        brought = Counter(lanes)
        for queue, first in self._firsts.items():
            self._places[queue] = (self._places[queue] - first.took(brought)) % len(self._cycles[queue])


class _First:
    """The first lane of a queue, and what it owes to the others."""

    def __init__(self, lane: str, lanes: Sequence[str]) -> None:
        self.lane = lane
        self.way: list[str] = []
        """The turns that it may take, as the lanes that they are taken from."""
        self._others = [one for one in lanes if one != lane]
        self._owed = 0

    def may_take(self, turns: list[str]) -> None:
        self.way = turns[::-1][: max(0, len(turns) - self._owed)]

    def took(self, brought: Mapping[str, int]) -> int:
        """Notes what came. Returns how many turns of others it took."""
        mine, theirs = brought.get(self.lane, 0), sum(brought.get(one, 0) for one in self._others)
        taken = min(mine, len(self.way))
        # More than it might take: what the others left over, as they had no more.
        self._owed = 0 if mine > taken or not brought else max(0, self._owed + mine - theirs)
        return taken


def _mixed(lanes: Sequence[str]) -> list[str]:
    """Each lane of a queue as often as its weight, evenly mixed: smooth weighted round robin, as nginx does it.

    The turns of lanes that don't exist are those of the highest that does, as if they existed and were empty.
    """
    there = {priority_of(one): one for one in by_priority(lanes)}
    if len(there) > 1:
        there.pop(FIRST, None)  # it has no turns of its own
    highest = next(iter(there.values()))
    total, credit, cycle = sum(WEIGHTS.values()), dict.fromkeys(WEIGHTS, 0), list[str]()
    for _ in range(total):
        for priority, weight in WEIGHTS.items():
            credit[priority] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        cycle.append(there.get(chosen, highest))
    return cycle

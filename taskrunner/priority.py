"""Priorities: each queue has three lanes, and to the server a lane is a queue of its own.

The rule: of ten jobs that a worker takes from a queue while all three priorities wait, seven are high, two normal and
one is low. So nothing starves, and where some priority has no job, the highest one that has takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PRIORITIES = ("high", "normal", "low")
WEIGHTS = {"high": 7, "normal": 2, "low": 1}
"""Of ten jobs of a queue that a worker takes, so many are of this priority while all three wait."""


def lane(queue: str, priority: str) -> str:
    """The name of a lane: the queue's own for normal jobs, else ``QUEUE/PRIORITY``, which no queue can be called."""
    return queue if priority == "normal" else f"{queue}/{priority}"


def lanes(queue: str) -> tuple[str, ...]:
    """All lanes of a queue, whether they exist or not, the highest first."""
    return tuple(lane(queue, priority) for priority in PRIORITIES)


def queue_of(lane: str) -> str:
    """The queue that a lane belongs to: the name that people see."""
    return lane.partition("/")[0]


def priority_of(lane: str) -> str:
    """The priority of the jobs in a lane."""
    return lane.partition("/")[2] or "normal"


def by_priority(lanes: Iterable[str]) -> list[str]:
    """These lanes, the highest priorities first, else in their order."""
    return sorted(lanes, key=lambda lane: PRIORITIES.index(priority_of(lane)))


class Turns:
    """Whose turn it is: the queues in equal shares, and in each queue its lanes by their weights, evenly mixed.

    It goes on where it ended, so that a worker that takes jobs one by one keeps to the rule as well.
    """

    def __init__(self, lanes: Sequence[str]) -> None:
        queues: dict[str, list[str]] = {}
        for one in lanes:
            queues.setdefault(queue_of(one), []).append(one)
        self._cycles = [_mixed(of_queue) for of_queue in queues.values()]
        self._places = [0] * len(self._cycles)
        self._next = 0

    def share_out(self, jobs: int) -> dict[str, int]:
        """How many of the next so many jobs each lane may fill first; lanes that get none are left out."""
        shares: dict[str, int] = {}
        count = len(self._cycles)
        if not count:
            return shares
        for n in range(min(jobs, count)):
            queue = (self._next + n) % count
            cycle, place = self._cycles[queue], self._places[queue]
            turns = jobs // count + (n < jobs % count)
            for turn in range(place, place + turns):
                one = cycle[turn % len(cycle)]
                shares[one] = shares.get(one, 0) + 1
            self._places[queue] = (place + turns) % len(cycle)
        self._next = (self._next + jobs) % count
        return shares


def _mixed(lanes: Sequence[str]) -> list[str]:
    """Each lane of a queue as often as its weight, evenly mixed: smooth weighted round robin, as nginx does it.

    The turns of lanes that don't exist are those of the highest that does, as if they existed and were empty.
    """
    there = {priority_of(one): one for one in by_priority(lanes)}
    highest = next(iter(there.values()))
    total, credit, cycle = sum(WEIGHTS.values()), dict.fromkeys(WEIGHTS, 0), list[str]()
    for _ in range(total):
        for priority, weight in WEIGHTS.items():
            credit[priority] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        cycle.append(there.get(chosen, highest))
    return cycle

"""Canceller: ends what this worker has of jobs that somebody cancels. On the server they have ended already: a notice
only says so, and one that is lost costs no more than a run that goes on until the next heartbeat."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from ..envelope import Arrival, Delivery
from ..feature import Recipe
from ..priority import queue_of
from .executor import Executor
from .inventory import Inventory
from .runs import CANCELLED

log = logging.getLogger("taskrunner.worker")

REMEMBERED = 10.0
"""Seconds that an entry is remembered which was cancelled and is not here: longer than a reply to a fetch lies unread
while the event loop is busy."""
MOST_REMEMBERED = 10_000

Entry = tuple[int, str, bytes]
"""Partition, lane, entry id."""


class Canceller:
    """Notices → inbox and executor, for one worker."""

    def __init__(
        self,
        inventory: Inventory,
        executor: Executor,
        lookup: Callable[[Delivery], Recipe | None],
        partitions: Mapping[str, int],
        queues: Collection[str],
    ) -> None:
        self._inventory = inventory
        self._executor = executor
        self._lookup = lookup
        self._partitions = partitions
        self._queues = frozenset(queues)
        self._expected: dict[Entry, float] = {}  # until when, the oldest first
        self._telling: set[asyncio.Task[None]] = set()

    def heard(self, channel: str, lane: str, entry: bytes) -> None:
        """An entry of a lane was cancelled, which a worker held; ``channel`` tells its partition."""
        partition = self._partitions.get(channel)
        if partition is None or queue_of(lane) not in self._queues:
            return
        held = [
            one
            for one in self._inventory.held
            if one.entry_id == entry and one.queue == lane and one.partition == partition
        ]
        if not held:
            self._expect((partition, lane, entry))
            return
        running = set(self._executor.running())
        self._inventory.revoke(held)
        self._executor.interrupt(held, CANCELLED)
        for arrival in held:
            if arrival not in running:  # it never starts, or its outcome is on the way and will be refused
                self._tell(arrival)

    # -- what is still on its way ----------------------------------------------------------------------------

    def _expect(self, entry: Entry) -> None:
        """The reply to a fetch may bring it yet: the notice and the reply come over two connections."""
        now = time.monotonic()
        for old in [one for one, until in self._expected.items() if until < now]:
            del self._expected[old]
        if len(self._expected) == MOST_REMEMBERED:
            del self._expected[next(iter(self._expected))]
        self._expected[entry] = now + REMEMBERED
        self._inventory.sieve = self._sift

    def _sift(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """What of it may be taken."""
        now, wanted = time.monotonic(), list[Arrival]()
        for arrival in arrivals:
            until = self._expected.pop((arrival.partition, arrival.queue, arrival.entry_id), None)
            if until is None:
                wanted.append(arrival)
            else:
                self._tell(arrival)
        if not self._expected or next(reversed(self._expected.values())) < now:
            self._expected.clear()
            self._inventory.sieve = None
        return wanted

    # -- hooks -----------------------------------------------------------------------------------------------

    def _tell(self, arrival: Arrival) -> None:
        """Tells the hooks, in the background. Of a run that is cut the executor tells, when that has ended."""
        if not isinstance(arrival, Delivery):
            return
        try:
            recipe = self._lookup(arrival)
        except Exception as error:  # options that came along, from another release or a stranger
            log.debug("nobody is told that job %s was cancelled: %r", arrival.envelope.id, error)
            return
        if recipe is not None and recipe.announce is not None:
            telling = asyncio.ensure_future(recipe.announce("cancel", arrival, None, 0.0))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def told(self, timeout: float) -> None:
        """Waits until the hooks have been told, up to ``timeout`` seconds."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=timeout)

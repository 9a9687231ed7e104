"""Usher: asks for the seats and permits of what has arrived, before it may start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..envelope import Arrival, Delivery, Extra
from ..failpoints import reach
from ..outcome import Settlement
from ..store.store import BATCH, Store
from .inventory import Inventory


class Usher:
    """Arrivals → Seating → inbox. What needs nothing passes at once.

    Whoever calls it lets nobody else take the same entries meanwhile. What was admitted before is admitted again when
    it is asked for again: so after a lost reply a sweep brings it back. ``refusal`` tells what a job comes to that is
    not to be run here anyhow, or None: for such a one nothing is asked, so it spends no permit and takes no seat.
    """

    def __init__(
        self, store: Store, inventory: Inventory, refusal: Callable[[Delivery], Settlement | None] | None = None
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._refusal = refusal

    async def take(self, arrivals: Sequence[Arrival], stopping: bool = False) -> None:
        """Into the inbox with all that may start; what the server keeps back is forgotten. ``stopping``: what would
        have to be asked for goes back, as nothing more starts.

        Raises RedisError; then some of what has arrived may be ours without being known here.
        """
        waiting = self.let_in(arrivals, stopping)
        if waiting:
            await self.ask(waiting)

    def let_in(self, arrivals: Sequence[Arrival], stopping: bool = False) -> list[Delivery]:
        """The first half of ``take``, which waits for nothing. Returns those that have to be asked for."""
        waiting = [one for one in arrivals if type(one) is Delivery and Extra.NEEDS in one.envelope.extras]
        if not waiting:
            self._inventory.take(arrivals)
            return waiting
        if len(waiting) < len(arrivals):  # the others don't wait for these
            asking = set(waiting)
            self._inventory.take([one for one in arrivals if one not in asking])
        if stopping:
            self._inventory.hand_back(waiting)
            return []
        wanted = self._inventory.worth_asking(self._welcome(waiting))
        # In the books while it asks: heartbeats renew them, no sweep takes them, and a cancellation finds them.
        self._inventory.held.update(wanted)
        return wanted

    async def ask(self, waiting: Sequence[Delivery]) -> None:
        """The second half of ``take``. Raises as that does."""
        lanes: dict[tuple[int, str], list[Delivery]] = {}
        for one in waiting:
            lanes.setdefault((one.partition, one.queue), []).append(one)
        asked = 0
        with self._inventory.asking_for(len(waiting)):
            try:
                for (partition, lane), deliveries in lanes.items():
                    for start in range(0, len(deliveries), BATCH):
                        await self._ask(partition, lane, deliveries[start : start + BATCH])
                        asked += len(deliveries[start : start + BATCH])
            except BaseException:
                left = [one for deliveries in lanes.values() for one in deliveries][asked:]
                self._inventory.held.difference_update(left)
                self._inventory.revoked.difference_update(left)
                raise

    def _welcome(self, waiting: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that are not refused; what the others come to is recorded."""
        if self._refusal is None:
            return waiting
        welcome: list[Delivery] = []
        welcomed = ""  # a task; whoever has only a lock besides is welcome as the one before
        for one in waiting:
            if one.lock and one.envelope.task == welcomed:
                welcome.append(one)
                continue
            settlement = self._refusal(one)
            if settlement is None:
                welcome.append(one)
                welcomed = one.envelope.task if one.lock else ""
            else:
                self._inventory.turn_away(settlement)
        return welcome

    async def _ask(self, partition: int, lane: str, deliveries: Sequence[Delivery]) -> None:
        inventory = self._inventory
        reach("before_admit")
        grants = await self._grants(partition, lane, deliveries)
        reach("after_admit")
        admitted: list[Delivery] = []
        for one, grant in zip(deliveries, grants, strict=True):
            one.grant = grant
            if one not in inventory.held:  # cancelled or lost meanwhile
                inventory.revoked.discard(one)
                inventory.vacate(one)
            elif grant:
                admitted.append(one)
            else:
                inventory.held.discard(one)
        inventory.take(admitted)

    async def _grants(self, partition: int, lane: str, deliveries: Sequence[Delivery]) -> list[int]:
        """The short way first, for those that may go it."""
        seating, keys = self._store.seating, self._store.partitions[partition]
        began = time.monotonic()
        young = began - self._store.options.beat / 2
        quick = [one for one in deliveries if one.lock and one.deliveries == 1 and one.fetched_at > young]
        known: dict[Delivery, int] = {}
        if quick:
            sat = await seating.sit(keys, quick)
            if len(quick) == len(deliveries) and 0 not in sat:
                return sat
            known = {one: grant for one, grant in zip(quick, sat, strict=True) if grant}
        others = [one for one in deliveries if one not in known]
        for one, grant in zip(others, await seating.admit(keys, lane, others), strict=True):
            known[one] = grant
            one.fetched_at = began  # renewed, if it was not as young as that
        return [known[one] for one in deliveries]

"""Warden: no run outlives its seats, and no seat its run.

A run that holds seats is cut when no heartbeat has renewed it for three quarters of its reservation: soon others may
start what must not run beside it. Runs that hold none go on; their outcomes are recorded, or refused. A thread can't be
cut; it is told by ``ctx.cancelled``.

The seats of a job that is cancelled are held until its run has ended: the server keeps them for a reservation, and here
they are renewed while the run goes on, and freed when it has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal

from ..envelope import Arrival, Delivery, Extra
from ..store.store import BATCH, Store
from .executor import Executor
from .inventory import Inventory
from .runs import UNSAFE, has_lapsed

log = logging.getLogger("taskrunner.worker")

LOOKS = 16
"""Looks per reservation: what comes too late by one of them is still an eighth of a reservation early."""


class Warden:
    """Inventory → executor, and Seating, for one worker."""

    def __init__(self, store: Store, inventory: Inventory, executor: Executor) -> None:
        self._store = store
        self._inventory = inventory
        self._executor = executor
        self._pause = store.options.beat * 4 / LOOKS  # the beat is a quarter of the shortest reservation
        self._clear = asyncio.Event()

    async def watch(self) -> None:
        """Cuts runs whose reservations may soon be over. Asks nobody, so no outage holds it up."""
        reservation = self._store.options.reservation
        while True:
            await asyncio.sleep(self._pause)
            unsafe = [
                one for one in self._executor.running() if isinstance(one, Delivery) and has_lapsed(one, reservation)
            ]
            cut = self._executor.interrupt(unsafe, UNSAFE) if unsafe else 0
            if cut:
                log.error(
                    "%d runs that hold a lock or a place of a limit are cut: no heartbeat was confirmed for three "
                    "quarters of their reservation, and others may soon start; their jobs go back",
                    cut,
                )

    async def tend(self) -> None:
        """Frees the seats of runs that have ended without a recorded outcome; renews those of runs that go on."""
        inventory, changed = self._inventory, self._inventory.seats_changed
        while True:
            self._clear.set()
            try:
                await asyncio.wait_for(changed.wait(), self._store.options.beat if inventory.outliving else None)
            except TimeoutError:
                pass
            changed.clear()
            self._clear.clear()
            try:
                await self._tell("renew", inventory.outliving)
                ended = list(inventory.vacated)
                await self._tell("free", ended)
                del inventory.vacated[: len(ended)]
            except BaseException:
                changed.set()  # started anew it goes on where it was
                raise

    async def freed(self, timeout: float) -> bool:
        """Waits until what has ended holds no seats; False when that takes longer than ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._inventory.vacated:
                    await self._clear.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            return False
        return True

    async def _tell(self, how: Literal["renew", "free"], runs: Iterable[Arrival]) -> None:
        by_partition: dict[int, list[tuple[str, int, str]]] = {}
        for one in runs:
            if isinstance(one, Delivery):
                run = (one.envelope.id, one.grant, one.envelope.extras[Extra.NEEDS])
                by_partition.setdefault(one.partition, []).append(run)
        for number, found in by_partition.items():
            for start in range(0, len(found), BATCH):
                await self._store.seating.tend(self._store.partitions[number], how, found[start : start + BATCH])

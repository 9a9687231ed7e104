"""Settler: records what finished. At most one settle is in flight; whatever finishes meanwhile is the next batch, so an
idle worker settles at once and a busy one in large batches, without any timer."""

from __future__ import annotations

import asyncio
import logging
import math

from ..envelope import Delivery
from ..errors import RedisError
from ..failpoints import reach
from ..outcome import Expired, Failed, Settlement, Succeeded
from ..store.persist import wait_before
from ..store.store import BATCH, BATCH_BYTES, Store
from .inventory import Inventory

log = logging.getLogger("taskrunner.worker")


class Settler:
    """Outbox → Store.settle, until there is a verdict: an outage keeps outcomes here, it doesn't lose them."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        self._batch: list[Settlement] = []
        self.empty = asyncio.Event()
        self.empty.set()

    async def run(self) -> None:
        outbox, finished = self._inventory.outbox, self._inventory.finished
        while True:
            if not outbox and not self._batch:
                self.empty.set()
                finished.clear()
                await finished.wait()
            self.empty.clear()
            # Kept until there is a verdict: should this role be started anew, it goes on where it was.
            self._batch = self._batch or self._next()
            reach("before_settle")
            await self._settle(self._batch)
            self._batch = []

    async def drained(self, timeout: float) -> bool:
        """Waits until everything that finished is recorded; False when that takes longer than ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._inventory.outbox or self._batch:
                    await self.empty.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            return False
        return True

    def _next(self) -> list[Settlement]:
        """The next outcomes of one queue and partition, as one script settles them."""
        outbox = self._inventory.outbox
        first = outbox[0].delivery
        queue, partition = first.queue, first.partition
        batch: list[Settlement] = []
        size = 0
        for one in outbox[:BATCH]:
            if one.delivery.queue == queue and one.delivery.partition == partition:
                size += _size(one)
                if batch and size > BATCH_BYTES:
                    break
                batch.append(one)
        if len(batch) == len(outbox[:BATCH]):
            del outbox[:BATCH]
        else:
            taken = set(map(id, batch))
            outbox[:BATCH] = [one for one in outbox[:BATCH] if id(one) not in taken]
        return batch

    async def _settle(self, batch: list[Settlement]) -> None:
        failures = 0
        while True:
            try:
                await self._record(batch)
                return
            except RedisError as error:
                # Outages are waited out in the store; this is a refusal (rights, foreign data) that an operator mends.
                failures += 1
                log.error("outcomes can't be recorded, trying again: %s", error)
                await asyncio.sleep(wait_before(failures + 4))
                if self._inventory.outbox:
                    self._inventory.outbox += batch  # those of other queues need not wait for it
                    return
            except Exception:
                if len(batch) > 1:
                    for one in batch:
                        await self._settle([one])
                    return
                log.exception("an outcome can't be put into words; its job stays pending and will be taken again")
                self._inventory.held.discard(batch[0].delivery)
                self._inventory.vacate(batch[0].delivery)
                return

    async def _record(self, batch: list[Settlement]) -> None:
        inventory = self._inventory
        first, held = batch[0].delivery, inventory.held
        verdicts = await self._store.settle(
            first.partition, first.queue, batch, len(held), inventory.meter.load(), math.inf
        )
        reach("after_settle")
        deliveries = [one.delivery for one in batch]
        held.difference_update(deliveries)
        if inventory.outliving:
            inventory.outliving.difference_update(deliveries)
        savers = [one for one in batch if one.delivery.saved]
        inventory.room_made.set()  # a full outbox stops the fetcher too, and then nothing may be in hand that wakes it
        if savers:
            accepted = {id(one) for one, verdict in zip(batch, verdicts, strict=True) if verdict != ord("0")}
            await self._expire_saved([one for one in savers if id(one) in accepted])
        if b"0" not in verdicts:
            return
        stale = [one for one, verdict in zip(batch, verdicts, strict=True) if verdict == ord("0")]
        ids = [_name(one) for one in stale if one.delivery not in inventory.revoked]
        for one in stale:
            inventory.revoked.discard(one.delivery)
            inventory.vacate(one.delivery)
        refused = len(ids)
        if refused:
            inventory.lost += refused
            log.warning("%d outcomes were refused, other workers hold these jobs now: %s", refused, ", ".join(ids[:5]))

    async def _expire_saved(self, savers: list[Settlement]) -> None:
        """What jobs that have ended saved is known as long as their outcomes; should this fail, for some days."""
        ended = [one for one in savers if isinstance(one.outcome, (Succeeded, Failed, Expired))]
        try:
            await self._store.expire_saved(ended)
        except RedisError as error:
            log.warning("saved values stay for some days: %s", error)


def _size(settlement: Settlement) -> int:
    """About how many bytes are sent for it: a result, or the letter that goes back or to the dead letters."""
    delivery, outcome = settlement.delivery, settlement.outcome
    if isinstance(outcome, Succeeded):
        return len(outcome.result or b"")
    if isinstance(delivery, Delivery):
        return len(delivery.envelope.payload) + len(delivery.envelope.previous)
    return sum(map(len, delivery.raw))


def _name(settlement: Settlement) -> str:
    delivery = settlement.delivery
    return getattr(getattr(delivery, "envelope", None), "id", None) or delivery.entry_id.decode()

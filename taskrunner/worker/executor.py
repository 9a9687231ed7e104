"""Executor: long-lived slots that take from the inbox, run, and put an outcome into the outbox. It knows no Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from typing import NoReturn

from ..envelope import FOLLOWED, KEPT, Arrival, Delivery, Extra, Unreadable
from ..errors import Signal
from ..feature import Lapsed, PackingError, Recipe
from ..outcome import Again, Expired, Failed, Failure, Outcome, Released, Settlement, Succeeded, describe
from ..priority import queue_of
from .inventory import Inventory
from .runs import CANCELLED, SAFE, UNSAFE, Cut, Slot, cancel, has_lapsed, is_running

log = logging.getLogger("taskrunner.worker")

BURST = 0.005
"""Seconds that a slot may run jobs that never wait, before it lets the event loop do something else."""
UNKNOWN_WAIT = (5.0, 60.0)
"""Seconds after which a job of an unknown task is offered again: the first time, and the longest."""
UNKNOWN_TTL = 86_400.0
"""Seconds after which nobody is expected to know the task any more."""

Bury = Callable[[Arrival, Failed], Awaitable[None]]
Lookup = Callable[[Delivery], Recipe | None]


NOTHING_KEPT = Succeeded(None)


class Executor:
    """The slots of one worker.

    ``recipes`` by task name; ``lookup`` for deliveries that carry options of their own; ``bury`` is told of every job
    that fails for good before that is recorded; ``now`` gives server time in ms; ``confirmed`` gives the
    monotonic time at which the last confirmed heartbeat began.
    """

    def __init__(
        self,
        inventory: Inventory,
        recipes: Mapping[str, Recipe],
        lookup: Lookup,
        bury: Bury | None,
        now: Callable[[], int],
        confirmed: Callable[[], float],
        reservation: float,
        max_deliveries: int,
    ) -> None:
        self._inventory = inventory
        self._recipes = recipes
        self._lookup = lookup
        self._bury = bury
        self._now = now
        self._confirmed = confirmed
        # A beat leaves out what was fetched less than half a beat (an eighth of the reservation) before; the rest of
        # the quarter is for the beat's own way to the server and back.
        self._safe = reservation * SAFE
        self._reservation = reservation
        self._max_deliveries = max_deliveries
        self._slots: set[Slot] = set()
        self._written_off: list[Slot] = []
        self._context = copy_context()
        self._closing = False
        self._pid = os.getpid()

    # -- slots -----------------------------------------------------------------------------------------------

    def open(self, slots: int) -> None:
        for _ in range(slots):
            self._spawn()

    def _spawn(self) -> None:
        slot = Slot()
        context = self._context.copy()
        slot.task = asyncio.get_running_loop().create_task(self._work(slot, context), context=context)
        slot.task.add_done_callback(lambda task: self._ended(slot, task))
        self._slots.add(slot)

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("a slot of the executor died, a new one takes its place", exc_info=error)
        if slot.delivery is not None and not slot.settled:
            # As if its worker had died: without heartbeats it is delivered again, and that is counted.
            self._inventory.meter.finish(time.monotonic(), slot.started)
            self._inventory.drop(slot.delivery)
        self._spawn()

    async def close(self) -> None:
        """Ends the slots; what still runs in one has been given up before."""
        self._closing = True
        tasks = list[asyncio.Task[None]]()
        for slot in (*self._slots, *self._written_off):
            if slot.task is not None:
                cancel(slot, slot.task)
                tasks.append(slot.task)
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=0.5)
            for task in stubborn:
                # asyncio.run() waits for all tasks that it knows: a run that ignores every cancellation would keep the
                # process alive for ever.
                asyncio.tasks._unregister_task(task)

    def interrupt(self, deliveries: Iterable[Arrival], cut: Cut) -> int:
        """Ends the runs of these deliveries, wherever they are, and tells how many; what doesn't run is left alone."""
        wanted, ended = set(deliveries), 0
        for slot in self._slots:
            if slot.delivery not in wanted or slot.task is None:
                continue
            if slot.cut is None:
                slot.cut = cut
                cancel(slot, slot.task)
                ended += 1
            elif cut is CANCELLED:
                slot.cut = cut  # what it is being cut for already matters no more
        return ended

    def running(self) -> list[Arrival]:
        return [slot.delivery for slot in self._slots if slot.delivery is not None]

    def abandon(self) -> Sequence[Arrival]:
        """Runs that would not end: their slots are written off, and whatever they come to is ignored."""
        left = [slot for slot in self._slots if slot.delivery is not None]
        for slot in left:
            slot.settled = True
            self._slots.discard(slot)
        self._written_off += left
        runs = [slot.delivery for slot in left if slot.delivery is not None]
        if runs:
            names = ", ".join(_name(one) for one in runs[:5])
            log.error("%d runs are stuck, they ignore their cancellation, and are given up: %s", len(runs), names)
        return runs

    # -- one slot --------------------------------------------------------------------------------------------

    async def _work(self, slot: Slot, context: Context) -> None:
        inventory, meter, get = self._inventory, self._inventory.meter, self._inventory.inbox.get
        recipes, clock = self._recipes, time.monotonic
        clean = copy_context()
        burst = clock()
        while True:
            arrival = await get()
            started = clock()
            slot.delivery, slot.started = arrival, started
            meter.start(started)
            ttl = None
            outcome: Outcome | None
            if started - arrival.fetched_at > self._safe and started - self._confirmed() > self._safe:
                outcome = None  # its reservation may be over, and another worker may have it
            elif (
                type(arrival) is Delivery
                and arrival.deliveries == 1
                and (recipe := recipes.get(arrival.envelope.task)) is not None
                and recipe.straight
                and (
                    not arrival.envelope.extras
                    # admitted, so that no gate refuses it, and with nothing else out of the ordinary
                    or (arrival.grant and arrival.lock and started - arrival.fetched_at <= self._safe)
                )
            ):
                outcome, ttl = await self._run(slot, arrival, recipe), recipe.ttl
            else:
                outcome, ttl = await self._examine(slot, arrival)
            ended = clock()
            meter.finish(ended, started)
            slot.delivery = None
            if slot.settled:
                return
            if outcome is None:
                inventory.drop(arrival)
            else:
                inventory.finish(Settlement(arrival, outcome, ended - started, ttl))
            if copy_context() != clean or (slot.task is not None and slot.task.cancelling()):
                return  # the job left context variables or a cancellation behind: the next one gets a new slot
            if ended - burst > BURST:
                await asyncio.sleep(0)
                burst = clock()

    def refusal(self, delivery: Delivery) -> Settlement | None:
        """What a job comes to that is not to be run here, as can be seen before anybody asks whether it may run; or
        None. Whatever else speaks against it, the slot finds out."""
        known = self._recipes.get(delivery.envelope.task)
        if known is not None and known.straight and delivery.lock:
            return None
        try:
            recipe = self._lookup(delivery)
        except Exception:
            return None
        if recipe is None:
            outcome = self._unknown(delivery)
            return Settlement(delivery, outcome, 0.0) if isinstance(outcome, Released) else None
        now = self._now()
        for gate in recipe.gates:
            refused = gate(delivery, now)
            if refused is not None:
                return Settlement(delivery, refused, 0.0, recipe.ttl)
        return None

    async def _examine(self, slot: Slot, arrival: Arrival) -> tuple[Outcome | None, float | None]:
        """The longer way, for whatever isn't the first delivery of a job without extras, but a lock."""
        if isinstance(arrival, Unreadable):
            outcome = self._unreadable(arrival)
            if isinstance(outcome, Failed) and arrival.raw:
                await self._tell_buried(arrival, outcome)
            return outcome, None
        if has_lapsed(arrival, self._reservation):
            return Released(), None
        crashes = arrival.envelope.extras.get(Extra.DELIVERIES, 0)
        if arrival.deliveries + crashes > self._max_deliveries:
            text = f"{arrival.deliveries + crashes - 1} workers died or fell silent while they ran it"
            poison = Failed(Failure("DeliveryLimit", text), "delivery limit")
            known = self._recipes.get(arrival.envelope.task)
            if known is not None:
                return await self._announce(slot, arrival, known, poison, 0.0), known.ttl
            await self._tell_buried(arrival, poison)
            return poison, None
        try:
            recipe = self._lookup(arrival)
        except Exception as error:  # options that came along, from another release or a stranger
            unusable = Failed(describe(error), "its options can't be used")
            await self._tell_buried(arrival, unusable)
            return unusable, None
        if recipe is None:
            outcome = self._unknown(arrival)
            if isinstance(outcome, Failed):
                await self._tell_buried(arrival, outcome)
            return outcome, None
        now = self._now()
        for gate in recipe.gates:
            refused = gate(arrival, now)
            if refused is not None:
                return refused, recipe.ttl
        return await self._run(slot, arrival, recipe), recipe.ttl

    async def _run(self, slot: Slot, delivery: Delivery, recipe: Recipe) -> Outcome | None:
        outcome: Outcome
        began = time.monotonic()
        try:
            if recipe.announce is not None:
                await recipe.announce("start", delivery, None, 0.0)
            result = await recipe.invoke(delivery)
            kept = delivery.envelope.flags & (KEPT | FOLLOWED) or recipe.hands_on
            outcome = Succeeded(recipe.pack(result)) if kept else NOTHING_KEPT
        except PackingError as error:
            outcome = Failed(describe(error.cause), error.reason)
        except BaseException as error:
            cut = slot.cut
            # Whatever it makes of being cancelled (a driver raises an error of its own) is not the job's failure; a
            # Retry, Snooze or GiveUp is the task's own word about it.
            said = isinstance(error, (Signal, SystemExit, KeyboardInterrupt))
            if isinstance(error, GeneratorExit) and not is_running(slot):
                raise  # the slot itself is being closed, because its event loop has ended
            if cut is CANCELLED:
                outcome = NOTHING_KEPT
            elif cut is not None and not said:
                self._uncut(slot)
                return cut.outcome
            elif isinstance(error, Lapsed):
                return UNSAFE.outcome
            elif self._closing:
                raise
            else:
                outcome = recipe.judge(error, delivery)
        finally:
            if os.getpid() != self._pid:
                _end_child(delivery)
        if slot.cut is not None and self._uncut(slot) is CANCELLED:
            await self._announce_cancel(slot, delivery, recipe, time.monotonic() - began)
            return None
        if recipe.announce is not None or isinstance(outcome, Failed):
            return await self._announce(slot, delivery, recipe, outcome, time.monotonic() - began)
        return outcome

    async def _announce(
        self, slot: Slot, delivery: Delivery, recipe: Recipe, outcome: Outcome, seconds: float
    ) -> Outcome | None:
        """Tells the hooks what the run came to. A stop in the middle of it changes nothing about that."""
        try:
            if isinstance(outcome, Failed):
                await self._tell_buried(delivery, outcome)
            if recipe.announce is not None:
                await recipe.announce(_KINDS.get(type(outcome), ""), delivery, outcome, seconds)
        except asyncio.CancelledError:
            if slot.cut is None and self._closing:
                raise  # else it is a cancellation that the job left behind for itself
        if slot.cut is not None and self._uncut(slot) is CANCELLED:
            await self._announce_cancel(slot, delivery, recipe, seconds)
            return None
        return outcome

    async def _announce_cancel(self, slot: Slot, delivery: Delivery, recipe: Recipe, seconds: float) -> None:
        """Tells the hooks that the job was cancelled; whatever its run came to is thrown away."""
        if recipe.announce is None:
            return
        try:
            await recipe.announce("cancel", delivery, None, seconds)
        except asyncio.CancelledError:
            if slot.cut is None and self._closing:
                raise
        if slot.cut is not None:
            self._uncut(slot)

    @staticmethod
    def _uncut(slot: Slot) -> Cut | None:
        """Takes the cancellation back that a cut came with, and returns the cut."""
        cut, slot.cut = slot.cut, None
        if slot.task is not None:
            slot.task.uncancel()
        return cut

    # -- what can't be run -----------------------------------------------------------------------------------

    def _unknown(self, delivery: Delivery) -> Outcome:
        """A task that this worker doesn't know: a rolling deploy. Back, for a worker that does."""
        since = delivery.envelope.extras.get(Extra.UNKNOWN_SINCE)
        if since is not None and self._now() - since > UNKNOWN_TTL * 1000:
            text = f"no worker has known the task {delivery.envelope.task!r} for {UNKNOWN_TTL / 3600:.0f} hours"
            return Failed(Failure("UnknownTask", text), "unknown task")
        if since is None:
            log.warning("unknown task %r: job %s is handed back", delivery.envelope.task, delivery.envelope.id)
        return Released(UNKNOWN_WAIT[0] if since is None else random.uniform(*UNKNOWN_WAIT), unknown=True)

    def _unreadable(self, arrival: Unreadable) -> Outcome:
        if not arrival.raw:
            return Expired()
        if arrival.newer and (not arrival.since or self._now() - arrival.since < UNKNOWN_TTL * 1000):
            return Released(random.uniform(*UNKNOWN_WAIT))
        log.error(
            "an entry of queue %r can't be read: %s; it goes to the dead letters",
            queue_of(arrival.queue),
            arrival.problem,
        )
        return Failed(Failure("Unreadable", arrival.problem), "unreadable")

    async def _tell_buried(self, arrival: Arrival, failed: Failed) -> None:
        if self._bury is None:
            return
        try:
            await self._bury(arrival, failed)
        except Exception as error:
            log.error("the failed_task_handler itself failed: %s", describe(error).message, exc_info=error)


_KINDS: dict[type, str] = {Succeeded: "success", Failed: "failure", Again: "retry", Released: "release"}


def _end_child(delivery: Delivery) -> NoReturn:
    """A process that a task forked came back into the worker. It has our connections, and would read our replies."""
    log.critical("%s forked, and the child did not end itself with os._exit(); it is ended here", _name(delivery))
    os._exit(1)


def _name(arrival: Arrival) -> str:
    if isinstance(arrival, Delivery):
        return f"{arrival.envelope.task} {arrival.envelope.id}"
    return arrival.entry_id.decode()

"""Worker: builds the roles, starts them in one task group, and stops them in the right order.

The order of stopping: no new fetch; what has not started goes back; what runs gets until the deadline, then it is
cancelled and goes back too; everything is recorded; what the server still thinks we hold goes back; the worker signs
off. Heartbeats go on to the very end, else a slow stop would have its jobs taken away while they finish.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from ..envelope import Arrival
from ..errors import RedisConfigurationError, RedisError, RedisUnavailable
from ..feature import Recipe
from ..store.heart import Heart
from ..store.keys import PartitionKeys
from ..store.listen import Listener
from ..store.persist import wait_before
from ..store.schedules import Definition
from ..store.store import Store
from .auditor import Auditor
from .canceller import Canceller
from .courier import Courier
from .executor import Bury, Executor, Lookup
from .fetcher import Fetcher
from .inventory import Inventory
from .keeper import Keeper
from .lanes import Lanes
from .monitor import LongQueueHook, Monitor
from .promoter import Promoter
from .pruner import Pruner, tell_dropped
from .reclaimer import Reclaimer
from .runs import LOST, SHUTDOWN
from .scheduler import Scheduler
from .settler import Settler
from .unfolder import Unfolder
from .warden import Warden

log = logging.getLogger("taskrunner.worker")

CANCEL_GRACE = 2.0
"""Seconds that a cancelled run gets to clean up before it is written off."""
RECORD_GRACE = 10.0
"""Seconds that a stop waits for the last outcomes to be recorded; after that they run again elsewhere."""


@dataclass
class WorkerOptions:
    """What a worker must know. Durations in seconds; ``error`` is told of failures of our own machinery.

    ``lanes`` are those of its ``queues`` that it makes itself; ``caps`` the queues of which only so many jobs may run.
    """

    queues: Sequence[str]
    lanes: Sequence[str]
    caps: Mapping[str, int]
    recipes: Mapping[str, Recipe]
    lookup: Lookup
    bury: Bury | None
    error: Callable[[str, BaseException], Awaitable[None]]
    slots: int
    batch_size: int
    max_deliveries: int
    shutdown_timeout: float
    max_loop_block: float
    replication_factor: int | None
    hooks: Sequence[LongQueueHook] = ()
    schedules: Sequence[Definition] = ()
    prune_schedules: bool = False


class Worker:
    """All roles of one process. ``run`` works until ``stop`` is set, then drains."""

    def __init__(self, store: Store, heart: Heart, listener: Listener, options: WorkerOptions) -> None:
        self._store = store
        self._options = options
        self._listener = listener
        self.inventory = Inventory(options.slots, options.caps)
        self.executor = Executor(
            self.inventory,
            options.recipes,
            options.lookup,
            options.bury,
            store.clock.now,
            lambda: self.keeper.confirmed,
            store.options.reservation,
            options.max_deliveries,
        )
        store.on_drop = tell_dropped
        self.settler = Settler(store, self.inventory)
        self.warden = Warden(store, self.inventory, self.executor)
        self.keeper = Keeper(heart, self.inventory, self._facts, self._lost, store.options.beat, options.max_loop_block)
        self.fetchers: list[Fetcher] = []
        self.promoters: dict[str, Promoter] = {}
        self.unfolders: dict[str, Unfolder] = {}
        self.couriers: dict[str, Courier] = {}
        self.scheduler = Scheduler(store, options.schedules, options.prune_schedules)
        self.lanes = {
            partition.wake: Lanes(store, partition, options.queues, options.lanes, self.inventory)
            for partition in store.partitions
        }
        partitions = {partition.wake: partition.number for partition in store.partitions}
        self.canceller = Canceller(self.inventory, self.executor, options.lookup, partitions, options.queues)
        self.stop = asyncio.Event()
        self._hurry = asyncio.Event()

    # -- what others see -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True while it claims jobs: connected, not stopping, its loop alive."""
        fetching = bool(self.fetchers) and all(fetcher.connected for fetcher in self.fetchers)
        return fetching and not self.stop.is_set() and not self.keeper.silent

    def heard(self, channel: str, data: bytes) -> None:
        """A notice from the server. On a wake channel: an earlier due time, a new lane, another pause, an end."""
        if data == b"schedule" and channel == self._store.partitions[0].wake:
            self.scheduler.wake.set()
        elif data == b"due" and channel in self.promoters:
            self.promoters[channel].wake.set()
        elif data == b"unfold" and channel in self.unfolders:
            self.unfolders[channel].wake.set()
        elif data == b"outbox" and channel in self.couriers:
            self.couriers[channel].wake.set()
        elif data.startswith((b"lane", b"paused")) and channel in self.lanes:
            self.lanes[channel].tell(data.decode().partition(" ")[2])
        elif data.startswith(b"cancel "):
            _, lane, entry = data.split(b" ", 2)
            self.canceller.heard(channel, lane.decode(), entry)

    def look_again(self) -> None:
        """Notices may have been lost."""
        self.scheduler.wake.set()
        sleepers: list[Promoter | Unfolder | Courier] = [*self.promoters.values(), *self.unfolders.values()]
        for sleeper in (*sleepers, *self.couriers.values()):
            sleeper.wake.set()
        for lanes in self.lanes.values():
            lanes.wake.set()

    def hurry(self) -> None:
        """Ends a graceful stop at once: what still runs is cancelled and handed back."""
        self.stop.set()
        self._hurry.set()

    def _facts(self) -> dict[str, Any]:
        return {
            "slots": self._options.slots,
            "queues": list(self._options.queues),
            "caps": self.inventory.caps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "running": self.inventory.in_hand,
            "lost": self.inventory.lost,
        }

    def _lost(self, deliveries: Sequence[Arrival]) -> None:
        before = self.inventory.lost
        self.inventory.forfeit(deliveries)
        # The others among them were settled while the beat was under way, which is no loss.
        lost = self.inventory.lost - before + self.executor.interrupt(deliveries, LOST)
        if lost:
            log.warning("%d reservations were lost, these jobs have moved on or ended; their runs here are cut", lost)

    # -- the life of a worker --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Works until ``stop`` is set, then drains and signs off."""
        self.keeper.start()
        try:
            if not await self._prepare():
                return
            self.executor.open(self._options.slots)
            async with anyio.create_task_group() as recording:
                recording.start_soon(self._supervise, "settler", self.settler.run)
                recording.start_soon(self._supervise, "warden", self.warden.watch)
                recording.start_soon(self._supervise, "warden of seats", self.warden.tend)
                async with anyio.create_task_group() as roles:
                    self._start_roles(roles)
                    await self.stop.wait()
                    await self._end_fetching()
                    roles.cancel_scope.cancel()
                await self._drain()
                recording.cancel_scope.cancel()
        finally:
            await self.executor.close()
            await self.keeper.stop()

    async def _prepare(self) -> bool:
        """Connects, makes groups, says hello; for as long as it takes. False when stopped before."""
        attempts = 0
        while not self.stop.is_set():
            try:
                await self._store.open()
                for lanes in self.lanes.values():
                    await lanes.refresh()
                await self.keeper.beat_now()
                await self._warn_of_eviction()
                return True
            except RedisError as error:
                attempts += 1
                if attempts == 1 or isinstance(error, RedisConfigurationError):
                    log.warning("the worker can't start yet: %s", error)
                try:
                    await asyncio.wait_for(self.stop.wait(), wait_before(attempts))
                except TimeoutError:
                    continue
        return False

    async def _warn_of_eviction(self) -> None:
        policy = await self._store.evicts()
        if policy:
            log.error(
                "the server's maxmemory-policy is %s: when its memory is full it deletes keys, and with them jobs that "
                "were accepted; set it to noeviction, which makes dispatch raise QueueFull",
                policy,
            )

    def _start_roles(self, roles: anyio.abc.TaskGroup) -> None:
        store, options = self._store, self._options
        for partition in store.partitions:
            lanes = self.lanes[partition.wake]
            fetchers = self._fetchers_of(partition, lanes)
            self.fetchers += fetchers
            for fetcher in fetchers:
                roles.start_soon(self._supervise, "fetcher", fetcher.run)
            promoter = self.promoters[partition.wake] = Promoter(store, partition, lanes)
            roles.start_soon(self._supervise, "promoter", promoter.run)
            unfolder = self.unfolders[partition.wake] = Unfolder(store, partition)
            roles.start_soon(self._supervise, "unfolder", unfolder.run)
            if len(store.partitions) > 1:
                courier = self.couriers[partition.wake] = Courier(store, partition)
                roles.start_soon(self._supervise, "courier", courier.run)
            reclaimer = Reclaimer(
                store,
                partition,
                lanes,
                self.inventory,
                partial(_look_again, fetchers),
                lambda: self.keeper.confirmed,
                options.max_deliveries,
                self.executor.refusal,
            )
            roles.start_soon(self._supervise, "reclaimer", reclaimer.run)
            roles.start_soon(self._supervise, "lanes", lanes.run)
            auditor = Auditor(store, partition)
            roles.start_soon(self._supervise, "auditor", auditor.run)
            roles.start_soon(self._supervise, "auditor of workflows", auditor.run_workflows)
            roles.start_soon(self._supervise, "pruner", Pruner(store, partition, lanes).run)
        roles.start_soon(self._supervise, "scheduler", self.scheduler.run)
        if options.hooks:
            monitor = Monitor(store, options.hooks, options.replication_factor)
            roles.start_soon(self._supervise, "monitor", monitor.run)

    def _fetchers_of(self, partition: PartitionKeys, lanes: Lanes) -> list[Fetcher]:
        """One for each queue with a cap, so that none waits for another one's room, and one for all the others."""
        store, options, inventory = self._store, self._options, self.inventory
        open_queues = [queue for queue in options.queues if queue not in inventory.caps]
        groups: list[tuple[Sequence[str], str | None]] = [((queue,), queue) for queue in inventory.caps]
        if open_queues:
            groups.append((open_queues, None))
        return [
            Fetcher(
                store,
                store.reader(partition),
                lanes,
                queues,
                inventory,
                self.keeper,
                options.batch_size,
                capped,
                self.executor.refusal,
            )
            for queues, capped in groups
        ]

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs a role until it returns. An outage or a bug in it is told and waited out; no role ends silently."""
        failures, began = 0, time.monotonic()
        while True:
            try:
                await run()
                return
            except RedisUnavailable as error:
                failures = failures + 1 if time.monotonic() - began < 10 else 1
                log.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s: %s", name, error)
            except Exception as error:
                failures = failures + 1 if time.monotonic() - began < 10 else 1
                if isinstance(error, RedisError):  # for an operator, who needs no traceback of ours
                    log.error("%s: %s", name, error)
                else:
                    log.exception("%s failed and is started anew", name)
                await self._options.error(name, error)
            began = time.monotonic()
            await asyncio.sleep(wait_before(failures))

    async def _end_fetching(self) -> None:
        for fetcher in self.fetchers:
            await fetcher.stop()

    async def _drain(self) -> None:
        inventory, deadline = self.inventory, time.monotonic() + self._options.shutdown_timeout
        inventory.hand_back(inventory.empty_inbox())
        if not await self._idle_before(deadline):
            late = self.executor.running()
            log.warning("%d jobs are cancelled and handed back: the shutdown timeout is over", len(late))
            self.executor.interrupt(late, SHUTDOWN)
            await _within(inventory.idle, CANCEL_GRACE)
            stuck = self.executor.abandon()
            inventory.leave_running(one for one in stuck if one.seated)
            inventory.hand_back(one for one in stuck if not one.seated)
        await self.canceller.told(CANCEL_GRACE)
        if not await self.settler.drained(RECORD_GRACE):
            log.error("%d outcomes could not be recorded; their jobs will run again", len(inventory.outbox))
            return
        if not await self.warden.freed(RECORD_GRACE):
            log.warning("the seats of %d cancelled jobs could not be freed; they expire", len(inventory.vacated))
        try:
            await asyncio.wait_for(self._sign_off(), RECORD_GRACE)
        except (RedisError, TimeoutError) as error:
            log.warning("the worker could not sign off (%s); others will tidy up", error)

    async def _idle_before(self, deadline: float) -> bool:
        """Waits until nothing runs; False when the deadline comes first, or a hurry."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.inventory.idle, self._hurry)]
        await asyncio.wait(waits, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self.inventory.idle.is_set()

    async def _sign_off(self) -> None:
        for fetcher in self.fetchers:
            self.inventory.hand_back(await fetcher.sweep())
        await self.settler.drained(RECORD_GRACE)
        await self.keeper.stop()  # after this no beat can write the worker back into the registry
        for partition in self._store.partitions:
            await self._store.leave(partition, self.lanes[partition.wake].all)


def _look_again(fetchers: Sequence[Fetcher]) -> None:
    for fetcher in fetchers:
        fetcher.look_again()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    except TimeoutError:
        return event.is_set()
    return True

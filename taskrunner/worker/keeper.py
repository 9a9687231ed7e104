"""Keeper: heartbeats for everything that the worker holds, from a thread, so that a busy event loop keeps its jobs.

A loop that is wedged must lose them: the thread falls silent when the loop has not ticked for ``max_loop_block``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..envelope import Arrival
from ..errors import RedisError, RedisUnavailable
from ..failpoints import reach
from ..store.heart import Heart
from ..store.persist import wait_before
from .inventory import Inventory

log = logging.getLogger("taskrunner.worker")

TICK = 0.1
"""Seconds between the loop's signs of life; far below any block that matters."""


class Keeper:
    """The heartbeat thread, and its face towards the event loop."""

    def __init__(
        self,
        heart: Heart,
        inventory: Inventory,
        facts: Callable[[], dict[str, Any]],
        lost: Callable[[Sequence[Arrival]], None],
        beat: float,
        max_loop_block: float,
    ) -> None:
        self._heart = heart
        self._inventory = inventory
        self._facts = facts
        self._lost = lost
        self._beat = beat
        self._max_loop_block = max_loop_block
        self._loop = asyncio.get_running_loop()
        self._ticked = time.monotonic()
        self._ticker: asyncio.TimerHandle | None = None
        self._wake = threading.Condition()
        self._asked: list[asyncio.Future[None]] = []
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.confirmed = 0.0
        """monotonic time before the last beat that was confirmed; it renewed all that was older than half a beat."""
        self.silent = False

    def start(self) -> None:
        self._tick()
        self._thread = threading.Thread(target=self._run, name="taskrunner-heartbeat", daemon=True)
        self._thread.start()

    async def beat_now(self, timeout: float = 10.0) -> None:
        """A beat that begins after this call. Raises RedisUnavailable when none is confirmed in time."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            self._asked.append(done)
            self._wake.notify()
        try:
            await asyncio.wait_for(done, timeout)
        except TimeoutError:
            raise RedisUnavailable("no heartbeat was confirmed in time") from None

    async def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5)

    def _tick(self) -> None:
        self._ticked = time.monotonic()
        self._ticker = self._loop.call_later(TICK, self._tick)

    # -- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while True:
            with self._wake:
                if not self._asked and not self._stopping:
                    # Never longer than a beat: after an outage nobody waits longer for the living than a grace period.
                    self._wake.wait(min(wait_before(failures), self._beat) if failures else self._beat)
                if self._stopping:
                    break
                asked, self._asked = self._asked, []
            if self._wedged():
                self._answer(asked, RedisUnavailable("no heartbeat: the event loop has been blocked"))
                continue
            try:
                self._once(asked)
                failures = 0
            except RedisError as error:
                failures += 1
                self._answer(asked, error)
                log.log(logging.WARNING if failures == 1 else logging.DEBUG, "heartbeat failed: %s", error)
            except Exception as error:
                failures += 1
                self._answer(asked, RedisUnavailable(f"heartbeat failed: {error!r}"))
                log.exception("heartbeat failed unexpectedly; it goes on")
        self._heart.close()

    def _once(self, asked: list[asyncio.Future[None]]) -> None:
        reach("before_beat")
        began = time.monotonic()
        # What was fetched a moment ago needs no beat yet: the next one comes well within its reservation.
        held = [one for one in list(self._inventory.held) if began - one.fetched_at > self._beat / 2]
        lost = self._heart.beat(held, self._facts())
        gone = set(lost)
        self.confirmed = began
        for one in held:
            # Its run is cut when it was not renewed in time; for others the confirmed beat is enough. What is lost was
            # not renewed: the loop hears of that later, and must not begin it meanwhile.
            if one.seated and one not in gone:
                one.fetched_at = began
        if lost:
            self._loop.call_soon_threadsafe(self._lost, lost)
        self._answer(asked, None)

    def _wedged(self) -> bool:
        blocked = time.monotonic() - self._ticked
        if blocked <= self._max_loop_block:
            self.silent = False
            return False
        if not self.silent:
            self.silent = True
            log.critical(
                "the event loop has been blocked for %.1f s (limit %.1f s): heartbeats stop and other workers will "
                "take this worker's jobs; run blocking code in a plain def task, which gets a thread",
                blocked,
                self._max_loop_block,
            )
        return True

    def _answer(self, asked: list[asyncio.Future[None]], error: Exception | None) -> None:
        def tell() -> None:
            for future in asked:
                if not future.done():
                    future.set_result(None) if error is None else future.set_exception(error)

        if asked:
            try:
                self._loop.call_soon_threadsafe(tell)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

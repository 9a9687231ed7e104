"""Slot: one hold of a limiter for the length of a block: waits in line, renews itself, and tells when it was lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import secrets
from collections.abc import Callable
from functools import partial
from types import TracebackType

from .errors import LimitReached, RedisError, RedisUnavailable, SlotLost, UsageError
from .needs import digest, fence
from .session import Session
from .store.slots import PATIENCE, Answer, Call, Kind, Slots

log = logging.getLogger("taskrunner.limiter")

RENEWALS = 3
"""Renewals in one timeout: one may be lost, and its successor still comes in time."""
SPARE = 0.1
"""Share of the timeout that is left for a body to end in, when its slot could not be renewed."""
ANSWER = 5.0
"""Seconds that the server may take to answer somebody who waits no longer than that, or gives back."""
TOO_LATE = 3
"""Times that a slot is asked for again because the answer came when it was almost over."""


class Caller:
    """Who asks for the slots of one limiter, under a token of its own: whatever it takes is its own, and nobody else's.

    ``timeout`` in seconds.
    """

    def __init__(self, session: Callable[[], Session], name: str, limit: int, timeout: float) -> None:
        self.session = session
        self.name = name
        self.limit = limit
        self.timeout = timeout
        self.digest = digest("limiter", name)
        self._milliseconds = max(1, round(timeout * 1000))
        self._numbers = itertools.count(1)
        self._token, self._process = secrets.token_hex(8), os.getpid()

    @property
    def token(self) -> str:
        """What the tickets of this object begin with, in this process: after a fork there are two of it."""
        if self._process != os.getpid():
            self._token, self._process = secrets.token_hex(8), os.getpid()
        return self._token + "."

    def ticket(self) -> str:
        return f"{self.token}{next(self._numbers)}"

    def slots(self) -> Slots:
        store = self.session().store
        return store.slots[store.keyspace.partition_of(self.digest)]

    def call(self, kind: Kind, id: str, ticket: str, place: str = "") -> Call:
        return Call(kind, self.digest, id, ticket, self.limit, self._milliseconds, place)

    async def ask(self, call: Call, patience: float = PATIENCE) -> Answer:
        """Raises RedisError: RedisUnavailable when there is no answer within ``patience`` seconds."""
        answer = self.slots().submit(call)
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            raise RedisUnavailable(
                f"limiter {self.name!r} got no answer from the server within {patience:g} s; what it may have been "
                f"given ends by itself"
            ) from None


class Slot:
    """``async with limiter.slot("id") as slot:`` holds a slot while the block runs; see ``Limiter.slot``.

    ``id``: under which it is held. ``fence``: a number that grows with every hand-over of a slot of this limiter;
    whatever the block writes can carry it, and a store that refuses smaller numbers than it has seen is safe from those
    who lost their slot and don't know yet. ``lost``: True from the moment at which it was lost; a block that runs in a
    thread, which can't be cancelled, looks there.
    """

    def __init__(self, caller: Caller, id: str, wait: float | None) -> None:
        self.id = id
        self.fence = 0
        self.lost = False
        self._caller = caller
        self._wait = wait
        self._ticket = ""
        self._ask_at = math.inf
        self._heard = asyncio.Event()
        self._sent = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._over = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._reason = ""

    async def __aenter__(self) -> Slot:
        task = asyncio.current_task()
        if self._ticket or task is None:
            raise UsageError("a slot is entered once, in a task; call limiter.slot() again for another one")
        self._ticket = self._caller.ticket()
        try:
            grant = await self._obtain()
        except BaseException:
            # Behind the call that is under way: it may be given a slot in this instant, and nobody is here to take it.
            self._caller.slots().post(self._caller.call(Kind.LEAVE, self.id, self._ticket))
            raise
        if not grant:
            within = f" within {self._wait:g} s" if self._wait else ""
            raise LimitReached(
                f"limiter {self._caller.name!r} had none of its {self._caller.limit} slots for {self.id!r}{within}; "
                "try again later, or wait longer"
            )
        self.fence = fence(grant)
        self._task, self._cancelling = task, task.cancelling()
        self._renew_from(self._sent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        ours = False
        if self.lost and self._task is not None:
            # As asyncio.timeout: the cancellation becomes an error, unless somebody else has cancelled the task too.
            alone = self._task.uncancel() <= self._cancelling
            ours = alone and (kind is None or issubclass(kind, asyncio.CancelledError))
            if ours and kind is None:
                await _absorb()
        await self._give_back()
        if ours:
            raise SlotLost(self._reason) from error

    # -- waiting ---------------------------------------------------------------------------------------------

    async def _obtain(self) -> int:
        """The grant of the slot; 0 when the wait is over."""
        loop, session = asyncio.get_running_loop(), self._caller.session()
        deadline = math.inf if self._wait is None else loop.time() + self._wait
        place, late = "", 0
        session.hearers[self._ticket] = self._hear
        try:
            while True:
                left = deadline - loop.time()
                kind = Kind.ASK if left > 0 else Kind.LAST if place else Kind.TRY
                self._ask_at, self._sent = math.inf, loop.time()
                call = self._caller.call(kind, self.id, self._ticket, place)
                answer = await self._caller.ask(call, min(PATIENCE, max(ANSWER, left)))
                if answer.grant:
                    late += 1
                    if late > TOO_LATE or loop.time() < self._sent + self._caller.timeout * (1 - SPARE):
                        return answer.grant
                elif kind is not Kind.ASK:
                    return 0
                else:
                    place = answer.place
                    session.listen()  # when that is in force, all who wait ask again
                    self._ask_at = min(self._ask_at, loop.time() + answer.wait, deadline)
                    await self._sleep()
        finally:
            del session.hearers[self._ticket]

    def _hear(self, notice: str) -> None:
        _, _, milliseconds = notice.partition(" ")
        self._ask_at = min(self._ask_at, asyncio.get_running_loop().time() + int(milliseconds or 0) / 1000)
        self._heard.set()

    async def _sleep(self) -> None:
        """Until it is to ask again, which a notice can make sooner."""
        loop = asyncio.get_running_loop()
        while self._ask_at > loop.time():
            self._heard.clear()
            try:
                async with asyncio.timeout_at(self._ask_at):
                    await self._heard.wait()
            except TimeoutError:
                return

    # -- holding ---------------------------------------------------------------------------------------------

    def _renew_from(self, sent: float) -> None:
        """The server has counted its timeout from some instant after ``sent``."""
        self._stop()
        self._over = False
        loop, timeout = asyncio.get_running_loop(), self._caller.timeout
        unconfirmed = (
            f"slot {self.id!r} of limiter {self._caller.name!r} could not be renewed within {timeout:g} s, so that it "
            "may be somebody else's by now: the server was away, or this event loop was blocked"
        )
        self._timers = [
            loop.call_at(sent + timeout / RENEWALS, self._renew),
            loop.call_at(sent + timeout * (1 - SPARE), self._lose, unconfirmed),
        ]

    def _renew(self) -> None:
        sent = asyncio.get_running_loop().time()
        answer = self._caller.slots().submit(self._caller.call(Kind.RENEW, self.id, self._ticket + " "))
        answer.add_done_callback(partial(self._renewed, sent))

    def _renewed(self, sent: float, answer: asyncio.Future[Answer]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if self._over or answer.cancelled():
            return
        if error is not None:
            log.warning("slot %r of limiter %r can't be renewed now: %s", self.id, self._caller.name, error)
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(self._caller.timeout * SPARE, self._renew))
        elif answer.result().grant:
            self._renew_from(sent)
        else:
            self._lose(
                f"slot {self.id!r} of limiter {self._caller.name!r} is not held any more: it was released elsewhere, "
                "this process had stood still for longer than its timeout, or the server has lost its data"
            )

    def _lose(self, reason: str) -> None:
        self._stop()
        self.lost, self._reason = True, reason
        if self._task is not None:
            self._task.cancel(reason)

    def _stop(self) -> None:
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    async def _give_back(self) -> None:
        answer = self._caller.slots().submit(self._caller.call(Kind.LEAVE, self.id, self._ticket))
        try:
            async with asyncio.timeout(min(ANSWER, self._caller.timeout)):
                await answer
        except (RedisError, TimeoutError) as error:
            told = str(error) or "no answer"
            log.warning("slot %r of limiter %r is free when it expires: %s", self.id, self._caller.name, told)


async def _absorb() -> None:
    """Takes up a cancellation that was asked for and has not arrived yet: Python before 3.13 would deliver it although
    it was taken back."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass

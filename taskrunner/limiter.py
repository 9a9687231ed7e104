"""Limiter: at most so many holders of a name at once, over all processes. Needs no task and no worker."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .errors import TaskOptionError
from .needs import fence
from .options import Seconds, seconds, seconds_or_none, whole
from .session import Session
from .slot import Caller, Slot
from .store.persist import persist
from .store.slots import PATIENCE, Kind


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot of a limiter: its id, until when unless it is renewed (an aware datetime), and its fence."""

    id: str
    expires_at: datetime
    fence: int


class Limiter:
    """At most ``limit`` holders of a name at once; made by ``runner.limiter``.

    A slot that is not renewed ends ``timeout`` seconds after it was taken, to the millisecond of the server's clock,
    whatever has become of its holder. The holder of a slot is the Limiter object that took it: others of the same name,
    here or elsewhere, can neither release nor renew it. Ids are strings of 1 to 200 printable characters; each holds at
    most one slot at a time. All methods raise TaskOptionError for an id that can't be, RedisUnavailable when the server
    stays away for 30 s, and RedisConfigurationError.

        limiter = runner.limiter("google_places", limit=3, timeout=5)

        async with limiter.slot("request-17", wait=10) as slot:
            await look_up(...)
    """

    def __init__(self, session: Callable[[], Session], name: str, limit: int, timeout: Seconds) -> None:
        length = seconds(timeout, "timeout", zero=False)
        self._caller = Caller(session, _text(name, "a limiter's name"), whole(limit, "limit", 1), length)

    def __repr__(self) -> str:
        return f"<Limiter {self.name!r} limit={self.limit}>"

    @property
    def name(self) -> str:
        """What all Limiter objects share that count together."""
        return self._caller.name

    @property
    def limit(self) -> int:
        """How many may hold a slot at once, as far as this object's calls are concerned."""
        return self._caller.limit

    @property
    def timeout(self) -> float:
        """Seconds after which a slot that is not renewed ends."""
        return self._caller.timeout

    async def acquire(self, id: str) -> bool:
        """Takes a slot for ``timeout`` seconds, if one is free; never waits for one.

        False: all are held, or this id has one already, or those that are free belong to somebody who waited in
        ``slot``. It is not renewed by itself: see ``renew`` and ``slot``.

            if await limiter.acquire("request-17"):
                try: ...
                finally: await limiter.release("request-17")
        """
        ticket = self._caller.ticket()
        call = self._caller.call(Kind.TRY, _text(id, "id"), ticket)
        try:
            return (await self._caller.ask(call)).grant > 0
        except BaseException:
            # It may be given one in this instant, and its caller will not know.
            self._caller.slots().post(self._caller.call(Kind.LEAVE, id, ticket))
            raise

    async def release(self, id: str) -> bool:
        """Gives a slot back; it is the next one's at once, if somebody waits. False: this object does not hold it (any
        more), and nothing was changed."""
        return await self._is_done(Kind.RELEASE, id)

    async def renew(self, id: str) -> bool:
        """Keeps a slot for another ``timeout`` seconds from now. False: this object does not hold it any more, and must
        not go on as if it did."""
        return await self._is_done(Kind.RENEW, id)

    async def holders(self) -> list[Holder]:
        """Those who hold a slot now, the oldest hold first."""
        held = await persist(functools.partial(self._caller.slots().holders, self._caller.digest), PATIENCE)
        return [Holder(one.id, datetime.fromtimestamp(one.expiry / 1000, UTC), fence(one.grant)) for one in held]

    def slot(self, id: str, wait: Seconds | None = None) -> Slot:
        """``async with limiter.slot("id", wait=10) as slot:`` holds a slot while the block runs, and renews it.

        Waits for one up to ``wait`` seconds (None: as long as it takes; 0: not at all), first come first served, then
        raises LimitReached. Waiting is notified, not polled: a slot that is given back is the next one's at once, and
        that of a holder that died when it expires. Who has not been heard of for 15 s (dead, frozen) is passed over.

        When the slot could not be renewed in time (the server was away, the event loop was blocked) or was released
        elsewhere, the block is cancelled and SlotLost raised in its place, as ``asyncio.timeout`` does; a thread that
        it runs can look at ``slot.lost``. Whatever must not happen after that carries ``slot.fence``. Raises
        TaskOptionError for a wrong wait.
        """
        return Slot(self._caller, _text(id, "id"), seconds_or_none(wait, "wait"))

    async def _is_done(self, kind: Kind, id: str) -> bool:
        call = self._caller.call(kind, _text(id, "id"), self._caller.token)
        return (await self._caller.ask(call)).grant > 0


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise TaskOptionError(f"{what} must be a printable string of 1 to 200 characters, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"

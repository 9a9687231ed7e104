"""Slots of limiters: what one client asks about them, gathered into numbered batches.

At most one batch of a client is in flight per partition, and what is asked meanwhile is the next one. So calls take
effect in the order in which they were made: whoever gives up a call only has to send ``LEAVE`` behind it. And a batch
whose reply was lost is sent again and answers as it did: a slot that was given is not refused to its own holder.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import RedisConfigurationError, RedisUnavailable, TaskRunnerError
from .batches import Batches
from .keys import PartitionKeys
from .links import Link
from .scripts import HOLDERS, SLOTS

BATCH = 100
"""Most calls of one script call: some two milliseconds of server time."""
PATIENCE = 30.0
"""Seconds that a call goes on trying while the server is away."""
CLOSING = 2.0
"""Seconds that closing waits for what is being sent. What isn't sent by then ends by its expiry."""


class Kind(StrEnum):
    """What is asked; see slots.lua."""

    TRY = "try"
    ASK = "ask"
    LAST = "last"
    LEAVE = "leave"
    RELEASE = "release"
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Call:
    """One call about the slot of an id: by whom (``ticket``), and for a waiter its place in line. ``timeout`` in ms."""

    kind: Kind
    digest: str
    id: str
    ticket: str
    limit: int
    timeout: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``grant``: that of the slot, 1 for a yes, 0 for a no. A waiter is to ask again after ``wait`` seconds at most,
    and to name its ``place`` then."""

    grant: int
    wait: float = 0.0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that is held: until when (ms), and under which grant."""

    id: str
    expiry: int
    grant: int


class Slots:
    """The calls of one client, in one partition, over a link of its own."""

    def __init__(self, link: Link, keys: PartitionKeys, client_id: str) -> None:
        self._link = link
        self._keys = keys
        self._batches = Batches(link, keys.batch(client_id + "l"))
        self._channel = keys.channel(client_id)
        self._waiting: list[tuple[Call, asyncio.Future[Answer], float]] = []
        self._sending: asyncio.Task[None] | None = None

    def submit(self, call: Call) -> asyncio.Future[Answer]:
        """Takes a call for the next batch. Its answer raises RedisError: RedisUnavailable after PATIENCE seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((call, future, loop.time()))
        if self._sending is None:
            self._sending = loop.create_task(self._send(), name="taskrunner-slots")
        return future

    def post(self, call: Call) -> None:
        """The same, when nobody waits for the answer."""
        self.submit(call).add_done_callback(_forget)

    async def holders(self, digest: str) -> list[Held]:
        """Those who hold a slot now, oldest grant first; 200 per round trip."""
        keys, found = [*self._keys.slots(digest)[:2]], dict[str, Held]()
        after, seen = 0, 0
        while True:
            rows = await self._link.run(HOLDERS, keys, [after, seen])
            for n in range(0, len(rows), 3):
                id, expiry, owner = rows[n].decode(), int(rows[n + 1]), rows[n + 2]
                found[id] = Held(id, expiry, int(owner.rpartition(b" ")[2]) if owner else 0)
            if len(rows) < 600:
                return sorted(found.values(), key=lambda one: one.grant)
            last = int(rows[-2])
            same = sum(int(rows[n]) == last for n in range(1, len(rows), 3))
            after, seen = last, same + (seen if last == after else 0)

    async def close(self) -> None:
        """Sends what is still to be sent, and removes the batch key."""
        if self._sending is not None:
            _, late = await asyncio.wait([self._sending], timeout=CLOSING)
            for task in late:
                task.cancel()
                await asyncio.wait([task])
        await self._batches.forget()

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:BATCH]
                del self._waiting[:BATCH]
                # Who was cancelled before it went out asks for nothing any more; to leave is meant all the same.
                await self._send_batch([one for one in batch if one[0].kind is Kind.LEAVE or not one[1].cancelled()])
        finally:
            self._sending = None
            left, self._waiting = self._waiting, []
            _refuse(left, RedisUnavailable("the runner was closed before the server was asked"))

    async def _send_batch(self, batch: list[tuple[Call, asyncio.Future[Answer], float]]) -> None:
        if not batch:
            return
        # From when the first of them began to wait: in an outage batches wait for each other, but nobody for their sum.
        patience = max(0.0, batch[0][2] + PATIENCE - asyncio.get_running_loop().time())
        digests = list(dict.fromkeys(call.digest for call, _, _ in batch))
        keys = [self._keys.janitor, *(key for digest in digests for key in self._keys.slots(digest))]
        arguments: list[Any] = [self._channel]
        for call, _, _ in batch:
            number = digests.index(call.digest) + 1
            arguments += (call.kind.value, number, call.id, call.ticket, call.limit, call.timeout, call.place)
        try:
            reply = await self._batches.send(SLOTS, keys, arguments, patience)
        except TaskRunnerError as error:
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(batch, RedisUnavailable("the runner was closed while its call was on its way"))
            raise
        else:
            for line, (_, future, _) in zip(reply.decode().split("\n"), batch, strict=True):
                if not future.done():
                    _answer(future, line)


def _answer(future: asyncio.Future[Answer], line: str) -> None:
    if line.startswith("!"):
        future.set_exception(
            RedisConfigurationError(f"foreign data under our keys ({line[1:]}); use another namespace or key_prefix")
        )
    elif line.startswith("-"):
        milliseconds, _, place = line[1:].partition(" ")
        future.set_result(Answer(0, int(milliseconds) / 1000, place))
    else:
        future.set_result(Answer(int(line)))


def _refuse(batch: list[tuple[Call, asyncio.Future[Answer], float]], error: TaskRunnerError) -> None:
    for _, future, _ in batch:
        if not future.done():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            future.set_exception(type(error)(*error.args))


def _forget(future: asyncio.Future[Answer]) -> None:
    if not future.cancelled():
        future.exception()

"""The schedules of a namespace, as they stand in the server: their definitions, and their next ticks.

All stand in the first partition, so that one script sees them all: two deploys that replace a definition, or two
schedules of one lock key, can't both win. A job with a key of its own goes to the partition of that key, where no
script can move a tick of the first one as well; there the latest tick that was fired is noted, and a later script moves
the schedule on.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import orjson

from ..durability import Durability
from ..envelope import Draft, Envelope, Extra, Lease, Tick
from ..errors import ScheduleError
from ..priority import queue_of
from ..schedule import CatchUp, Move, Schedule, Ticks, Timing, digest
from .batches import Batches
from .keys import Keyspace
from .links import Link
from .persist import persist
from .scripts import SCHEDULE, TICKS

PATIENCE = 30.0
"""Seconds for which a call is tried again while the server is away."""
ITEMS = 200
ITEM_BYTES = 1_000_000
"""Most items of one script call, and most bytes of definitions unless one alone has more."""


@dataclass(frozen=True)
class Definition:
    """What a schedule is: when it fires, and what. Equal definitions have the same revision.

    ``draft`` is the job without what each firing has of its own. ``expires``: ms after the firing, None for never or
    for the instant that the draft names.
    """

    name: str
    timing: Timing
    catch_up: CatchUp
    lock_key: str | None
    declared: bool
    draft: Draft
    expires: int | None = None

    @cached_property
    def text(self) -> bytes:
        draft, envelope = self.draft, self.draft.envelope
        return orjson.dumps(
            {
                "timing": dataclasses.asdict(self.timing),
                "catch_up": self.catch_up,
                "lock_key": self.lock_key,
                "declared": self.declared,
                "expires": self.expires,
                "task": envelope.task,
                "flags": envelope.flags,
                "extras": envelope.extras,
                "payload": base64.b64encode(envelope.payload).decode(),
                "queue": draft.queue,
                "delay": draft.delay,
                "leases": [dataclasses.asdict(lease) for lease in draft.leases],
                "durability": int(draft.durability),
            },
            option=orjson.OPT_SORT_KEYS,
        )

    @cached_property
    def revision(self) -> str:
        return digest(self.text.decode())

    @property
    def lock(self) -> str:
        return "-" if self.lock_key is None else digest([self.draft.envelope.task, self.lock_key])

    @property
    def digest(self) -> str | None:
        """That of the key which says in which partition the jobs are."""
        return self.draft.digest


def read(name: str, text: bytes) -> Definition:
    """A definition from its text. Raises ScheduleError for what is none; what a newer release added is ignored."""
    try:
        kept: dict[str, Any] = orjson.loads(text)
        timing = kept["timing"]
        payload = base64.b64decode(kept["payload"])
        names = {one.name for one in dataclasses.fields(Lease)}
        leases = tuple(Lease(**{k: v for k, v in one.items() if k in names}) for one in kept["leases"])
        envelope = Envelope("", kept["task"], 0, kept["flags"], 1, kept["extras"], payload)
        draft = Draft(envelope, kept["queue"], kept["delay"], leases=leases, durability=Durability(kept["durability"]))
        made = Timing(timing["cron"], timing["every"], timing["tz"], timing["start"])
        found = Definition(name, made, kept["catch_up"], kept["lock_key"], kept["declared"], draft, kept["expires"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScheduleError(f"the definition of schedule {name!r} can't be read: {error!r}") from None
    return found


@dataclass(frozen=True)
class Stored:
    """A definition as it stands in the server. ``revision`` is the server's word for it."""

    definition: Definition
    revision: str
    anchor: int
    paused: bool
    next: int | None = None
    last: int | None = None

    @cached_property
    def ticks(self) -> Ticks:
        return self.definition.timing.ticks(self.anchor)

    @property
    def mark(self) -> str:
        """What stands beside the name in the ticks."""
        return f"{self.revision} {self.anchor}"

    def fire(self, move: Move, now: int, here: bool) -> Draft:
        """The job of a tick."""
        assert move.fired is not None
        definition, template = self.definition, self.definition.draft.envelope
        extras = dict(template.extras)
        if definition.expires is not None:
            extras[Extra.EXPIRES] = now + definition.expires
        id = f"{definition.name}@{move.fired}"
        envelope = Envelope(id, template.task, now, template.flags, 1, extras, template.payload)
        tick = Tick(definition.name, self.mark, move.expected, move.following, move.fired, here)
        return dataclasses.replace(definition.draft, envelope=envelope, claim=tick)

    def shown(self) -> Schedule:
        """As people see it."""
        definition, timing = self.definition, self.definition.timing
        return Schedule(
            definition.name,
            definition.draft.envelope.task,
            queue_of(definition.draft.queue),
            timing.cron,
            timing.every,
            timing.tz,
            _moment(timing.start),
            definition.catch_up,
            definition.lock_key,
            _moment(self.next),
            _moment(self.last),
            self.paused,
            definition.declared,
        )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


@dataclass(frozen=True)
class Look:
    """What is due: (name, mark, tick), at most 200. ``next`` is the next tick that is not; ``seeded`` is False while
    no schedule was ever made in this server."""

    now: int
    seeded: bool
    next: int | None
    due: list[tuple[str, str, int]] = field(default_factory=list)


class Schedules:
    """Reads and changes the schedules of a namespace."""

    def __init__(self, links: Sequence[Link], keyspace: Keyspace, client: str) -> None:
        self._link = links[0]
        self._links = links
        self._keyspace = keyspace
        self._keys = keys = keyspace.partitions[0]
        self._batches = Batches(self._link, keys.batch(client + "t"))

    def home(self, definition: Definition) -> int:
        """The partition that its jobs go to."""
        return 0 if definition.digest is None else self._keyspace.partition_of(definition.digest)

    # -- changing ----------------------------------------------------------------------------------------------------

    async def put(self, definitions: Iterable[Definition], now: int) -> list[Stored | str]:
        """Makes or replaces schedules. A definition that stands there already is left alone; one with the same times
        keeps its next tick. Gives each as it stands now, or the name of the schedule that has its lock key."""
        wanted, items = list(definitions), list[list[Any]]()
        for one in wanted:
            anchor, first = one.timing.begin(now)
            head: list[Any] = [one.revision, one.timing.digest, one.lock, anchor, "" if first is None else first]
            items.append(["u", one.name, *head, one.text])
        replies = await self._send(items)
        found = list[Stored | str]()
        for one, reply in zip(wanted, replies, strict=True):
            word, _, rest = reply.partition(" ")
            if word == "lock":
                found.append(rest)
                continue
            following, last, state, counted_from = rest.split()
            paused = state == "p"
            found.append(Stored(one, one.revision, int(counted_from), paused, _number(following), _number(last)))
        return found

    async def remove(self, *names: str, revisions: Sequence[str] = ()) -> list[bool]:
        """Removes schedules; with their ``revisions`` only those that were not replaced meanwhile. Returns which."""
        which = revisions or [""] * len(names)
        replies = await self._send([["r", name, one] for name, one in zip(names, which, strict=True)])
        removed = [reply == "1" for reply in replies]
        gone = [name for name, done in zip(names, removed, strict=True) if done]
        for keys, link in zip(self._keyspace.partitions[1:], self._links[1:], strict=True):
            for n in range(0, len(gone), ITEMS):
                command = (b"HDEL", keys.fired, *gone[n : n + ITEMS])
                await persist(lambda link=link, command=command: link.call(*command), PATIENCE)  # type: ignore[misc]
        return removed

    async def remove_locked(self, lock_key: str) -> int:
        """Removes the schedules of this lock key, whatever their tasks; returns how many. What is replaced meanwhile is
        looked at again: it goes too, unless it has another key by then."""
        definitions = (await self._definitions()).items()
        found = {name: one for name, one in definitions if one.definition.lock_key == lock_key}
        count = 0
        while found:
            removed = await self.remove(*found, revisions=[one.revision for one in found.values()])
            count += sum(removed)
            left = [name for name, gone in zip(found, removed, strict=True) if not gone]
            again = await persist(lambda names=left: self.read(names), PATIENCE) if left else {}  # type: ignore[misc]
            found = {
                name: one
                for name, one in again.items()
                if isinstance(one, Stored) and one.definition.lock_key == lock_key
            }
        return count

    async def pause(self, name: str) -> bool:
        """No tick is fired until it is resumed. False when there is no such schedule."""
        return await self._send([["p", name]]) == ["1"]

    async def resume(self, name: str, now: int) -> bool:
        """Goes on with the next tick after now. False when there is no such schedule."""
        while True:
            found = await self.find(name)
            if found is None:
                return False
            following = found.ticks.after(now)
            if await self._send([["c", name, found.revision, "" if following is None else following]]) == ["1"]:
                return True

    async def move(self, steps: Sequence[tuple[str, str, Move]]) -> None:
        """Moves schedules (name, mark) on from ticks that were skipped, or fired elsewhere."""
        items = list[list[Any]]()
        for name, mark, move in steps:
            following = "" if move.following is None else move.following
            items.append(["a", name, mark, move.expected, following, "" if move.fired is None else move.fired])
        await self._send(items)

    async def _send(self, items: Sequence[list[Any]]) -> list[str]:
        replies, keys = list[bytes](), self._keys
        for chunk in _chunks(items):
            names = [keys.schedules, keys.ticks, keys.fired, keys.schedule_locks, keys.janitor]
            arguments = [keys.wake, *(one for item in chunk for one in item)]
            replies += await self._batches.send(SCHEDULE, names, arguments, PATIENCE)
        return [reply.decode() for reply in replies]

    # -- reading -----------------------------------------------------------------------------------------------------

    async def look(self) -> Look:
        """What is due now."""
        keys = [self._keys.ticks, self._keys.janitor]
        now, seeded, following, *due = await self._link.run(TICKS, keys, [ITEMS])
        found = list[tuple[str, str, int]]()
        for n in range(0, len(due), 2):
            name, _, mark = due[n].decode().rpartition("\n")
            found.append((name, mark, int(float(due[n + 1]))))
        return Look(now, seeded == 1, None if following < 0 else following, found)

    async def find(self, name: str) -> Stored | None:
        """A schedule as it stands, without its ticks. Raises ScheduleError when it can't be read."""
        text = await persist(lambda: self._link.call(b"HGET", self._keys.schedules, name), PATIENCE)
        return None if text is None else _stored(name, text)

    async def read(self, names: Sequence[str]) -> dict[str, Stored | ScheduleError | None]:
        """Schedules by their names, without their ticks; None for those that are not there."""
        texts = await self._link.call(b"HMGET", self._keys.schedules, *names)
        found = dict[str, Stored | ScheduleError | None]()
        for name, text in zip(names, texts, strict=True):
            try:
                found[name] = None if text is None else _stored(name, text)
            except ScheduleError as error:
                found[name] = error
        return found

    async def all(self) -> list[Stored]:
        """All schedules that can be read, by name."""
        keys = self._keys
        definitions = await self._definitions()
        questions = [(b"ZRANGE", keys.ticks, 0, -1, b"WITHSCORES"), (b"HGETALL", keys.fired)]
        ticks, fired = [await persist(lambda q=one: self._link.call(*q), PATIENCE) for one in questions]  # type: ignore[misc]
        following, last = _pairs(ticks), _pairs(fired)
        found = list[Stored]()
        for name, one in sorted(definitions.items()):
            tick, fire = following.get(f"{name}\n{one.mark}".encode()), last.get(name.encode())
            found.append(dataclasses.replace(one, next=_whole(tick), last=_whole(fire)))
        return found

    async def _definitions(self) -> dict[str, Stored]:
        """All that can be read, without their ticks."""
        texts = await persist(lambda: self._link.call(b"HGETALL", self._keys.schedules), PATIENCE)
        found = dict[str, Stored]()
        for raw, text in _pairs(texts).items():
            name = raw.decode()
            try:
                found[name] = _stored(name, text)
            except ScheduleError:
                continue
        return found

    async def forget(self) -> None:
        """The client is done."""
        await self._batches.forget()


def _stored(name: str, text: bytes) -> Stored:
    head, _, body = text.partition(b"\n")
    try:
        revision, _, state, anchor, _ = head.decode().split(" ")
        return Stored(read(name, body), revision, int(float(anchor)), state == "p")
    except ValueError as error:
        raise ScheduleError(f"the definition of schedule {name!r} can't be read: {error!r}") from None


def _pairs(reply: Any) -> Mapping[bytes, Any]:
    if isinstance(reply, Mapping):
        return reply
    if reply and isinstance(reply[0], (list, tuple)):  # RESP3
        return dict(reply)
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _whole(value: Any) -> int | None:
    return None if value is None else int(float(value))


def _number(text: str) -> int | None:
    return None if text == "-" else int(float(text))


def _chunks(items: Sequence[list[Any]]) -> Iterator[list[list[Any]]]:
    chunk, size = list[list[Any]](), 0
    for item in items:
        length = len(item[-1]) if isinstance(item[-1], bytes) else 0
        if len(chunk) == ITEMS or (chunk and size + length > ITEM_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk

"""What travels: the envelope of a job, and the delivery that a worker got. Entry id, worker and delivery count together
are the token that proves who holds it: the server raises the count whenever a reservation changes hands.

These are values. They are not frozen only because a frozen dataclass costs three times as much to make, and one of
each is made per job; nothing changes them after they are built, but the marks of a delivery's run.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from .durability import Durability
from .needs import first, has_seats

TRACKED = 1
"""Flag: the server keeps a live record for this job while it has not ended."""
KEPT = 2
"""Flag: its outcome is kept for ``result_ttl`` after it ended."""
FOLLOWED = 4
"""Flag: it keeps no outcome, but others wait for it, so that its result is passed on."""


@dataclass(slots=True)
class Envelope:
    """One job as it travels: who it is, and its arguments as opaque bytes.

    ``enqueued_at`` is server time in milliseconds. ``flags`` are TRACKED and KEPT. ``extras`` holds what only some jobs
    carry, by the names in ``Extra``; most jobs have none. ``previous`` is the result of the job that this one follows,
    as the serializer made it; empty when there is none.
    """

    id: str
    task: str
    enqueued_at: int
    flags: int
    attempt: int
    extras: dict[str, Any]
    payload: bytes
    previous: bytes = b""


class Extra:
    """Names of the rarer facts in an envelope. Short, because they travel."""

    EXPIRES = "x"  # server time in ms; a job that has not started by then never will
    UNIQUE = "u"  # digest of the unique key that the job holds until it ends
    OPTIONS = "o"  # options of the task that were set at the dispatch, by their names
    HEADERS = "h"
    RESERVATION = "v"  # the task's own reservation, ms
    DELIVERIES = "d"  # deliveries that ended in a crash before this entry was written
    UNKNOWN_SINCE = "k"  # server time in ms when a worker first did not know the task
    SAVED = "s"  # 1: an earlier run of the job saved a value
    NEEDS = "n"  # the seats and permits without which it may not run; see needs.py
    LOCK = "y"  # its lock key, as the user wrote it
    PRECEDING = "g"  # [workflow, its partition, nodes]: whose values are what it follows; see blueprint.py
    LASTS = "z"  # ms; a job that has not started so long after its dispatch never will
    PREVIOUS = "p"  # bytes in front of the payload that are the result of the job before; only in letters


@dataclass(slots=True, eq=False)
class Delivery:
    """An envelope that arrived. ``fetched_at`` is ``time.monotonic()`` before the fetch was sent, in seconds; of one
    that holds seats, before the last call that has surely renewed it.

    ``home`` is the lane that the job belongs to by its priority, if it came from another one. ``paced``: it has
    waited for a permit. ``grant``: the number under which it holds the seats that it needs, 0 while it holds none.
    ``lock``: the digest of its lock, if that is all that is out of the ordinary about it.

    Marks of its run: ``cancelled``, it was told to stop, whatever comes of that; ``saved``, it kept an interim value.
    They stand here because whoever ends a run, the executor or a timeout, knows its delivery and nothing else of it.
    """

    envelope: Envelope
    queue: str
    partition: int
    entry_id: bytes
    deliveries: int
    fetched_at: float
    cancelled: bool = False
    saved: bool = False
    home: str = ""
    paced: bool = False
    grant: int = 0
    lock: str = ""

    @property
    def seated(self) -> bool:
        """Whether it holds seats, so that others wait for its run to end."""
        return bool(self.grant) and has_seats(self.envelope.extras[Extra.NEEDS])


@dataclass(slots=True, eq=False)
class Unreadable:
    """An entry that is no envelope of ours: a stranger's, damaged, or of a version that we don't know.

    ``raw`` are its fields and values as they stood; ``newer`` tells an envelope of a later version from rubbish, and
    ``since`` when a worker first could not read it (server time in ms, 0: this is the first time).
    """

    raw: list[bytes]
    queue: str
    partition: int
    entry_id: bytes
    deliveries: int
    fetched_at: float
    problem: str
    newer: bool = False
    since: int = 0
    saved: ClassVar[bool] = False
    seated: ClassVar[bool] = False


Arrival = Delivery | Unreadable


@dataclass(slots=True)
class Lease:
    """Something that a job takes at dispatch. ``hold``: it is freed when the job ends; else after ``seconds``.

    ``turn`` says what becomes of a job whose lease another one holds. "first": nothing, that one is the only one.
    "debounce": it replaces that one, if that one still waits for its time, and else takes the lease from it. "latest":
    it is parked until that one has ended, in the place of the one that is parked already.
    """

    digest: str
    hold: bool
    seconds: float = 0.0
    turn: Literal["first", "debounce", "latest"] = "first"


@dataclass(frozen=True, slots=True)
class Tick:
    """The tick of a schedule that a draft is fired as. Instants are server time in ms.

    The schedule must still stand at ``expected`` and goes on to ``following`` (None: nowhere); ``fired`` is the tick.
    ``mark`` tells the definition by which it is fired. ``here``: its ticks are in the partition that the job goes to.
    """

    name: str
    mark: str
    expected: int
    following: int | None
    fired: int
    here: bool

    @property
    def member(self) -> str:
        """What stands in the ticks: it names the definition too, so that only that one can be fired."""
        return f"{self.name}\n{self.mark}"


@dataclass(frozen=True, slots=True)
class Buried:
    """The dead letter of a job, by the instant that the server wrote at it: a later one of the same id is another."""

    instant: str


@dataclass(slots=True)
class Draft:
    """An envelope on its way to the server, with the facts that the dispatch script needs.

    ``delay`` in seconds or ``due`` in server milliseconds make it wait. ``custom_id`` asks the server whether the id is
    known. ``claim``: it is taken only as that tick of a schedule, if nobody else has fired it; or only as that dead
    letter, if it is still there. ``lasts``: ms after its dispatch in which it must start, for those whose dispatch is
    not now.
    """

    envelope: Envelope
    queue: str
    delay: float = 0.0
    due: int = 0
    custom_id: bool = False
    leases: tuple[Lease, ...] = ()
    durability: Durability = Durability.MEMORY
    claim: Tick | Buried | None = None
    lasts: int = 0

    @property
    def digest(self) -> str | None:
        """That of the key which says in which partition the job is; None: its id says it."""
        needs = self.envelope.extras.get(Extra.NEEDS)
        return first(needs) if needs else self.leases[0].digest if self.leases else None


@runtime_checkable
class Dispatchable(Protocol):
    """A job that is not dispatched yet, such as ``task.job(...)`` gives: it makes a new draft of itself each time.
    ``pack`` does what can fail, ``draft`` the rest. Server time in milliseconds."""

    def pack(self, now: int) -> bytes | Draft: ...

    def draft(self, packed: bytes | Draft, now: int) -> Draft: ...


# An own generator: whoever seeds the global one (tests, simulations) must not make ids repeat across processes.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A UUID of version 7 as 32 hex digits: it sorts by time, within a process also inside a millisecond.

    RFC 9562, 5.7 and 6.2 method 3: 48 bits of milliseconds, 12 bits of the millisecond's fraction, 62 random bits.
    """
    now = time.time_ns()
    fraction = now % 1_000_000 * 4096 // 1_000_000
    number = now // 1_000_000 << 80 | (0x7000 | fraction) << 64 | 0x8000000000000000 | _random.getrandbits(62)
    return number.to_bytes(16).hex()

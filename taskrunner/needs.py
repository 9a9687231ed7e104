"""Needs: what a job must have before it may run. Seats are held while it runs, a permit is used up by its start.

As text they travel in the envelope and beside the letter, where scripts see them: ``DIGEST:CAPACITY`` is a seat,
``DIGEST@INTERVAL@BURST`` a permit (milliseconds between two permits), joined by commas, in the order in which they are
taken: the same for all jobs, so that no two wait on each other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_ONE = r"[0-9a-f]{32}(?::[1-9]\d{0,8}|@\d{1,15}(?:\.\d{1,6})?@[1-9]\d{0,8})"
_are_sound = re.compile(f"{_ONE}(?:,{_ONE})*").fullmatch


@dataclass(frozen=True, slots=True)
class Seat:
    """A place among the ``capacity`` jobs of one key that may run at once."""

    digest: str
    capacity: int

    def __str__(self) -> str:
        return f"{self.digest}:{self.capacity}"


@dataclass(frozen=True, slots=True)
class Permit:
    """One start of those that a rate allows: one per ``interval`` (ms), and ``burst`` at once after a rest."""

    digest: str
    interval: float
    burst: int

    def __str__(self) -> str:
        return f"{self.digest}@{self.interval:.6f}@{self.burst}"


def digest(kind: str, key: str) -> str:
    """A name of fixed length for a key: BLAKE2b, 128 bits. ``kind`` keeps locks, limits and rates apart."""
    return hashlib.blake2b(f"{kind}\n{key}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def with_need(text: str, need: Seat | Permit) -> str:
    """Needs as text, with one more at their end."""
    return f"{text},{need}" if text else str(need)


def with_lock(text: str, key: str) -> str:
    """Needs as text, with the seat of a lock key in front: locks are taken before all else."""
    seat = str(Seat(digest("lock", key), 1))
    return f"{seat},{text}" if text else seat


def are_sound(text: str) -> bool:
    """Whether it is the text of needs: it may have been damaged on its way, or be a stranger's."""
    return _are_sound(text) is not None


def has_seats(text: str) -> bool:
    """Whether there are seats among them: what needs only permits holds nothing while it runs."""
    return ":" in text


def is_lock(text: str) -> bool:
    """Whether a single seat is all that is needed, and it is the only one of its key."""
    return len(text) == 34 and text[32:] == ":1"


def seats(text: str) -> list[str]:
    """The digests of the seats among them."""
    if "," not in text:  # nearly always
        return [text[:32]] if text[32:33] == ":" else []
    return [one.partition(":")[0] for one in text.split(",") if ":" in one]


def rates(text: str) -> list[str]:
    """The digests of the rates whose permits are among them."""
    return [one.partition("@")[0] for one in text.split(",") if "@" in one] if "@" in text else []


def first(text: str) -> str:
    """The digest of the first of them, which says in which partition the job is."""
    return text[:32]


def fence(grant: int) -> int:
    """A grant as a number of 63 bits among those of other deliveries, which begin with server milliseconds too."""
    return grant // 1000 << 22 | grant % 1000 << 12

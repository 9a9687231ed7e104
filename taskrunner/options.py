"""Options: how values that users give are checked, once, before anything is written.

Each feature names its own options (``feature.Option``); what they have in common stands here: durations, instants,
names, and the immutable set of options that a task or a dispatch ends up with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from .backoff import Backoff, BackoffFunction
from .blueprint import Repeatable
from .durability import DurabilityName
from .envelope import Dispatchable
from .errors import TaskOptionError
from .limits import Limit, Rate

PriorityName = Literal["high", "normal", "low"]
UniqueMode = bool | Literal["debounce", "latest"]

Seconds = float | timedelta
"""A duration: seconds as int or float, or a timedelta."""

FAR = 250_000_000_000.0
"""The longest duration in seconds: up to the year 9999, where datetime ends too."""

NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def seconds(value: Seconds, what: str, *, zero: bool = True) -> float:
    """A duration as seconds; refuses what is negative, infinite, not a number or longer than 8,000 years."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TaskOptionError(f"{what} must be seconds (int or float) or a timedelta, not {value!r}")
    if not 0 <= number <= FAR or (not zero and number == 0):
        raise TaskOptionError(f"{what} must be {'zero or more' if zero else 'more than zero'} seconds, not {value!r}")
    return float(number)


def seconds_or_none(value: Seconds | None, what: str, *, zero: bool = True) -> float | None:
    """A duration as seconds, of something that may also have none."""
    return None if value is None else seconds(value, what, zero=zero)


def instant(value: datetime, what: str) -> int:
    """An aware datetime as milliseconds since the epoch; naive ones are refused, as nobody knows what they mean."""
    if not isinstance(value, datetime):
        raise TaskOptionError(f"{what} must be an aware datetime, not {value!r}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise TaskOptionError(f"{what} needs a time zone: {value!r} is naive; use datetime.now(UTC) or a ZoneInfo")
    return round(value.timestamp() * 1000)


def name(value: str, what: str) -> str:
    """A name that becomes part of a key: letters, digits and ``_ . -``, at most 64; so the braces in a key are ours."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise TaskOptionError(f"{what} must be 1 to 64 letters, digits or any of '_.-', not {value!r}")
    return value


def whole(value: int, what: str, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**53:  # what JSON can carry
        raise TaskOptionError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return value


def truth(value: bool, what: str) -> bool:
    """True or False, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise TaskOptionError(f"{what} must be True or False, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Options(Mapping[str, Any]):
    """Options after checking: a mapping that never changes, and what was set apart from the defaults."""

    checked: Mapping[str, Any]
    chosen: frozenset[str] = frozenset()

    def __getitem__(self, key: str) -> Any:
        return self.checked[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.checked)

    def __len__(self) -> int:
        return len(self.checked)


class DispatchKeywords(TypedDict, total=False):
    """The options that a single dispatch may set; for type checkers, the checks themselves are the features'."""

    id: str
    queue: str
    priority: PriorityName
    delay: Seconds
    at: datetime
    expires: Seconds | datetime | None
    unique: UniqueMode
    unique_key: str | Callable[..., str] | None
    unique_for: Seconds | None
    lock_key: str | Callable[..., str | None] | None
    max_wait: Seconds | None
    max_retry: int
    backoff: Backoff | BackoffFunction
    timeout: Seconds | None
    result_ttl: Seconds | None
    ignore_result: bool
    headers: Mapping[str, str]
    durability: DurabilityName


class TaskKeywords(TypedDict, total=False):
    """The options that a task may set; for type checkers, the checks themselves are the features'."""

    queue: str | None
    concurrency: int | None
    priority: PriorityName
    expires: Seconds | None
    unique: UniqueMode
    unique_key: Callable[..., str] | None
    unique_for: Seconds | None
    lock_key: str | Callable[..., str | None] | None
    mode: Literal["any", "locked", "unlocked"]
    limit: Limit | None
    rate_limit: Rate | None
    max_wait: Seconds | None
    max_retry: int
    backoff: Backoff | BackoffFunction
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    give_up_on: type[BaseException] | tuple[type[BaseException], ...]
    timeout: Seconds | None
    reservation_timeout: Seconds | None
    result_ttl: Seconds | None
    ignore_result: bool
    pool: Literal["thread", "process"]
    on_start: Callable[..., Any] | Dispatchable | Repeatable | None
    on_success: Callable[..., Any] | Dispatchable | Repeatable | None
    on_failure: Callable[..., Any] | Dispatchable | Repeatable | None
    on_retry: Callable[..., Any] | Dispatchable | Repeatable | None

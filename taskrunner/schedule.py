"""Schedules as values: when the ticks are, and which of them are made up for when nobody was there.

A *tick* is an instant, in ms since the epoch by the server's clock, at which a schedule fires. Ticks lie on a grid that
no run and no delay moves: that of a cron text in its zone, or every so many seconds from the first tick on.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, Protocol, cast, get_args

from . import cron as crons
from .cron import LAST_INSTANT, Cron
from .errors import ScheduleError, TaskOptionError
from .options import FAR, Seconds, instant

CatchUp = Literal["latest", "skip", "all"]
"""What becomes of ticks that nobody fired in time: the latest one is fired, none, or all of them."""

SHORTEST = 0.01
"""Seconds: about what a round of the scheduler and the run of a small job take."""
LATE = 5_000
"""ms after which a tick counts as missed: runners look at least every 5 s, so whoever is there has fired by then."""
STEPS = 200
"""Most ticks of one schedule that are decided on at once: what one script takes."""


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stands in the server.

    ``cron`` or ``every`` (seconds) says when, the other is None; ``tz`` is the zone of the cron text. ``next_fire`` is
    None while it is ``paused`` and when no tick is left; ``last_fire`` is the latest tick that was fired, None when
    there was none. Instants are in UTC. ``task`` and ``queue`` are those of its jobs, ``declared`` tells those that
    decorators made. See ``TaskRunner.schedule`` for the rest.

        for schedule in await runner.schedules():
            print(schedule.name, schedule.next_fire)
    """

    name: str
    task: str
    queue: str
    cron: str | None
    every: float | None
    tz: str
    start: datetime | None
    catch_up: CatchUp
    lock_key: str | None
    next_fire: datetime | None
    last_fire: datetime | None
    paused: bool
    declared: bool


class Ticks(Protocol):
    """Where ticks are."""

    def after(self, instant: int) -> int | None:
        """The first tick after an instant; None when there is none any more."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """A tick every so many microseconds from the first one on, which is at ``anchor`` ms."""

    anchor: int
    micros: int

    def after(self, instant: int) -> int | None:
        if instant < self.anchor:
            return self.anchor
        steps = (instant - self.anchor) * 1000 // self.micros + 1
        tick = self.anchor - -steps * self.micros // 1000
        return tick if tick <= LAST_INSTANT else None


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule fires: what was asked for, checked by ``timing``. ``every`` in seconds, ``start`` in ms."""

    cron: str | None
    every: float | None
    tz: str
    start: int | None

    @property
    def interval(self) -> float | None:
        """Seconds between two ticks on a grid; None for a cron text that names times."""
        return self.every if self.cron is None else crons.every(self.cron)

    @property
    def digest(self) -> str:
        """The same for two timings with the same ticks."""
        return _digest([self.cron, self.every, self.tz, self.start])

    def ticks(self, anchor: int) -> Ticks:
        """The ticks of a schedule whose grid is counted from ``anchor``."""
        seconds = self.interval
        if seconds is not None:
            return Grid(anchor, round(seconds * 1_000_000))
        return Cron(self.cron or "", crons.zone(self.tz))

    def begin(self, now: int) -> tuple[int, int | None]:
        """For a schedule that begins now: the anchor of its grid, and its first tick, which is after now."""
        seconds = self.interval
        anchor = now if self.start is None else self.start
        if seconds is not None and self.start is None:
            anchor = min(now + math.ceil(seconds * 1000), LAST_INSTANT)
        return anchor, self.ticks(anchor).after(max(now, anchor - 1))


def timing(
    cron: str | None = None,
    every: Seconds | None = None,
    tz: str | tzinfo | None = None,
    start: datetime | None = None,
) -> Timing:
    """When a schedule fires. Raises ScheduleError, which says what is wrong and how to mend it."""
    if (cron is None) == (every is None):
        raise ScheduleError("give a schedule either cron= or every=" + ("" if cron is None else ", not both"))
    try:
        begin = None if start is None else instant(start, "start")
    except TaskOptionError as error:
        raise ScheduleError(str(error)) from None
    zone_name = _zone_name(tz)
    if cron is None:
        if tz is not None:
            raise ScheduleError("tz= is for cron=: an interval is the same in every time zone")
        return Timing(None, _interval(every), "UTC", begin)
    if not isinstance(cron, str):
        raise ScheduleError(f"cron must be text like '30 9 * * mon-fri', not {cron!r}")
    text, prefix = crons.split_zone(cron)
    if prefix is not None:
        if zone_name not in (None, prefix):
            raise ScheduleError(f"the cron text says TZ={prefix} and tz= says {zone_name!r}; give one of them")
        zone_name = prefix
    made = Timing(" ".join(text.split()), None, "UTC" if zone_name is None else zone_name, begin)
    crons.zone(made.tz)
    made.ticks(0)  # raises for what can't be read
    return made


def catch_up(value: Any) -> CatchUp:
    """One of the policies. Raises ScheduleError."""
    if value not in get_args(CatchUp):
        raise ScheduleError(f"catch_up must be 'latest', 'skip' or 'all', not {value!r}")
    return cast(CatchUp, value)


def text(value: Any, what: str, least: int = 1) -> str:
    """A name or a lock key. Raises ScheduleError."""
    if not isinstance(value, str) or not least <= len(value) <= 200 or not (value.isprintable() or not value):
        raise ScheduleError(f"{what} must be a printable string of {least} to 200 characters, not {value!r}")
    return value


def _zone_name(tz: str | tzinfo | None) -> str | None:
    if tz is None or isinstance(tz, str):
        return tz
    if tz is UTC:
        return "UTC"
    key = getattr(tz, "key", None)
    if not isinstance(key, str):
        raise ScheduleError(f"tz must be the name of a time zone like 'Europe/Berlin' or a ZoneInfo, not {tz!r}")
    return key


def _interval(every: Any) -> float:
    number = every.total_seconds() if isinstance(every, timedelta) else every
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ScheduleError(f"every must be seconds (int or float) or a timedelta, not {every!r}")
    if not SHORTEST <= number <= FAR:  # also not a number
        raise ScheduleError(f"every must be {SHORTEST} to {FAR:.0f} seconds, not {every!r}")
    return float(number)


def _digest(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def digest(value: Any) -> str:
    """A short name for plain data, equal for equal data."""
    return _digest([value])


# -- what is to be done --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a schedule: from the tick ``expected`` on to ``following`` (None: it has no tick any more), while the
    tick ``fired`` is fired (None: none is)."""

    expected: int
    fired: int | None
    following: int | None


def moves(ticks: Ticks, due: int, now: int, policy: CatchUp, watching: int) -> tuple[list[Move], int | None]:
    """What becomes of a schedule whose next tick was ``due``; and when to look again if that is left open (ms).

    ``all`` fires every tick that is due. ``latest`` those that were not missed, since it was ``watching`` and they are
    not late; when there are none, the last one. ``skip`` fires the last one if it is not late; when that is from before
    it was watching, another may be about to fire it, and it is left alone until it is late.
    """
    if policy == "all":
        return _each(ticks, due, due, now), None
    last = latest(ticks, due, now)
    following = ticks.after(last)
    seen = max(watching, now - LATE)
    if policy == "latest" and last >= seen and last != due:
        return _each(ticks, due, due if due >= seen else ticks.after(seen - 1), now), None
    if policy == "skip":
        if now - last > LATE:
            return [Move(due, None, following)], None
        if last < watching:
            return [], last + LATE + 1
    return [Move(due, last, following)], None


def _each(ticks: Ticks, due: int, tick: int | None, now: int) -> list[Move]:
    """A step for each tick from ``tick`` on, the first of them from where the schedule stands."""
    found, expected = list[Move](), due
    while tick is not None and tick <= now and len(found) < STEPS:
        following = ticks.after(tick)
        found.append(Move(expected, tick, following))
        if following is None:
            break
        expected = tick = following
    return found


def latest(ticks: Ticks, due: int, now: int) -> int:
    """The last tick that is not after ``now``, of those from ``due`` on, which is one. By halving: there may be a year
    of ticks in between."""
    low, high = due, max(due, now)  # low is a tick, or an instant after which there is one that is due
    following = ticks.after(low)
    while following is not None and following <= now:
        low = following
        middle = (low + high) // 2
        candidate = ticks.after(middle)
        if candidate is not None and candidate <= now:
            low = candidate
        else:
            high = middle
        following = ticks.after(low)
    return low

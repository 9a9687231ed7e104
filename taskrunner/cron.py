"""Cron text: what it may say, and when it next comes true.

Five fields: minute, hour, day of month, month, day of week (0 to 6, Sunday is 0); ``*`` or ``?``, numbers, names of
months and days in any case, ranges, lists, steps. If both days are restricted, either is enough; ``*/2`` restricts.
Before them ``TZ=`` or ``CRON_TZ=`` with a time zone. Instead of them an alias such as ``@daily``, or ``@every 1h30m``.

When the clocks change: with a restricted hour, a local time that is skipped comes at the jump, and one that repeats
comes once, the first time. With any hour (``*/10 * * * *``) it goes on by real time through both, since nobody who asks
for each hour means to miss one.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction

from cronsim import CronSim, CronSimError

from .errors import ScheduleError

LAST_INSTANT = 253_402_300_799_999
"""ms: the end of the year 9999, where datetime ends too."""
DAY, MINUTE = 86_400_000, 60_000
NEAR = 4 * 60 * MINUTE
"""How far from a change of the clocks local times are not what they seem; the greatest change is by two hours."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
UNITS = {
    **{"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000},
    **{"ms": 1_000_000, "us": 1000, "µs": 1000, "μs": 1000, "ns": 1},
}
"""Nanoseconds; a micro may be written with either of two signs."""
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?)(ms|us|µs|μs|ns|h|m|s)")
_TERM = re.compile(r"(?:([*?])|([0-9A-Z]+)(?:-([0-9A-Z]+))?)(?:/([0-9]+))?", re.IGNORECASE | re.ASCII)
_PREFIX = re.compile(r"\s*(?:CRON_)?TZ=(\S*)\s+(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five fields: its name, its least and greatest number, and names for numbers from the least on."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> tuple[frozenset[int], bool]:
        """The numbers that a field's text means, and whether it restricts. Raises ScheduleError."""
        numbers, free = set[int](), False
        for term in text.split(","):
            found = _TERM.fullmatch(term)
            if found is None:
                raise ScheduleError(f"{term!r} is no {self.name}; {self._may_be()}")
            star, first, last, step = found.groups()
            every = self._step(step, term)
            low = self.least if star else self._number(first)
            high = self._number(last) if last else self.most if star or step else low
            if low > high:
                raise ScheduleError(f"{self.name} {term!r} runs backwards; write it as two ranges with a comma")
            numbers.update(range(low, high + 1, every))
            free = free or (bool(star) and every == 1)
        return frozenset(numbers), not free

    def _step(self, text: str | None, term: str) -> int:
        if text is None:
            return 1
        if len(text) > 6 or not int(text):
            raise ScheduleError(f"{self.name} {term!r} has the step {text[:20]}; give one from 1 to 999999")
        return int(text)

    def _number(self, text: str) -> int:
        if text.upper() in self.names:
            return self.least + self.names.index(text.upper())
        if not (text.isdigit() and len(text) < 6 and self.least <= int(text) <= self.most):
            raise ScheduleError(f"{text[:20]!r} is no {self.name}; {self._may_be()}")
        return int(text)

    def _may_be(self) -> str:
        names = f", {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"it may be {self.least} to {self.most}{names}, *, a-b, a,b or */n"


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 6, DAYS),
)


def split_zone(text: str) -> tuple[str, str | None]:
    """Cron text without its ``TZ=``, and the name of that zone."""
    found = _PREFIX.fullmatch(text)
    return (found[2].strip(), found[1]) if found else (text.strip(), None)


def zone(name: str) -> tzinfo:
    """The time zone of that name. Raises ScheduleError, which tells the nearest name."""
    try:
        return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ScheduleError(f"there is no time zone {name!r}; use an IANA name like 'Europe/Berlin'{hint}") from None


def every(text: str) -> int | None:
    """Whole seconds of ``@every 1h30m``, at least 1; None for other text. Raises ScheduleError."""
    word, _, rest = text.partition(" ")
    if word.lower() != "@every":
        return None
    rest, total, at = rest.strip(), Fraction(0), 0
    for part in _PART.finditer(rest):
        if part.start() != at:
            break
        at = part.end()
        total += Fraction(part[1]) * UNITS[part[2]]
    if not rest or at != len(rest) or total <= 0:
        raise ScheduleError(f"{text!r} has no duration; write one like '@every 90s' or '@every 1h30m'")
    return max(1, int(total / 1_000_000_000))


class Cron:
    """When five fields come true in a time zone. Raises ScheduleError for what can't be read or never comes true."""

    def __init__(self, text: str, where: tzinfo) -> None:
        words = text.split()
        if len(words) == 1 and words[0].startswith("@"):
            words = self._alias(words[0]).split()
        if len(words) != len(FIELDS):
            fields = ", ".join(field.name for field in FIELDS)
            raise ScheduleError(
                f"cron text has five fields ({fields}), {text!r} has {len(words)}; there are no seconds"
            )
        parsed = [field.parse(word) for field, word in zip(FIELDS, words, strict=True)]
        self._zone = where
        (self._minutes, _), (hours, _), *self._dates = parsed
        self._any_hour = len(hours) == 24
        # cronsim reads what begins with a star as Debian's cron does, */2 as no restriction: it gets plain lists.
        self._text = " ".join(",".join(map(str, sorted(some))) if limited else "*" for some, limited in parsed)
        try:
            next(CronSim(self._text, datetime(2001, 1, 1)))
        except (CronSimError, StopIteration):
            raise ScheduleError(f"{text!r} never comes true: no month of it has such a day") from None

    @staticmethod
    def _alias(word: str) -> str:
        found = ALIASES.get(word.lower())
        if found is None:
            raise ScheduleError(f"there is no {word!r}; there are {', '.join(ALIASES)} and '@every 90s'")
        return found

    def after(self, instant: int) -> int | None:
        """The first instant after the given one (both ms since the epoch), or None when there is none any more."""
        if not -LAST_INSTANT < instant < LAST_INSTANT - 2 * DAY:
            return None
        try:
            return self._by_real_time(instant) if self._any_hour else self._by_local_time(instant)
        except (OverflowError, ValueError):
            return None  # the calendar ends

    def _by_local_time(self, instant: int) -> int | None:
        """Local times one after the other: their instants never fall, whatever the clocks do."""
        for local in CronSim(self._text, self._local(instant)):
            found = _milliseconds(_first(local, self._zone))
            if found > instant:
                return found
        return None

    def _by_real_time(self, instant: int) -> int | None:
        """As if the clocks did not change, unless they do near here or near there: then minute by minute."""
        local = self._local(instant)
        following = next(CronSim(self._text, local), None)
        if following is None:
            return None
        found = instant // 1000 * 1000 + round((following - local).total_seconds()) * 1000
        offset = self._offset(instant)
        ends = (instant + NEAR, found - NEAR, found + NEAR)
        if all(self._offset(end) == offset for end in ends):
            return found
        begin = instant // MINUTE * MINUTE + MINUTE
        near = range(begin, instant + NEAR, MINUTE)
        there = range(max(begin, (found - NEAR) // MINUTE * MINUTE), found + NEAR, MINUTE)
        return next((one for one in (*near, *there) if self._matches(self._local(one))), None)

    def _local(self, instant: int) -> datetime:
        return datetime.fromtimestamp(instant // 1000, self._zone).replace(tzinfo=None, fold=0)

    def _offset(self, instant: int) -> timedelta | None:
        return datetime.fromtimestamp(instant // 1000, self._zone).utcoffset()

    def _matches(self, local: datetime) -> bool:
        (days, some_days), (months, _), (weekdays, some_weekdays) = self._dates
        if local.minute not in self._minutes or local.month not in months:
            return False
        day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
        return day or weekday if some_days and some_weekdays else day and weekday


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp()) * 1000


def _first(local: datetime, where: tzinfo) -> datetime:
    """When a local time is there for the first time; for one that is skipped, the jump."""
    first = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if first.astimezone(where).replace(tzinfo=None, fold=0) == local:
        return first
    # By the offset before the jump it is after it, and by the one after the jump before it.
    before, after = local.replace(tzinfo=where, fold=1).astimezone(UTC), first
    old = before.astimezone(where).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(where).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after

"""Cron across changes of the clocks, in both directions, against an oracle that walks through every minute."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from taskrunner.cron import FIELDS, Cron, zone
from taskrunner.errors import ScheduleError

CHANGES = {
    "Europe/Berlin": ("2026-03-28", "2026-10-24"),
    "America/New_York": ("2026-03-07", "2026-10-31"),
    "Australia/Lord_Howe": ("2026-10-03", "2026-04-04"),  # by half an hour
    "Antarctica/Troll": ("2026-03-28", "2026-10-24"),  # by two hours
    "America/Havana": ("2026-03-07", "2026-10-31"),  # at midnight
    "UTC": ("2026-03-28", "2026-10-24"),
}
"""Zone → a day before the one on which local times are skipped, and before the one on which they repeat (2026)."""
MINUTE = timedelta(minutes=1)


def instants(text: str, zone_name: str, day: str, hours: int = 48) -> list[str]:
    """When a cron text comes true from a day's start in the zone on, in UTC."""
    where = zone(zone_name)
    cron, at = Cron(text, where), datetime.fromisoformat(day).replace(tzinfo=where).astimezone(UTC)
    end, found = at + timedelta(hours=hours), list[str]()
    now: int | None = round(at.timestamp() * 1000)
    while now is not None and (now := cron.after(now)) is not None and now <= end.timestamp() * 1000:
        found.append(datetime.fromtimestamp(now / 1000, UTC).strftime("%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "zone_name", "day", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", ["28 01:30", "29 01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24", ["24 00:30", "25 00:30"]),
        ("30 2 * * *", "America/New_York", "2026-03-07", ["07 07:30", "08 07:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31", ["31 05:30", "01 05:30"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", ["02 15:45", "03 15:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04", ["03 14:45", "04 14:45"]),
        ("30 1,2 * * *", "Antarctica/Troll", "2026-03-28", ["28 01:30", "28 02:30", "29 01:00"]),
        ("30 1,2 * * *", "Antarctica/Troll", "2026-10-24", ["23 23:30", "24 00:30", "24 23:30", "25 00:30"]),
        ("0 0 * * *", "America/Havana", "2026-03-07", ["08 05:00"]),
    ],
)
def test_a_time_that_is_skipped_comes_at_the_jump_and_one_that_repeats_comes_once(
    text: str, zone_name: str, day: str, expected: list[str]
) -> None:
    hours = 40
    assert instants(text, zone_name, day, hours) == expected


def test_each_hour_comes_each_hour_whatever_the_clocks_do() -> None:
    for zone_name in ("Europe/Berlin", "America/New_York", "Antarctica/Troll", "America/Havana"):
        for day in CHANGES[zone_name]:
            assert len(instants("0 * * * *", zone_name, day)) == 48


def test_a_time_of_the_second_pass_through_an_hour_is_never_answered_with_one_of_the_first() -> None:
    where = zone("Europe/Berlin")
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    found = Cron("45 2 * * *", where).after(round(second.timestamp() * 1000))
    assert found is not None
    assert datetime.fromtimestamp(found / 1000, UTC) == datetime(2026, 10, 26, 1, 45, tzinfo=UTC)


# -- the oracle ------------------------------------------------------------------------------------------------------


def oracle(text: str, zone_name: str, begin: datetime, end: datetime) -> list[datetime]:
    """The same by a walk through every minute of real time, and no arithmetic with offsets."""
    (minutes, hours, days, months, weekdays) = [f.parse(w) for f, w in zip(FIELDS, text.split(), strict=True)]
    where, any_hour = zone(zone_name), len(hours[0]) == 24

    def matches(local: datetime) -> bool:
        if local.minute not in minutes[0] or local.hour not in hours[0] or local.month not in months[0]:
            return False
        day, weekday = local.day in days[0], local.isoweekday() % 7 in weekdays[0]
        return (day or weekday) if days[1] and weekdays[1] else (day and weekday)

    found, latest = list[datetime](), (begin - MINUTE).astimezone(where).replace(tzinfo=None)
    at = begin
    while at <= end:
        local = at.astimezone(where).replace(tzinfo=None, fold=0)
        skipped = [latest + n * MINUTE for n in range(1, int((local - latest) / MINUTE))]
        comes = matches(local) if any_hour else local > latest and any(map(matches, [*skipped, local]))
        if comes:
            found.append(at)
        latest = max(latest, local)
        at += MINUTE
    return found


def some(chance: random.Random, least: int, most: int) -> str:
    """The text of a field."""
    first, last = sorted((chance.randint(least, most), chance.randint(least, most)))
    numbers = [str(chance.randint(least, most)) for _ in range(chance.randint(1, 4))]
    return chance.choice(
        ["*", "*", "?", f"*/{chance.randint(1, most)}", f"{first}-{last}", f"{first}/2", ",".join(numbers)]
    )


@pytest.mark.parametrize("direction", [0, 1], ids=["skipped", "repeated"])
@pytest.mark.parametrize("zone_name", CHANGES)
def test_any_cron_text_comes_true_when_the_oracle_says(zone_name: str, direction: int) -> None:
    chance, where = random.Random(f"{zone_name} {direction}"), zone(zone_name)
    begin = datetime.fromisoformat(CHANGES[zone_name][direction]).replace(tzinfo=where).astimezone(UTC)
    end, compared = begin + timedelta(hours=32), 0
    while compared < 12:
        hour = chance.choice([some(chance, 0, 23), some(chance, 0, 4), "*"])
        text = " ".join([some(chance, 0, 59), hour, chance.choice(["*", some(chance, 1, 31)]), "*", some(chance, 0, 6)])
        try:
            cron = Cron(text, where)
        except ScheduleError:
            continue
        expected = [round(at.timestamp() * 1000) for at in oracle(text, zone_name, begin, end)]
        now, found = round((begin - MINUTE).timestamp() * 1000), list[int]()
        while (following := cron.after(now)) is not None and following <= end.timestamp() * 1000:
            now = following
            found.append(now)
        assert found == expected, text
        compared += bool(expected)

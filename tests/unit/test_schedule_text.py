"""What may be said in a schedule, and what is refused with a word on how to mend it."""

from __future__ import annotations

import math
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskrunner.cron import LAST_INSTANT, Cron
from taskrunner.errors import ScheduleError
from taskrunner.schedule import Grid, timing

MONDAY = round(datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp() * 1000)


def following(text: str, count: int = 3) -> list[str]:
    """The next instants after Monday the 23rd of November 2026, noon."""
    now, found = MONDAY, list[str]()
    for _ in range(count):
        after = Cron(text, UTC).after(now)
        assert after is not None
        now = after
        found.append(datetime.fromtimestamp(now / 1000, UTC).strftime("%y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 9 * * mon-fri", ["26-11-24 09:30", "26-11-25 09:30", "26-11-26 09:30"]),
        ("0 0 1 JAN,jul ?", ["27-01-01 00:00", "27-07-01 00:00", "28-01-01 00:00"]),
        ("*/20 * * * *", ["26-11-23 12:20", "26-11-23 12:40", "26-11-23 13:00"]),
        ("5/20 12-13 ? ? ?", ["26-11-23 12:05", "26-11-23 12:25", "26-11-23 12:45"]),
        ("0 0 * * 0", ["26-11-29 00:00", "26-12-06 00:00", "26-12-13 00:00"]),
        ("0 0 29 2 *", ["28-02-29 00:00", "32-02-29 00:00", "36-02-29 00:00"]),
        ("0 0 30 11 sun", ["26-11-29 00:00", "26-11-30 00:00", "27-11-07 00:00"]),
        ("  1   2  * *   * ", ["26-11-24 02:01", "26-11-25 02:01", "26-11-26 02:01"]),
    ],
)
def test_five_fields_come_true(text: str, expected: list[str]) -> None:
    assert following(text) == expected


def test_if_both_days_are_restricted_either_is_enough() -> None:
    assert following("0 0 10 * mon", 2) == ["26-11-30 00:00", "26-12-07 00:00"]
    assert "26-12-10 00:00" in following("0 0 10 * mon", 3)


def test_a_step_restricts_and_a_star_does_not() -> None:
    assert following("0 0 */10 * mon", 3) == ["26-11-30 00:00", "26-12-01 00:00", "26-12-07 00:00"], "either"
    assert following("0 0 * * mon", 2) == ["26-11-30 00:00", "26-12-07 00:00"]
    assert following("0 0 */1 * mon", 2) == ["26-11-30 00:00", "26-12-07 00:00"], "a step of one is a star"
    assert following("0 0 10 * ?", 2) == ["26-12-10 00:00", "27-01-10 00:00"]


@pytest.mark.parametrize(
    ("alias", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_an_alias_is_short_for_its_fields(alias: str, fields: str) -> None:
    assert following(alias) == following(fields)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("1500ms", 1), ("5ms", 1), ("2h0m1.9s", 7201), ("60000000us", 60)],
)
def test_every_takes_a_duration_in_whole_seconds_of_which_there_is_one(text: str, seconds: int) -> None:
    assert timing(cron=f"@every {text}").interval == seconds


@pytest.mark.parametrize("prefix", ["TZ=", "CRON_TZ="])
def test_a_zone_may_stand_in_front(prefix: str) -> None:
    made = timing(cron=f"{prefix}Asia/Tokyo 0 9 * * *")
    assert (made.cron, made.tz) == ("0 9 * * *", "Asia/Tokyo")
    assert made == timing(cron="0 9 * * *", tz="Asia/Tokyo") == timing("0 9 * * *", tz=zoneinfo.ZoneInfo("Asia/Tokyo"))
    assert made.ticks(0).after(0) == 24 * 3_600_000, "nine in Tokyo is midnight here"


def test_without_a_zone_it_is_utc() -> None:
    assert timing(cron="@daily").tz == "UTC"
    assert timing(cron="@daily", tz=UTC).tz == "UTC"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "no seconds"),
        ("60 * * * *", "0 to 59"),
        ("* 24 * * *", "0 to 23"),
        ("* * 0 * *", "1 to 31"),
        ("* * 32 * *", "1 to 31"),
        ("* * * 13 *", "JAN to DEC"),
        ("* * * * 7", "0 to 6"),
        ("* * * * 5-7", "0 to 6"),
        ("* * * * FRI-MON", "backwards"),
        ("*/0 * * * *", "from 1"),
        ("*/ * * * *", "is no minute"),
        ("-1 * * * *", "is no minute"),
        ("1,,2 * * * *", "is no minute"),
        ("*-5 * * * *", "is no minute"),
        ("\u0661 * * * *", "is no minute"),
        ("JAN * * * *", "'JAN' is no minute"),
        ("* * L * *", "day of month"),
        ("* * * * MON#2", "day of week"),
        ("0 0 30 2 *", "never comes true"),
        ("0 0 31 4,6,9,11 ?", "never comes true"),
        ("@reboot", "@hourly"),
        ("@fortnightly", "@weekly"),
        ("@every", "@every 90s"),
        ("@every 0s", "@every 90s"),
        ("@every -5s", "@every 90s"),
        ("@every 5", "@every 90s"),
        ("@every 1h 30m", "@every 90s"),
        ("TZ=Mars/Olympus * * * * *", "no time zone"),
        ("TZ= * * * * *", "no time zone"),
        ("TZ=UTC", "five fields"),
        ("* * * * *\x00", "day of week"),
        ("9" * 5000 + " * * * *", "is no minute"),
    ],
)
def test_bad_cron_text_is_refused_with_a_word_on_what_may_stand_there(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        timing(cron=text)


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "Europe", "../../etc/passwd", "/etc/passwd", "\x00", "a" * 300])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ScheduleError, match="IANA name"):
        timing(cron="@daily", tz=name)


def test_a_zone_that_is_nearly_right_gets_a_hint() -> None:
    with pytest.raises(ScheduleError, match="did you mean 'Europe/Berlin'"):
        timing(cron="@daily", tz="Europe/Berln")


@pytest.mark.parametrize("every", [0, -1, 0.001, math.nan, math.inf, -math.inf, 1e300, True, "5", timedelta(0)])
def test_an_interval_must_be_a_length_of_time(every: Any) -> None:
    with pytest.raises(ScheduleError, match="every must be"):
        timing(every=every)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "either cron= or every="),
        ({"cron": "@daily", "every": 5}, "not both"),
        ({"cron": 5}, "must be text"),
        ({"every": 5, "tz": "UTC"}, "tz= is for cron="),
        ({"cron": "@daily", "tz": timezone(timedelta(hours=1))}, "ZoneInfo"),
        ({"cron": "TZ=UTC @daily", "tz": "Asia/Tokyo"}, "give one of them"),
        ({"every": 5, "start": datetime(2030, 1, 1)}, "time zone"),
        ({"every": 5, "start": 5}, "aware datetime"),
    ],
)
def test_what_does_not_fit_together_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        timing(**asked)


# -- intervals -------------------------------------------------------------------------------------------------------


def test_an_interval_begins_one_interval_from_now_and_its_ticks_never_drift() -> None:
    made = timing(every=1 / 3)
    anchor, first = made.begin(1_000_000)
    assert first == anchor == 1_000_334
    ticks, now = made.ticks(anchor), anchor
    for _ in range(3_000):
        now = ticks.after(now) or 0
    assert abs(now - anchor - 1_000_000) <= 1


def test_a_start_is_the_first_tick_and_a_past_one_still_says_where_the_grid_is() -> None:
    start = datetime.fromtimestamp(1_000, UTC)
    made = timing(every=60, start=start)
    assert made.begin(5_000) == (1_000_000, 1_000_000)
    assert made.begin(1_000_000) == (1_000_000, 1_060_000), "that instant is over"
    assert made.begin(1_090_000) == (1_000_000, 1_120_000)


def test_cron_does_not_come_before_its_start() -> None:
    start = datetime(2030, 5, 1, 12, tzinfo=UTC)
    _, first = timing(cron="0 12 * * *", start=start).begin(MONDAY)
    assert first == round(start.timestamp() * 1000)


@pytest.mark.parametrize("text", ["* * * * *", "0 0 1 1 *"])
def test_the_calendar_ends_without_an_error(text: str) -> None:
    assert Cron(text, zoneinfo.ZoneInfo("Pacific/Apia")).after(LAST_INSTANT - 1000) is None
    assert Grid(0, 10**12).after(LAST_INSTANT) is None

"""Limits and rates as values: what they may be, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import Limit, Rate, TaskOptionError
from taskrunner.needs import Permit, are_sound

NO_COUNTS: list[Any] = [0, -1, 10**9, 1.5, 1.0, math.nan, math.inf, "3", None, True, [3]]
NO_KEYS: list[Any] = ["", "x" * 1001, "\ud800", 5, b"key", ["key"], True]


@pytest.mark.parametrize("count", NO_COUNTS, ids=repr)
def test_a_count_is_a_whole_number_of_at_least_one(count: Any) -> None:
    for make in (lambda: Limit(count), lambda: Rate(count, 1)):
        with pytest.raises(TaskOptionError, match=r"count must be a whole number of 1 to 999,999,999, not "):
            make()


@pytest.mark.parametrize("burst", [one for one in NO_COUNTS if one is not None], ids=repr)
def test_so_is_a_burst(burst: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"^Rate: burst must be a whole number"):
        Rate(1, 1, burst=burst)


@pytest.mark.parametrize(
    "per",
    [0, 0.0, -1, -0.001, math.nan, math.inf, -math.inf, "60", None, True, [60], timedelta(0), timedelta(-1)],
    ids=repr,
)
def test_a_time_is_more_than_zero(per: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"^Rate: per must be seconds \(int or float\) or a timedelta, more than"):
        Rate(1, per)


@pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
def test_a_key_is_a_template_or_a_function(key: Any) -> None:
    for make in (lambda: Limit(1, key), lambda: Rate(1, 1, key)):
        with pytest.raises(TaskOptionError, match=r"^(Limit|Rate): key must be a template like 'user:\{user_id\}'"):
            make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rate(1_000_001, 1),
        lambda: Rate(1, 1e-7),
        lambda: Rate(1, timedelta(days=12_000)),
        lambda: Rate(1, 1e300),
        lambda: Rate(1, 60, burst=10**9 - 1),
    ],
    ids=["over a million a second", "a tenth of a microsecond", "33 years", "for ever", "a burst of 1,900 years"],
)
def test_a_rate_that_the_server_could_not_keep_is_refused(make: Callable[[], Rate]) -> None:
    with pytest.raises(TaskOptionError, match="must be"):
        make()


@pytest.mark.parametrize(
    ("rate", "interval", "capacity"),
    [
        (Rate(100, per=60), 600, 100),
        (Rate(100, per=timedelta(minutes=1), burst=1), 600, 1),
        (Rate(3, 1), 1000 / 3, 3),
        (Rate(1_000_000, 1), 0.001, 1_000_000),
        (Rate(1, timedelta(days=365), burst=7), 31_536_000_000, 7),
        (Rate(10**9 - 1, timedelta(days=3650)), 3650 * 86_400_000 / (10**9 - 1), 10**9 - 1),
    ],
    ids=["a minute", "evenly", "a third", "fastest", "slowest", "largest"],
)
def test_a_rate_is_an_interval_and_a_burst(rate: Rate, interval: float, capacity: int) -> None:
    assert (rate.interval, rate.capacity) == (pytest.approx(interval), capacity)
    assert are_sound(str(Permit("0" * 32, rate.interval, rate.capacity))), "it can travel"


def test_they_are_values() -> None:
    assert Limit(3) == Limit(3, None) != Limit(4)
    assert Rate(3, 1) == Rate(3, 1, None, None) != Rate(3, 1, burst=1)
    assert len({Limit(3, "k"), Limit(3, "k"), Rate(3, 1), Rate(3, 1)}) == 2

"""Delays between attempts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner import Backoff, TaskOptionError
from taskrunner.features import DEFAULTS


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff.quadratic(), [1, 4, 9, 16, 25]),
        (Backoff.quadratic(base=2, cap=20), [2, 8, 18, 20, 20]),
        (Backoff.exponential(), [1, 2, 4, 8, 16]),
        (Backoff.exponential(base=0.5, factor=3, cap=5), [0.5, 1.5, 4.5, 5, 5]),
        (Backoff.exponential(base=8, factor=0.5), [8, 4, 2, 1, 0.5]),
        (Backoff.linear(), [1, 2, 3, 4, 5]),
        (Backoff.linear(step=0.1, cap=0.3), [0.1, 0.2, 0.3, 0.3, 0.3]),
        (Backoff.constant(7), [7, 7, 7, 7, 7]),
        (Backoff.constant(0), [0, 0, 0, 0, 0]),
        (Backoff.constant(5000), [5000] * 5),
    ],
    ids=repr,
)
def test_the_delay_after_each_attempt(backoff: Backoff, delays: list[float]) -> None:
    assert [backoff(attempt) for attempt in range(1, 6)] == pytest.approx(delays)


def test_the_default_waits_n_squared_seconds_and_five_minutes_from_the_eighteenth_failure_on() -> None:
    delays = [DEFAULTS["backoff"](failures) for failures in range(1, 25)]
    assert delays == [n * n for n in range(1, 18)] + [300] * 7


@pytest.mark.parametrize("make", [Backoff.quadratic, Backoff.exponential, Backoff.linear])
def test_no_attempt_is_too_late_for_the_cap(make: Any) -> None:
    assert [make()(attempt) for attempt in (1_000, 100_000, 10**9)] == [300.0] * 3


kinds = st.sampled_from([Backoff.quadratic, Backoff.exponential, Backoff.linear, Backoff.constant])


@given(kinds, st.floats(0, 1e6), st.floats(0, 1), st.integers(1, 10_000))
def test_jitter_stays_within_its_share_of_the_delay(make: Any, base: float, jitter: float, attempt: int) -> None:
    plain, shaken = make(base)(attempt), make(base, jitter=jitter)(attempt)
    assert plain * (1 - jitter) - 1e-6 <= shaken <= plain * (1 + jitter) + 1e-6
    assert 0 <= shaken < math.inf


def test_jitter_differs_from_call_to_call() -> None:
    backoff = Backoff.constant(100, jitter=0.5)
    assert len({backoff(1) for _ in range(20)}) > 10


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True], ids=repr)
def test_a_wrong_number_is_refused(value: Any) -> None:
    for make in (Backoff.quadratic, Backoff.exponential, Backoff.linear):
        with pytest.raises(TaskOptionError, match="backoff: base must be a number of seconds"):
            make(value)
    with pytest.raises(TaskOptionError, match="backoff: cap"):
        Backoff.quadratic(cap=value)


@pytest.mark.parametrize("jitter", [-0.1, 1.1, math.nan, "1", None, True], ids=repr)
def test_a_wrong_jitter_is_refused(jitter: Any) -> None:
    with pytest.raises(TaskOptionError, match="backoff: jitter"):
        Backoff.constant(1, jitter=jitter)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None], ids=repr)
def test_a_wrong_constant_is_refused(seconds: Any) -> None:
    with pytest.raises(TaskOptionError, match="backoff: "):
        Backoff.constant(seconds)

"""Values that users give are checked once, and refused with a word about what they should be."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest

from taskrunner import TaskOptionError, features, options
from taskrunner.features import DEFAULTS, OPTIONS, arrived, choose, travelling
from taskrunner.plan import CORE


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0.0), (5, 5.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (250_000_000_000, 2.5e11)]
)
def test_a_duration_is_seconds_or_a_timedelta(value: Any, number: float) -> None:
    assert options.seconds(value, "delay") == number


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, math.nan, math.inf, 1e12, timedelta(seconds=-1), timedelta.max, "5", None, True, [1]],
    ids=repr,
)
def test_any_other_duration_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"^delay must be"):
        options.seconds(value, "delay")


def test_zero_is_refused_where_it_makes_no_sense() -> None:
    with pytest.raises(TaskOptionError, match="more than zero"):
        options.seconds(0, "timeout", zero=False)


def test_an_instant_is_an_aware_datetime() -> None:
    assert options.instant(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), "at") == 1500
    assert options.instant(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "at") == 0


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), 5, "2030-01-01", None], ids=repr)
def test_any_other_instant_is_refused(value: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"at (needs a time zone|must be an aware datetime)"):
        options.instant(value, "at")


@pytest.mark.parametrize("value", ["a", "A-b_c.9", "x" * 64])
def test_a_name_is_of_letters_digits_and_three_signs(value: str) -> None:
    assert options.name(value, "queue") == value


@pytest.mark.parametrize("value", ["", "a b", "a:b", "{a}", "é", "x" * 65, "a\n", None, 5], ids=ascii)
def test_any_other_name_is_refused(value: Any) -> None:
    with pytest.raises(TaskOptionError, match="queue must be 1 to 64"):
        options.name(value, "queue")


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, 2**53 + 1], ids=repr)
def test_a_whole_number_is_an_int_within_bounds(value: Any) -> None:
    assert options.whole(1, "n", 1) == 1
    with pytest.raises(TaskOptionError, match="n must be a whole number of at least 1"):
        options.whole(value, "n", 1)


@pytest.mark.parametrize("value", [0, 1, "yes", None], ids=repr)
def test_truth_is_true_or_false(value: Any) -> None:
    assert options.truth(True, "unique") is True
    with pytest.raises(TaskOptionError, match="unique must be True or False"):
        options.truth(value, "unique")


# -- sets of options -------------------------------------------------------------------------------------------------


def test_options_never_change_and_know_what_was_chosen() -> None:
    chosen = choose(DEFAULTS, {"max_retry": 5}, "task 'x'", dispatch=False)
    assert (chosen["max_retry"], chosen["timeout"], chosen.chosen) == (5, None, {"max_retry"})
    assert DEFAULTS["max_retry"] == 3
    again = choose(chosen, {"timeout": 1}, "dispatch", dispatch=True)
    assert (again["max_retry"], again["timeout"], again.chosen) == (5, 1.0, {"max_retry", "timeout"})
    assert set(again) == set(OPTIONS)
    assert len(again) == len(OPTIONS)
    with pytest.raises(TypeError):
        chosen["max_retry"] = 6  # type: ignore[index]


def test_the_types_for_checkers_name_the_options_that_there_are() -> None:
    task = {name for name, option in OPTIONS.items() if option.on_task} | {"queue"}
    dispatch = {name for name, option in OPTIONS.items() if option.on_dispatch} | set(CORE)
    assert set(get_type_hints(options.TaskKeywords)) == task
    assert set(get_type_hints(options.DispatchKeywords)) == dispatch


def test_every_default_passes_its_own_check() -> None:
    for name, option in OPTIONS.items():
        assert option.check(option.default, name) == option.default


def test_options_that_travel_arrive_as_they_were() -> None:
    from taskrunner import Backoff

    given = {"max_retry": 7, "timeout": timedelta(seconds=3), "backoff": Backoff.linear(2, jitter=0.5), "unique": True}
    at_dispatch = choose(DEFAULTS, given, "dispatch", dispatch=True)
    sent = travelling(given, at_dispatch)
    assert set(sent) == {"max_retry", "timeout", "backoff"}, "what only the dispatch needs stays at home"
    there = arrived(DEFAULTS, {**sent, "of a newer version": 5})
    assert (there["max_retry"], there["timeout"], there["backoff"]) == (7, 3.0, Backoff.linear(2, jitter=0.5))
    assert there["unique"] is False


def test_no_two_features_share_an_option() -> None:
    names = [name for feature in features.FEATURES for name in feature.options]
    assert len(names) == len(set(names)) == len(OPTIONS)

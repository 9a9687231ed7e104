"""The arithmetic of the forecast."""

from __future__ import annotations

import pytest

from taskrunner.forecast import still_waiting

RUN_TIMES = {"short": 0.001, "long": 1.0}


def test_slow_tasks_fill_the_slots_and_fast_ones_the_queue() -> None:
    waiting = still_waiting({"short": 900, "long": 200}, RUN_TIMES, in_hand=100, slots=100)
    assert waiting["long"] == pytest.approx(100, abs=1)
    assert waiting["short"] == pytest.approx(900, abs=1)


def test_what_was_read_ahead_is_like_the_queue() -> None:
    waiting = still_waiting({"short": 900, "long": 200}, RUN_TIMES, in_hand=600, slots=100)
    assert sum(waiting.values()) == pytest.approx(500)
    assert waiting["short"] / waiting["long"] == pytest.approx(9, rel=0.02)


def test_what_lies_with_dead_workers_counts_as_running() -> None:
    waiting = still_waiting({"short": 900, "long": 200}, RUN_TIMES, in_hand=100, slots=0)
    assert waiting["long"] == pytest.approx(100, abs=1)


def test_nothing_waits_when_everything_is_in_hand() -> None:
    assert still_waiting({"short": 3, "long": 2}, RUN_TIMES, in_hand=5, slots=100) == {"short": 0.0, "long": 0.0}


def test_nothing_running_leaves_the_counts_as_they_are() -> None:
    assert still_waiting({"short": 3, "long": 2}, RUN_TIMES, in_hand=0, slots=0) == {"short": 3.0, "long": 2.0}

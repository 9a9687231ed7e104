"""Which ticks are fired when some were missed, and how much of that is decided at once."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.cron import Cron
from taskrunner.schedule import LATE, STEPS, Grid, Move, latest, moves

MINUTES = Grid(0, 60_000_000)
M = 60_000


def test_a_tick_that_is_in_time_is_fired_whatever_the_policy() -> None:
    for policy in ("latest", "skip", "all"):
        assert moves(MINUTES, 5 * M, 5 * M + 3, policy, 4 * M) == ([Move(5 * M, 5 * M, 6 * M)], None)


def test_latest_fires_the_last_of_those_that_were_missed() -> None:
    assert moves(MINUTES, 5 * M, 9 * M + 30_000, "latest", 9 * M) == ([Move(5 * M, 9 * M, 10 * M)], None)


def test_latest_fires_each_tick_that_it_saw_coming_and_is_a_little_late_with() -> None:
    seconds = Grid(0, 1_000_000)
    assert moves(seconds, 7_000, 9_400, "latest", 0)[0] == [
        Move(7_000, 7_000, 8_000),
        Move(8_000, 8_000, 9_000),
        Move(9_000, 9_000, 10_000),
    ]
    assert moves(seconds, 3_000, 9_400, "latest", 8_500)[0] == [Move(3_000, 9_000, 10_000)]
    assert moves(seconds, 3_000, 9_400, "latest", 9_300)[0] == [Move(3_000, 9_000, 10_000)], "it has just begun"
    late = moves(seconds, 1_000, 20_500, "latest", 0)[0]
    assert [move.fired for move in late] == [16_000, 17_000, 18_000, 19_000, 20_000], (
        "an older one is made up for by these"
    )


def test_all_fires_each_of_them_in_order() -> None:
    steps, again = moves(MINUTES, 5 * M, 8 * M, "all", 8 * M)
    assert steps == [Move(n * M, n * M, (n + 1) * M) for n in (5, 6, 7, 8)]
    assert again is None


def test_all_takes_so_many_at_a_time_and_goes_on_where_it_ended() -> None:
    steps, _ = moves(MINUTES, 1 * M, 10_000 * M, "all", 0)
    assert len(steps) == STEPS
    further, _ = moves(MINUTES, steps[-1].following or 0, 10_000 * M, "all", 0)
    assert further[0].expected == (STEPS + 1) * M


def test_skip_fires_none_that_is_late() -> None:
    assert moves(MINUTES, 5 * M, 9 * M + LATE + 1, "skip", 0) == ([Move(5 * M, None, 10 * M)], None)


def test_skip_fires_the_last_one_if_that_is_in_time() -> None:
    assert moves(MINUTES, 5 * M, 9 * M + LATE, "skip", 9 * M) == ([Move(5 * M, 9 * M, 10 * M)], None)


def test_skip_leaves_a_tick_from_before_it_watched_to_others_until_it_is_late() -> None:
    steps, again = moves(MINUTES, 5 * M, 5 * M + 200, "skip", 5 * M + 100)
    assert (steps, again) == ([], 5 * M + LATE + 1)
    assert moves(MINUTES, 5 * M, again or 0, "skip", 5 * M + 100) == ([Move(5 * M, None, 6 * M)], None)


@given(
    anchor=st.integers(0, 10**9),
    micros=st.integers(10_000, 10**10),
    due=st.integers(0, 10**9),
    gap=st.integers(0, 10**10),
)
def test_the_latest_tick_is_not_after_now_and_the_next_one_is(anchor: int, micros: int, due: int, gap: int) -> None:
    grid = Grid(anchor, micros)
    first = grid.after(due) or 0
    now = first + gap
    last = latest(grid, first, now)
    assert first <= last <= now < (grid.after(last) or 0)


@pytest.mark.parametrize("text", ["* * * * *", "* * 1 1 *", "*/7 3-5 * * mon", "0 0 29 2 *"])
def test_a_year_of_missed_ticks_takes_few_questions(text: str) -> None:
    cron, asked = Cron(text, UTC), 0

    class Counting:
        def after(self, instant: int) -> int | None:
            nonlocal asked
            asked += 1
            return cron.after(instant)

    first = cron.after(1_790_000_000_000)
    assert first is not None
    now = first + 400 * 86_400_000
    last = latest(Counting(), first, now)
    assert last <= now < (cron.after(last) or 0)
    assert asked < 150

"""The arithmetic of the forecast."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner import QueueStats, TaskStats, forecast
from taskrunner.forecast import Capacity, drain_time, mean_run_time, percentile, rate, still_waiting
from taskrunner.store.inspect import Counts, summarise
from taskrunner.worker.monitor import LongQueueHook


@pytest.mark.parametrize(
    ("waiting", "average", "capacity", "seconds"),
    [
        (16, 0.5, Capacity(1, 4, None, 0), 2.0),
        (16, 0.5, Capacity(2, 4, None, 0), 1.0),
        (16, 0.5, Capacity(1, 4, 3.2, 0), 2.5),
        (16, 0.5, Capacity(1, 4, 9.0, 0), 2.0),
        (10_000, 0.00001, Capacity(1, 100, 10, 0.0001), 1.0),
        (10_000, 0.00001, Capacity(2, 100, 10, 0.0001), 0.5),
        (0, 0.5, Capacity(0, 0, None, 0), 0.0),
        (1, 0.5, Capacity(0, 4, None, 0), math.inf),
        (1, 0.0, Capacity(1, 4, None, 0), 0.0),
    ],
)
def test_the_drain_time_is_work_over_capacity(
    waiting: float, average: float, capacity: Capacity, seconds: float
) -> None:
    assert drain_time(waiting, average, capacity) == pytest.approx(seconds)


def test_the_mean_is_weighted_by_what_waits_and_not_a_mean_of_means() -> None:
    times = {"fast": 0.001, "slow": 1.0, "idle": 1000.0}
    assert mean_run_time({"fast": 9, "slow": 1}, times) == pytest.approx(0.1009)
    assert mean_run_time({"fast": 5}, times) == pytest.approx(0.001), "tasks that don't wait don't count"


def test_a_task_that_never_ran_counts_as_the_mean_of_the_others() -> None:
    assert mean_run_time({"new": 2, "known": 2}, {"known": 4.0}) == pytest.approx(4.0)
    assert mean_run_time({"new": 2}, {"elsewhere": 3.0}) == pytest.approx(3.0)
    assert mean_run_time({"new": 2}, {}) == 0.0
    assert mean_run_time({}, {"a": 1.0, "b": 3.0}) == pytest.approx(2.0)


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


def test_counts_below_zero_are_none_and_no_counts_are_no_jobs() -> None:
    assert still_waiting({"a": 3, "gone": -2}, {"a": 1.0}, in_hand=0, slots=1) == {"a": 3.0}
    assert still_waiting({}, {}, in_hand=3, slots=1) == {}


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000), min_size=1)
times = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e4))


@given(counts, times, st.integers(0, 50_000), st.integers(0, 1000))
def test_never_more_is_taken_off_than_there_is(
    unsettled: dict[str, int], run_times: dict[str, float], in_hand: int, slots: int
) -> None:
    waiting = still_waiting(unsettled, run_times, in_hand, slots)
    assert all(-1e-6 <= n <= unsettled[task] + 1e-6 for task, n in waiting.items())
    assert sum(waiting.values()) == pytest.approx(max(0, sum(unsettled.values()) - in_hand), abs=0.01)


def test_a_percentile_is_right_to_about_a_fifth() -> None:
    buckets: dict[str, float] = {}
    for milliseconds in range(1, 1001):
        bucket = str(math.floor(2 * math.log2(milliseconds * 1000)))
        buckets[bucket] = buckets.get(bucket, 0) + 1
    assert percentile(buckets, 0.5) == pytest.approx(0.5, rel=0.25)
    assert percentile(buckets, 0.95) == pytest.approx(0.95, rel=0.25)
    assert percentile({}, 0.95) == 0.0


def test_a_rate_fades_with_time_and_is_not_guessed_from_a_single_moment() -> None:
    assert rate("10 1000 1000", 1000) == pytest.approx(10, rel=0.1), "ten in the first second"
    steady = 100 * 10 * (1 - math.exp(-6))  # 100 per second over a minute, faded
    assert rate(f"{steady} 60000 0", 60_000) == pytest.approx(100, rel=0.05)
    assert rate(f"{steady} 60000 0", 90_000) < 10
    assert rate("5 2000 1000", 500) >= 0, "a clock that was set back"


def stats(**values: Any) -> QueueStats:
    base: dict[str, Any] = dict.fromkeys(QueueStats.__dataclass_fields__, 0)
    return QueueStats(**(base | {"queue": "q", "is_long": False, "per_task": {}} | values))


@pytest.mark.parametrize(
    ("waiting", "drain", "replicas", "target", "wanted"),
    [
        (0, 0.0, 3, 10, 0),
        (100, 40.0, 2, 10, 8),
        (100, 41.0, 2, 10, 9),
        (100, 1.0, 2, 10, 1),
        (100, math.inf, 0, 10, 1),
        (100, math.inf, 3, 10, 3),
        (100, 40.0, 2, 0, 2),
    ],
)
def test_desired_replicas_would_drain_it_in_time(
    waiting: int, drain: float, replicas: int, target: float, wanted: int
) -> None:
    assert stats(waiting=waiting, drain_time=drain, replicas=replicas).desired_replicas(target) == wanted


# -- several partitions --------------------------------------------------------------------------------------------


def counted(**values: Any) -> Counts:
    base: dict[str, Any] = dict.fromkeys(Counts.__dataclass_fields__, 0)
    return Counts(**(base | {"unsettled": {}, "runs": {}, "rates": {}, "workers": []} | values))


def test_figures_of_partitions_are_summed_and_workers_counted_once() -> None:
    workers = [{"slots": 4, "queues": ["q"]}, {"slots": 4, "queues": ["other"]}]
    parts = [
        counted(now=2000, entries=6, pending=1, scheduled=2, dead=1, oldest=1500, unsettled={"a": 6}, workers=workers),
        counted(now=1000, entries=4, kept=1, oldest=1000, unsettled={"a": 3}, workers=workers),
    ]
    figures = summarise("q", parts, None)
    assert (figures.waiting, figures.running, figures.scheduled, figures.dead) == (8, 1, 2, 1)
    assert (figures.replicas, figures.workers, figures.oldest_wait) == (1, 4, 1.0)
    assert figures.per_task["a"] == TaskStats(8, 0.0, 0.0, 0, 0, 0)
    assert summarise("*", parts, None).replicas == 2


@pytest.mark.parametrize(("factor", "seconds"), [(None, 20.0), (1, 20.0), (4, 5.0)])
def test_a_given_number_of_replicas_takes_the_place_of_the_live_ones(factor: int | None, seconds: float) -> None:
    run = {"ok": 1, "failed": 0, "retried": 0, "n": 1, "sum": 2.0, "buckets": {"41": 1}}
    part = counted(entries=40, unsettled={"a": 40}, runs={"a": run}, workers=[{"slots": 4, "queues": ["q"]}])
    assert summarise("q", [part], factor).drain_time == pytest.approx(seconds)


def test_a_given_number_of_replicas_counts_only_while_somebody_consumes() -> None:
    assert summarise("q", [counted(entries=5)], 3).drain_time == math.inf
    empty = summarise("q", [], None)
    assert (empty.waiting, empty.drain_time, empty.replicas) == (0, 0.0, 0)


# -- when the hook is called ----------------------------------------------------------------------------------------


async def nothing(stats: QueueStats) -> None: ...


def test_the_threshold_itself_is_no_alert() -> None:
    hook = LongQueueHook(nothing, threshold=10)
    assert [hook.wants(stats(drain_time=t), 0.0) for t in (9, 10, 10.001, 11, math.inf, 5)] == [
        None,
        None,
        True,
        True,
        True,
        None,
    ]


def test_a_cooldown_holds_for_each_queue_alone() -> None:
    hook = LongQueueHook(nothing, threshold=10, cooldown=60)
    seen = [
        hook.wants(stats(queue=queue, drain_time=20), now) for queue, now in (("a", 0), ("a", 59), ("b", 59), ("a", 60))
    ]
    assert seen == [True, None, True, True]


def test_the_end_is_told_once_for_each_queue_that_was_long() -> None:
    hook = LongQueueHook(nothing, threshold=10, clear=2)
    seen = [hook.wants(stats(drain_time=t), 0.0) for t in (1, 20, 5, 2.5, 2, 1, 20, 0)]
    assert seen == [None, True, None, None, False, None, True, False]


@pytest.mark.parametrize(("threshold", "interval"), [(0, 0.1), (0.1, 0.1), (30, 15), (1e6, 60)])
def test_it_is_evaluated_at_half_the_threshold_within_bounds(threshold: float, interval: float) -> None:
    assert LongQueueHook(nothing, threshold=threshold).interval == interval


def test_the_module_tells_the_same_window_as_the_scripts() -> None:
    from taskrunner.store.scripts import SETTLE

    assert f"FLOW_WINDOW = {forecast.FLOW_WINDOW:.0f} ".encode() in SETTLE.text

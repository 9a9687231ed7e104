"""The judge: what becomes of a run that ended with an error. And errors as text, whatever they do."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import Backoff, GiveUp, JobTimeout, Retry, Snooze
from taskrunner.envelope import Delivery, Envelope
from taskrunner.outcome import MESSAGE_LIMIT, TRACEBACK_LIMIT, Again, Failed, Released, RetryPolicy, describe

DEFAULT = RetryPolicy(3, Backoff.quadratic(), Exception, ())


def run(attempt: int = 1) -> Delivery:
    return Delivery(Envelope("id", "task", 0, 3, attempt, {}, b""), "queue", 0, b"1-1", 1, 0.0)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 4.0), (3, 9.0)])
def test_an_error_is_another_run_after_the_backoff_of_its_attempt(attempt: int, delay: float) -> None:
    outcome = DEFAULT.judge(ValueError("bad"), run(attempt))
    assert isinstance(outcome, Again)
    assert (outcome.delay, outcome.failure.error_type, outcome.failure.message) == (delay, "ValueError", "bad")


@pytest.mark.parametrize(("max_retry", "last", "reason"), [(3, 4, "no retries left"), (0, 1, "no retries")])
def test_the_last_attempt_fails(max_retry: int, last: int, reason: str) -> None:
    outcome = RetryPolicy(max_retry, Backoff.constant(0), Exception, ()).judge(ValueError(), run(last))
    assert isinstance(outcome, Failed)
    assert outcome.reason == reason


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "error", "again"),
    [
        (Exception, (), ValueError(), True),
        (ValueError, (), KeyError(), False),
        ((ValueError, KeyError), (), KeyError(), True),
        (Exception, ValueError, ValueError(), False),
        (Exception, (OSError, KeyError), ConnectionError(), False),
        (ValueError, ValueError, ValueError(), False),
        ((), (), ValueError(), False),
        (Exception, (), SystemExit(1), True),
        (Exception, (), KeyboardInterrupt(), True),
        (Exception, (), asyncio.CancelledError(), True),
        (Exception, BaseException, asyncio.CancelledError(), False),
        (OSError, (), JobTimeout("late"), True),
        (Exception, (), ExceptionGroup("g", [ValueError()]), True),
    ],
    ids=repr,
)
def test_the_class_of_the_error_decides(retry_on: Any, give_up_on: Any, error: BaseException, again: bool) -> None:
    outcome = RetryPolicy(3, Backoff.constant(0), retry_on, give_up_on).judge(error, run())
    assert isinstance(outcome, Again if again else Failed)


@pytest.mark.parametrize(("delay", "seconds"), [(None, 9.0), (0, 0.0), (2.5, 2.5), (timedelta(minutes=1), 60.0)])
def test_retry_asks_for_another_run_whatever_the_classes_are(delay: Any, seconds: float) -> None:
    policy = RetryPolicy(3, Backoff.quadratic(), (), (Retry, Exception))
    assert policy.judge(Retry(delay), run(3)) == Again(seconds, describe(Retry(delay)))
    assert isinstance(policy.judge(Retry(delay), run(4)), Failed)


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0.0), (2.5, 2.5), (timedelta(hours=1), 3600.0)])
def test_a_snooze_is_a_release_whatever_the_attempt(delay: Any, seconds: float) -> None:
    assert RetryPolicy(0, Backoff.constant(0), (), Exception).judge(Snooze(delay), run(99)) == Released(seconds)


def test_giving_up_fails_at_once() -> None:
    outcome = DEFAULT.judge(GiveUp("closed"), run())
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.failure.message) == ("gave up", "closed")


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "soon", [], timedelta(seconds=-1)], ids=repr)
@pytest.mark.parametrize("signal", [Retry, Snooze])
def test_a_delay_that_is_none_fails_with_the_reason(signal: Any, delay: Any) -> None:
    outcome = DEFAULT.judge(signal(delay), run())
    assert isinstance(outcome, Failed)
    assert "can't be used" in outcome.reason


@pytest.mark.parametrize(
    "backoff",
    [lambda n: -1, lambda n: math.nan, lambda n: "x", lambda n: 1 / 0],
    ids=["negative", "nan", "text", "raises"],
)
def test_a_backoff_that_fails_fails_the_job_with_its_own_error(backoff: Any) -> None:
    outcome = RetryPolicy(3, backoff, Exception, ()).judge(ValueError("cause"), run())
    assert isinstance(outcome, Failed)
    assert outcome.failure.message == "cause"
    assert "backoff can't be used" in outcome.reason


# -- errors as text --------------------------------------------------------------------------------------------------


def test_an_error_is_its_class_its_text_and_its_traceback() -> None:
    try:
        raise ValueError("bad") from KeyError("cause")
    except ValueError as error:
        failure = describe(error)
    assert (failure.error_type, failure.message) == ("ValueError", "bad")
    assert "KeyError: 'cause'" in failure.traceback
    assert failure.traceback.endswith("ValueError: bad\n")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class NoString(Exception):
    def __str__(self) -> Any:
        return 5


@pytest.mark.parametrize("error", [NoText(), NoString()], ids=["raises", "gives a number"])
def test_an_error_without_a_text_is_told_by_its_class(error: Exception) -> None:
    failure = describe(error)
    assert failure.error_type == type(error).__name__
    assert "can't be shown" in failure.message


def test_long_texts_are_cut_and_the_traceback_keeps_its_end() -> None:
    def dig(depth: int) -> None:
        if depth:
            dig(depth - 1)
        raise ValueError("x" * 1_000_000 + "end")

    with pytest.raises(ValueError, match="x") as caught:
        dig(200)
    failure = describe(caught.value)
    assert len(failure.message) == MESSAGE_LIMIT
    assert len(failure.traceback) == TRACEBACK_LIMIT
    assert failure.traceback.endswith("end\n")


def test_what_can_not_be_written_as_utf_8_is_escaped() -> None:
    assert describe(ValueError("a\udc80b")).message == "a\\udc80b"


def test_causes_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    assert "second" in describe(first).traceback

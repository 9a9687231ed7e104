"""Failpoints are off unless a text enables them, and a text that can't be used is an error at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from taskrunner import failpoints
from taskrunner.failpoints import POINTS, VARIABLE, Reached, actions, enabled


def python(source: str, text: str) -> subprocess.CompletedProcess[str]:
    """A program that has this text in its environment."""
    command = [sys.executable, "-c", source]
    return subprocess.run(command, env={**os.environ, VARIABLE: text}, capture_output=True, text=True, timeout=30)


def test_without_a_text_no_point_does_anything() -> None:
    assert failpoints.reach is enabled("")
    for point in POINTS:
        assert failpoints.reach(point) is None


def test_a_point_that_a_text_does_not_name_does_nothing() -> None:
    reach = enabled("before_settle=raise")
    for point in set(POINTS) - {"before_settle"}:
        reach(point)
    with pytest.raises(Reached):
        reach("before_settle")


def test_an_action_happens_each_time() -> None:
    reach = enabled("before_settle=raise")
    for _ in range(3):
        with pytest.raises(Reached):
            reach("before_settle")


def test_an_action_with_a_number_happens_that_time_only() -> None:
    reach = enabled("before_settle=raise@3; after_fetch=raise@1")
    for _ in range(2):
        reach("before_settle")
    with pytest.raises(Reached):
        reach("before_settle")
    reach("before_settle")
    with pytest.raises(Reached):
        reach("after_fetch")


def test_a_sleep_blocks_its_thread() -> None:
    began = time.monotonic()
    enabled("before_beat=sleep:0.05")("before_beat")
    assert time.monotonic() - began >= 0.05


def test_a_kill_ends_the_process_like_a_crash() -> None:
    source = "from taskrunner.failpoints import reach; reach('after_fetch'); reach('after_fetch'); print('alive')"
    assert python(source, "after_fetch=kill@3").stdout == "alive\n"
    killed = python(source, "after_fetch=kill@2")
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("befor_settle=kill", "'befor_settle' is no failpoint; there are before_dispatch,"),
        ("before_settle", "'before_settle' has no action; give kill, raise or sleep:SECONDS"),
        ("before_settle=die", "'before_settle=die' has no action"),
        ("before_settle=kill:3", "has no action"),
        ("before_settle=sleep", "has no action"),
        ("before_settle=sleep:long", "has no action"),
        ("before_settle=sleep:-1", "has no action"),
        ("before_settle=sleep:nan", "has no action"),
        ("before_settle=sleep:inf", "has no action"),
        ("before_settle=kill@", "must be a whole number from 1"),
        ("before_settle=kill@0", "must be a whole number from 1"),
        ("before_settle=kill@once", "must be a whole number from 1"),
        ("before_settle=kill;before_settle=raise", "'before_settle' is named twice"),
    ],
)
def test_a_text_that_cannot_be_used_says_what_is_wrong_with_it(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE) as wrong:
        actions(text)
    assert complaint in str(wrong.value)


def test_a_wrong_text_in_the_environment_is_an_error_at_import() -> None:
    ended = python("import taskrunner", "before_settle=die")
    assert ended.returncode == 1
    assert "ValueError: TASKRUNNER_FAILPOINTS: 'before_settle=die' has no action" in ended.stderr

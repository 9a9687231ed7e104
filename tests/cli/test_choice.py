"""What is typed before a command does anything, and what may be shown of what users wrote."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
import typer

from taskrunner import JobFailed
from taskrunner.cli.choice import split
from taskrunner.cli.instants import show_distance, show_instant, zone_of
from taskrunner.cli.printable import printable, shortened, to_json

SERVER = "redis://typed"
NOW = datetime(2026, 11, 23, 1, 40, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "url", "most", "reference", "rest"),
    [
        (["7"], SERVER, 1, None, ["7"]),
        (["app:runner", "7"], None, 1, "app:runner", ["7"]),
        (["order:a"], SERVER, 1, None, ["order:a"]),
        (["app:runner", "order:a"], SERVER, 1, "app:runner", ["order:a"]),
        (["app:runner", "7", "8"], None, None, "app:runner", ["7", "8"]),
        (["order:a", "order:b"], SERVER, None, None, ["order:a", "order:b"]),
        (["order:a"], SERVER, None, None, ["order:a"]),
        (["order:7", "order:8"], "redis://exported", None, None, ["order:7", "order:8"]),
        (["app:runner", "7"], "redis://exported", None, "app:runner", ["7"]),
        (["src/app.py:runner", "7"], None, None, "src/app.py:runner", ["7"]),
    ],
)
def test_a_runner_is_told_from_ids(
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    url: str | None,
    most: int | None,
    reference: str,
    rest: list[str],
) -> None:
    monkeypatch.setenv("TASKRUNNER_REDIS_URL", "redis://exported")
    assert split(words, url, "usage", most=most) == (reference, rest)


@pytest.mark.parametrize(
    ("words", "url", "least", "most"),
    [
        ([], SERVER, 1, 1),
        (None, SERVER, 1, None),
        (["a", "b"], SERVER, 1, 1),
        (["app:runner", "a", "b"], None, 1, 1),
        (["app:runner"], None, 1, 1),
        (["app:runner"], None, 1, None),
        (["a"], SERVER, 0, 0),
    ],
)
def test_too_many_words_or_too_few_end_the_command_with_its_usage(
    capsys: pytest.CaptureFixture[str], words: list[str] | None, url: str | None, least: int, most: int | None
) -> None:
    with pytest.raises(typer.Exit) as ended:
        split(words, url, "give one", least, most)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "taskrunner: give one\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 日本 €", "Zoë 日本 €"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("\udc80", "\\udc80"),
    ],
)
def test_what_controls_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_breaks_stay_where_they_may() -> None:
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("short", "short"), ("", ""), ("  \n", ""), ("x" * 12, "x" * 9 + "…"), ("first\nsecond", "first…")],
)
def test_a_long_text_is_cut_and_shows_it(text: str, shown: str) -> None:
    assert shortened(text, 10) == shown


def test_all_that_a_job_may_hold_is_json() -> None:
    odd = {1: {2}, "when": NOW, "raw": b"\xff\x00", "far": math.inf, "error": JobFailed("E", "m"), "what": object}
    found = json.loads(to_json(odd=odd, text="\udc80"))
    assert found["odd"] == {
        "1": [2],
        "when": "2026-11-23T01:40:05+00:00",
        "raw": "\\xff\x00",
        "far": None,
        "error": {"error_type": "E", "message": "m", "traceback": "", "attempts": 1, "reason": ""},
        "what": "<class 'object'>",
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(-180, "3 min ago"), (28_800, "in 8 h"), (0, "now"), (0.4, "now"), (-0.6, "0.6 s ago")]
)
def test_distances_are_shown_as_people_say_them(seconds: float, text: str) -> None:
    assert show_distance(NOW + timedelta(seconds=seconds), NOW) == text


def test_instants_are_shown_in_a_zone_or_with_their_offset() -> None:
    assert show_instant(NOW, zone_of("Europe/Berlin")) == "2026-11-23 02:40:05"
    assert datetime.fromisoformat(show_instant(NOW)) == NOW
    assert show_instant(None) == ""
    assert zone_of("Nowhere/At all") is None

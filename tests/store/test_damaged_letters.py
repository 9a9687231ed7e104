"""Letters that somebody has damaged or made up: either one says that they are none, or all that the worker does with a
job can be done with them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner import features
from taskrunner.context import JobContext, Surroundings
from taskrunner.envelope import Delivery, Extra, Unreadable
from taskrunner.outcome import Again, Expired, Failed, Failure, Outcome, Released, Settlement, Succeeded
from taskrunner.store import wire
from taskrunner.store.items import SettlementItems
from taskrunner.store.keys import Keyspace
from taskrunner.store.links import pack

NOW = 1_700_000_000_000
HEAD = ["0123", "work", NOW, 3, 2]
EXTRAS: dict[str, Any] = {
    Extra.EXPIRES: NOW + 1_000,
    Extra.UNIQUE: "ab" * 16,
    Extra.OPTIONS: {"max_retry": 5, "timeout": 3.5},
    Extra.HEADERS: {"from": "here"},
    Extra.RESERVATION: 700,
    Extra.DELIVERIES: 1,
    Extra.UNKNOWN_SINCE: NOW,
}
OUTCOMES: list[Outcome] = [
    Succeeded(b"null"),
    Failed(Failure("Error", "text"), "no retries left"),
    Again(1.5, Failure("Error", "text")),
    Released(),
    Released(5.0, unknown=True),
    Expired(),
]


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text | st.sampled_from([2**53 + 1, -1, 0, wire.LAST_INSTANT + 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def letters(draw: st.DrawFn) -> bytes:
    """A letter of ours in which one fact is another one, or some bytes are, or whose end is missing."""
    head, extras = [*HEAD], {**EXTRAS}
    way = draw(st.sampled_from(["fact", "extra", "bytes", "end"]))
    if way == "fact":
        head[draw(st.integers(0, 4))] = draw(values)
    elif way == "extra":
        extras[draw(st.sampled_from([*EXTRAS, "z"]))] = draw(values)
    letter = orjson.dumps([*head, extras]) + b'\n[["argument"]]'
    if way == "bytes":
        at = draw(st.integers(0, len(letter)))
        letter = letter[:at] + draw(st.binary(max_size=5)) + letter[at + draw(st.integers(0, 5)) :]
    return letter[: draw(st.integers(0, len(letter)))] if way == "end" else letter


def can_be_worked_with(delivery: Delivery) -> None:
    """Does with it what the worker does: asks its context and the gates, and puts every outcome into words."""
    context = JobContext(delivery, Surroundings(None, None, 3, orjson.loads))
    assert context.enqueued_at.year <= 9999
    assert all(isinstance(text, str) for text in context.headers.values())
    assert (context.deliveries >= 1, context.attempt >= 1, context.fence > 0) == (True, True, True)
    for feature in features.FEATURES:
        gate = feature.gate(features.DEFAULTS)
        assert gate is None or gate(delivery, NOW) in (None, Expired())
    partition = Keyspace("prefix", "name", 1).partitions[0]
    for outcome in OUTCOMES:
        built = SettlementItems(partition, NOW, 60.0)
        built.add(Settlement(delivery, outcome, 0.1))
        pack(*built.items, *built.keys)


@given(letters())
def test_a_damaged_letter_is_called_one_or_can_be_worked_with(letter: bytes) -> None:
    arrival = wire.arrive(b"5-1", [wire.VERSION, letter], 1, "default", 0, 0.0)
    if isinstance(arrival, Unreadable):
        assert arrival.raw == [wire.VERSION, letter]
        assert (arrival.newer, arrival.problem.startswith("its letter can't be read: ")) == (False, True)
    else:
        can_be_worked_with(arrival)


def test_the_letter_that_is_damaged_here_is_a_sound_one() -> None:
    arrival = wire.arrive(b"5-1", [wire.VERSION, orjson.dumps([*HEAD, EXTRAS]) + b"\n[[]]"], 1, "default", 0, 0.0)
    assert isinstance(arrival, Delivery)
    can_be_worked_with(arrival)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (Extra.EXPIRES, "soon"),
        (Extra.EXPIRES, -1),
        (Extra.UNIQUE, 5),
        (Extra.OPTIONS, ["max_retry"]),
        (Extra.HEADERS, {"a": 1}),
        (Extra.RESERVATION, "long"),
        (Extra.RESERVATION, 0),
        (Extra.DELIVERIES, -1_000_000),
        (Extra.DELIVERIES, True),
        (Extra.UNKNOWN_SINCE, None),
        ("z", nested(300)),
        (Extra.OPTIONS, {"z": nested(253)}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_fact_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    letter = json.dumps([*HEAD, {name: value}]).encode() + b"\n[[]]"  # it writes deeper than orjson does
    arrival = wire.arrive(b"5-1", [wire.VERSION, letter], 1, "default", 0, 0.0)
    assert isinstance(arrival, Unreadable)
    assert name in arrival.problem or "ecursion" in arrival.problem


def test_facts_of_a_newer_release_travel_on() -> None:
    extras = {"later": {"a": [1, None]}, Extra.UNIQUE: "digest"}
    arrival = wire.arrive(b"5-1", [wire.VERSION, orjson.dumps([*HEAD, extras]) + b"\n[[]]"], 1, "default", 0, 0.0)
    assert isinstance(arrival, Delivery)
    assert arrival.envelope.extras == extras

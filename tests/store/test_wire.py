"""Envelopes, outcomes and dead letters as bytes and back; and whatever else may stand in a stream."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.envelope import Delivery, Envelope, Unreadable
from taskrunner.outcome import Failed, Failure
from taskrunner.store import wire

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
name = st.text(st.characters(exclude_categories=["Cs"]).filter(str.isprintable), min_size=1, max_size=50)
integers = st.integers(0, 2**53)
json = st.recursive(
    st.none() | st.booleans() | integers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
)
extras = st.dictionaries(
    text.filter(lambda name: len(name) != 1), json, max_size=4
)  # names of one letter are ours, and checked
instants = st.integers(0, wire.LAST_INSTANT)
envelopes = st.builds(Envelope, name, name, instants, st.integers(0, 3), st.integers(1, 2**31), extras, st.binary())


def arrive(fields: list[bytes]) -> Any:
    return wire.arrive(b"1-1", fields, 2, "queue", 0, 3.0)


@given(envelopes)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    assert wire.unseal(wire.seal(envelope)) == envelope
    arrival = arrive([wire.VERSION, wire.seal(envelope)])
    assert isinstance(arrival, Delivery)
    assert (arrival.envelope, arrival.deliveries, arrival.queue, arrival.fetched_at) == (envelope, 2, "queue", 3.0)


def test_a_plain_envelope_has_a_short_head() -> None:
    envelope = Envelope("0123456789abcdef0123456789abcdef", "task", 1_700_000_000_000, 3, 1, {}, b"[[]]")
    assert wire.seal(envelope) == b'["0123456789abcdef0123456789abcdef","task",1700000000000,3]\n[[]]'


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_rubbish_is_never_an_error_and_is_kept_whole(fields: list[bytes]) -> None:
    arrival = arrive(fields)
    if isinstance(arrival, Unreadable):
        assert arrival.raw == fields
        assert arrival.problem


@given(st.binary(max_size=200))
def test_a_letter_of_rubbish_is_never_an_error(letter: bytes) -> None:
    assert isinstance(arrive([wire.VERSION, letter]), (Delivery, Unreadable))


@given(json, st.binary(max_size=20))
def test_a_head_of_other_json_is_never_an_error(head: Any, payload: bytes) -> None:
    arrival = arrive([wire.VERSION, orjson.dumps(head) + b"\n" + payload])
    if isinstance(arrival, Delivery):
        envelope = arrival.envelope
        assert [type(x) for x in (envelope.id, envelope.task, envelope.attempt)] == [str, str, int]


@pytest.mark.parametrize(
    "letter",
    [
        b"",
        b"no newline",
        b"{}\n",
        b"[]\n",
        b"[1,2,3,4]\n[[]]",
        b'["id","task",1,"3"]\n',
        b'["id","task",1,3,null]\n',
        b'["id","task",1,3,1,5]\n',
        b'["id","task","yesterday",3]\n',
        b'["id"]\n',
        b"null\n",
        b"[" * 10_000 + b"\n",
        b'["' + b"x" * 70_000 + b'","task",1,3]\n[[]]',
        b"\xff\xfe\n[[]]",
        b'["","task",1,3]\n[[]]',
        b'["i\\nd","task",1,3]\n[[]]',
        b'["id","two\\nlines",1,3]\n[[]]',
        b'["id","task",-1,3]\n[[]]',
        b'["id","task",253402300800000,3]\n[[]]',
        b'["id","task",1,3,0]\n[[]]',
        b'["id","task",1,3,1e400]\n[[]]',
    ],
    ids=lambda letter: letter[:20].decode("latin-1").strip(),
)
def test_a_letter_that_is_none_says_what_is_wrong_with_it(letter: bytes) -> None:
    arrival = arrive([wire.VERSION, letter])
    assert isinstance(arrival, Unreadable)
    assert "can't be read" in arrival.problem
    assert not arrival.newer
    assert len(arrival.problem) <= 500


@pytest.mark.parametrize(
    "fields", [[], [b"t1"], [b"x", b"y"], [b"text", b"y"], [b"t", b"y"], [b"t123456", b"y"]], ids=str
)
def test_an_entry_of_strangers_is_not_taken_for_a_newer_version(fields: list[bytes]) -> None:
    arrival = arrive(fields)
    assert isinstance(arrival, Unreadable)
    assert not arrival.newer


def test_a_newer_version_is_known_as_such_with_since_when_nobody_could_read_it() -> None:
    arrival = arrive([b"t2", b"sealed", b"r", b"500", b"k", b"1700000000000"])
    assert isinstance(arrival, Unreadable)
    assert (arrival.newer, arrival.since) == (True, 1_700_000_000_000)
    assert arrive([b"t2", b"sealed", b"k", b"soon"]).since == 0


@pytest.mark.parametrize(
    "marks",
    [[b"a b", b"c"], [b"a", b"b\nc"], [b"", b"b"], [b"a", b"\t"], [b"a"] * 40],
    ids=lambda marks: str(marks)[:20],
)
def test_a_newer_version_with_marks_that_can_not_be_kept_is_rubbish(marks: list[bytes]) -> None:
    arrival = arrive([b"t2", b"sealed", *marks])
    assert isinstance(arrival, Unreadable)
    assert (arrival.newer, arrival.raw) == (False, [b"t2", b"sealed", *marks])


def test_a_newer_version_that_says_nonsense_of_its_age_has_none() -> None:
    assert arrive([b"t2", b"sealed", b"k", b"9" * 5_000]).since == 0


# -- outcomes and dead letters -------------------------------------------------------------------------------------

errors = st.none() | st.tuples(text, text, text, text)
outcomes = st.builds(
    wire.Ended,
    st.sampled_from("sfce"),
    text,
    text,
    integers,
    integers,
    integers,
    st.floats(0, 1e6),
    errors,
    st.binary(),
)


@given(outcomes)
def test_an_outcome_comes_back_as_it_was(ended: wire.Ended) -> None:
    ended.seconds = round(ended.seconds, 6)
    assert wire.read_record(wire.record(ended)) == ended


@given(envelopes, st.builds(Failure, text, text, text), text, integers)
def test_a_dead_letter_comes_back_with_the_whole_envelope(
    envelope: Envelope, failure: Failure, reason: str, at: int
) -> None:
    id, record = wire.bury(Delivery(envelope, "queue", 0, b"1-1", 3, 0.0), Failed(failure, reason), at)
    letter = wire.exhume(record)
    assert id == letter.id == envelope.id
    assert (letter.task, letter.queue, letter.attempts, letter.deliveries) == (
        envelope.task,
        "queue",
        envelope.attempt,
        3,
    )
    assert (letter.error_type, letter.message, letter.traceback) == (
        failure.error_type,
        failure.message,
        failure.traceback,
    )
    assert (letter.reason, letter.failed_at, letter.raw) == (reason, at, [])
    assert letter.letter is not None
    assert wire.unseal(letter.letter) == envelope


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_an_entry_of_strangers_comes_back_field_by_field(raw: list[bytes]) -> None:
    arrival = Unreadable(raw, "queue", 0, b"7-1", 1, 0.0, "rubbish")
    id, record = wire.bury(arrival, Failed(Failure("Unreadable", "rubbish"), "unreadable"), 5)
    letter = wire.exhume(record)
    assert id == letter.id == "unreadable-7-1"
    assert (letter.raw, letter.letter, letter.task) == (raw, None, "")


@given(envelopes, st.binary(min_size=1))
def test_a_result_that_is_handed_on_travels_beside_the_payload(envelope: Envelope, previous: bytes) -> None:
    following = dataclasses.replace(envelope, previous=previous)
    letter = wire.seal(following)
    assert letter.endswith(previous + envelope.payload)
    assert wire.unseal(letter) == following


@pytest.mark.parametrize("size", [b"-1", b"7", b'"3"', b"null", b"true", b"1.5"])
def test_a_letter_with_a_wrong_border_can_not_be_read(size: bytes) -> None:
    assert isinstance(arrive([wire.VERSION, b'["id","task",1,3,1,{"p":' + size + b"}]\n123[1]"]), Unreadable)
    assert not isinstance(arrive([wire.VERSION, b'["id","task",1,3,1,{"p":3}]\n123[1]']), Unreadable)

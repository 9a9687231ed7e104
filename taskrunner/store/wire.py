"""Envelopes, outcomes and dead letters as bytes.

A letter is a JSON head, a newline, and the payload as the serializer made it; JSON has no raw newline, so the first
one is the border. A job that follows another one has that one's result in front of its payload, and the head says how
many bytes that are. The head is ``[id, task, enqueued_at, flags]``, and ``attempt`` and ``extras`` only if they say
something. In the stream a letter stands in one field, whose name ``t1`` is the version of this format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from ..blueprint import GIVEN
from ..envelope import Delivery, Envelope, Extra, Unreadable
from ..needs import are_sound, is_lock
from ..outcome import Failed

VERSION = b"t1"
SINCE = b"k"
"""Mark beside a letter of a newer version: server time in ms when a worker first could not read it."""
NEEDS = b"n"
"""Mark: what the job needs to run, for the scripts, which look into no letter."""
HOME = b"h"
"""Mark: the lane that the job belongs to by its priority, if it goes before all others of its queue."""
PACED = b"w"
"""Mark: it has waited for a permit."""
HEAD_LIMIT = 64_000
"""Bytes of a head that we look at: ours have a few hundred, only rubbish has more."""
PREVIOUS_LIMIT = 1_000_000
"""Bytes of results that go into the dead letters with a job that follows several: more is only in the workflow."""
MARKS_LIMIT = 32
"""Fields and values beside a letter of a newer version that we pass on; ours have two or four."""
LAST_INSTANT = 253_402_300_799_999
"""ms: the end of the year 9999, where datetime ends too."""
LARGEST = 2**53
"""What JSON can carry between any two programs."""


def seal(envelope: Envelope) -> bytes:
    """An envelope as a letter."""
    if envelope.previous:
        head: list[Any] = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt]
        head.append({**envelope.extras, Extra.PREVIOUS: len(envelope.previous)})
        return b"%b\n%b%b" % (orjson.dumps(head), envelope.previous, envelope.payload)
    if envelope.extras:
        head = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt]
        head.append(envelope.extras)
    elif envelope.attempt != 1:
        head = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt]
    else:
        head = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags]
    return b"%b\n%b" % (orjson.dumps(head), envelope.payload)


def unseal(letter: bytes) -> Envelope:
    """A letter as an envelope. Raises ValueError for anything that is none.

    Looks at all that the worker will use without asking again: a letter may be damaged, or a stranger's.
    """
    head, border, payload = letter.partition(b"\n")
    if not border or len(head) > HEAD_LIMIT:
        raise ValueError("it has no head that ends with a newline")
    fields = orjson.loads(head)
    extras: dict[str, Any] = {}
    attempt, previous = 1, b""
    if len(fields) == 4:
        id, task, enqueued_at, flags = fields
    elif len(fields) == 6 and _is_lock(fields[5]) and _is_count(fields[4]) and fields[4]:
        id, task, enqueued_at, flags, attempt, extras = fields
    else:
        id, task, enqueued_at, flags, attempt, *rest = fields
        extras = rest[0] if rest else extras
        _check(attempt, extras)
        if (size := extras.pop(Extra.PREVIOUS, 0)) > len(payload):
            raise ValueError("a part of it is missing")
        previous, payload = payload[:size], payload[size:]
    if type(id) is not str or type(task) is not str or not (id and id.isprintable() and task.isprintable()):
        raise ValueError("its id or its task is no printable text")
    if type(flags) is not int or type(enqueued_at) is not int or not 0 <= enqueued_at <= LAST_INSTANT:
        raise ValueError("its head is not that of a job")
    return Envelope(id, task, enqueued_at, flags, attempt, extras, payload, previous)


def _is_instant(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_INSTANT


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _is_headers(value: Any) -> bool:
    return type(value) is dict and all(type(one) is str for one in value.values())


def _is_needs(value: Any) -> bool:
    return type(value) is str and are_sound(value)


def _is_preceding(value: Any) -> bool:
    if type(value) is not list or len(value) != 3 or type(value[0]) is not str or not _is_count(value[1]):
        return False
    nodes = value[2] if type(value[2]) is list else [value[2]]
    return value[2] == GIVEN or all(map(_is_count, nodes))


_EXTRAS: dict[str, Callable[[Any], bool]] = {
    Extra.EXPIRES: _is_instant,
    Extra.UNIQUE: lambda value: type(value) is str,
    Extra.OPTIONS: lambda value: type(value) is dict,  # each is checked by its feature
    Extra.HEADERS: _is_headers,
    Extra.RESERVATION: lambda value: _is_instant(value) and value > 0,
    Extra.DELIVERIES: _is_count,
    Extra.UNKNOWN_SINCE: _is_instant,
    Extra.SAVED: _is_count,
    Extra.PREVIOUS: _is_count,
    Extra.PRECEDING: _is_preceding,
    Extra.LASTS: _is_count,
    Extra.NEEDS: _is_needs,
    Extra.LOCK: lambda value: type(value) is str,
}


def _is_lock(extras: Any) -> bool:
    """Whether these are the facts of a job that has a lock, and else nothing out of the ordinary: in a third of the
    time that ``_check`` takes."""
    if type(extras) is not dict or len(extras) != 2:
        return False
    needs = extras.get(Extra.NEEDS)
    return type(needs) is str and is_lock(needs) and type(extras.get(Extra.LOCK)) is str


def _check(attempt: Any, extras: Any) -> None:
    """Raises ValueError for a fact that makes no sense; those that we don't know are a newer release's."""
    if not _is_count(attempt) or not attempt:
        raise ValueError("its head is not that of a job")
    if type(extras) is not dict:
        raise ValueError("the rarer facts in its head are no mapping")
    for name, value in extras.items():
        sound = _EXTRAS.get(name)
        if sound is not None and not sound(value):
            raise ValueError(f"the fact {name!r} in its head makes no sense: {str(value)[:50]!r}")
        if sound is None or name == Extra.OPTIONS:
            orjson.dumps([{name: value}])  # it must be possible to send it on: more can be read than can be written


def arrive(
    entry_id: bytes, fields: list[bytes], count: int, queue: str, partition: int, fetched_at: float
) -> Delivery | Unreadable:
    """A stream entry as a delivery, or as what can't be read."""
    try:
        if fields[0] == VERSION:
            envelope = unseal(fields[1])
            delivery = Delivery(envelope, queue, partition, entry_id, count, fetched_at)
            if count > 1 or envelope.extras:
                # A worker that died may have saved something, and told nobody.
                delivery.saved = count > 1 or Extra.SAVED in envelope.extras
                needs = envelope.extras.get(Extra.NEEDS)
                if needs is not None:
                    if len(envelope.extras) == 2 and Extra.LOCK in envelope.extras and is_lock(needs):
                        delivery.lock = needs[:32]
                    if len(fields) > 4:
                        marks = dict(zip(fields[2::2], fields[3::2], strict=False))
                        delivery.home, delivery.paced = marks.get(HOME, b"").decode(), PACED in marks
            return delivery
        newer = len(fields) >= 2 and _is_newer(fields[0]) and _are_marks(fields[2:])
        problem = f"its format {fields[0]!r} is newer than ours" if newer else "it is not an entry of taskrunner"
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, RecursionError) as error:
        newer, problem = False, f"its letter can't be read: {error}"
    marks = dict(zip(fields[2::2], fields[3::2], strict=False))
    noted = marks.get(SINCE, b"")
    since = int(noted) if newer and noted.isdigit() and len(noted) < 16 else 0
    return Unreadable(list(fields), queue, partition, entry_id, count, fetched_at, problem[:500], newer, since)


def _is_newer(version: bytes) -> bool:
    return version[:1] == b"t" and version[1:].isdigit() and len(version) < 6


def _are_marks(fields: list[bytes]) -> bool:
    """Whether they can be kept beside a letter that waits, where they are told apart by blanks."""
    return len(fields) <= MARKS_LIMIT and all(field.split() == [field] for field in fields)


# -- outcomes ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ended:
    """What is kept of a job that has ended. ``state`` is s(ucceeded), f(ailed), c(ancelled) or e(xpired).

    Instants are server time in ms; ``seconds`` is how long the last run took. ``error`` is (type, message, traceback,
    reason). ``result`` is as the serializer made it.
    """

    state: str
    task: str
    queue: str
    attempts: int
    enqueued_at: int
    ended_at: int
    seconds: float
    error: tuple[str, str, str, str] | None
    result: bytes


def record(ended: Ended) -> bytes:
    head = [ended.state, ended.task, ended.queue, ended.attempts, ended.enqueued_at, ended.ended_at]
    return record_of(head, ended.seconds, ended.result, ended.error)


def record_of(head: list[Any], seconds: float, result: bytes, error: tuple[str, str, str, str] | None = None) -> bytes:
    head.append(round(seconds, 6))
    if error is not None:
        head.append(error)
    return b"%b\n%b" % (orjson.dumps(head), result)


def read_record(text: bytes) -> Ended:
    head, _, result = text.partition(b"\n")
    state, task, queue, attempts, enqueued_at, ended_at, seconds, *rest = orjson.loads(head)
    error = tuple(rest[0]) if rest else None
    return Ended(state, task, queue, attempts, enqueued_at, ended_at, seconds, error, result)


# -- dead letters --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DeadLetter:
    """A job that failed for good, or an entry that was none. ``letter`` is all that was there, to run it again.

    For an entry that could not be read, ``task`` is empty and ``letter`` is None; ``raw`` are its fields and values.
    """

    id: str
    task: str
    queue: str
    attempts: int
    deliveries: int
    failed_at: int
    error_type: str
    message: str
    traceback: str
    reason: str
    letter: bytes | None
    raw: list[bytes]


def bury(delivery: Delivery | Unreadable, failed: Failed, failed_at: int) -> tuple[str, bytes]:
    """The id and the record of a dead letter: a JSON head, a newline, then the letter or the raw bytes."""
    failure, deliveries = failed.failure, delivery.deliveries
    if isinstance(delivery, Delivery):
        id, task, attempts = delivery.envelope.id, delivery.envelope.task, delivery.envelope.attempt
        envelope = delivery.envelope
        if Extra.PRECEDING in envelope.extras and len(envelope.previous) > PREVIOUS_LIMIT:
            envelope = replace(envelope, previous=b"")
        sizes, body = None, seal(envelope)
    else:
        id, task, attempts = "unreadable-" + delivery.entry_id.decode(), "", 0
        sizes, body = [len(part) for part in delivery.raw], b"".join(delivery.raw)
    head = [id, task, delivery.queue, attempts, deliveries, failed_at]
    head += [failure.error_type, failure.message, failure.traceback, failed.reason, sizes]
    return id, b"%b\n%b" % (orjson.dumps(head), body)


def exhume(text: bytes) -> DeadLetter:
    head, _, body = text.partition(b"\n")
    fields: list[Any] = orjson.loads(head)
    sizes: list[int] | None = fields.pop()
    raw, start = list[bytes](), 0
    for size in sizes or ():
        raw.append(body[start : start + size])
        start += size
    fields += [body if sizes is None else None, raw]
    return DeadLetter(*fields)

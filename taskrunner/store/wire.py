"""Envelopes, outcomes and dead letters as bytes.

A letter is a JSON head, a newline, and the payload as the serializer made it; JSON has no raw newline, so the first
one is the border. The head is ``[id, task, enqueued_at, flags]``, and ``attempt`` and ``extras`` only if they say
something. In the stream a letter stands in one field, whose name ``t1`` is the version of this format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ..envelope import Delivery, Envelope, Extra, Unreadable
from ..outcome import Failed

VERSION = b"t1"
SINCE = b"k"
"""Mark beside a letter of a newer version: server time in ms when a worker first could not read it."""
HEAD_LIMIT = 64_000
"""Bytes of a head that we look at: ours have a few hundred, only rubbish has more."""


def seal(envelope: Envelope) -> bytes:
    """An envelope as a letter."""
    if envelope.extras:
        head: list[Any] = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt]
        head.append(envelope.extras)
    elif envelope.attempt != 1:
        head = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt]
    else:
        head = [envelope.id, envelope.task, envelope.enqueued_at, envelope.flags]
    return b"%b\n%b" % (orjson.dumps(head), envelope.payload)


def unseal(letter: bytes) -> Envelope:
    """A letter as an envelope. Raises ValueError for anything that is none."""
    head, border, payload = letter.partition(b"\n")
    if not border or len(head) > HEAD_LIMIT:
        raise ValueError("it has no head that ends with a newline")
    fields = orjson.loads(head)
    if len(fields) == 4:
        id, task, enqueued_at, flags = fields
        attempt, extras = 1, dict[str, Any]()
    else:
        id, task, enqueued_at, flags, attempt, *rest = fields
        extras = rest[0] if rest else {}
    if type(id) is not str or type(task) is not str or type(flags) is not int or type(attempt) is not int:
        raise ValueError("its head is not that of a job")
    if type(enqueued_at) is not int or type(extras) is not dict or type(extras.get(Extra.DELIVERIES, 0)) is not int:
        raise ValueError("its head is not that of a job")
    return Envelope(id, task, enqueued_at, flags, attempt, extras, payload)


def arrive(
    entry_id: bytes, fields: list[bytes], count: int, queue: str, partition: int, fetched_at: float
) -> Delivery | Unreadable:
    """A stream entry as a delivery, or as what can't be read."""
    try:
        if fields[0] == VERSION:
            envelope = unseal(fields[1])
            return Delivery(envelope, queue, partition, entry_id, count, fetched_at)
        newer = len(fields) >= 2 and fields[0][:1] == b"t" and fields[0][1:].isdigit() and len(fields[0]) < 6
        problem = f"its format {fields[0]!r} is newer than ours" if newer else "it is not an entry of taskrunner"
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, RecursionError) as error:
        newer, problem = False, f"its letter can't be read: {error}"
    marks = dict(zip(fields[2::2], fields[3::2], strict=False))
    since = int(marks[SINCE]) if newer and marks.get(SINCE, b"").isdigit() else 0
    return Unreadable(list(fields), queue, partition, entry_id, count, fetched_at, problem[:500], newer, since)


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
        sizes, body = None, seal(delivery.envelope)
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

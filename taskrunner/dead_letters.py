"""Dead letters: jobs that failed for good, kept with all that is needed to look into it and to run them again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .envelope import Arrival, Delivery, Unreadable
from .outcome import Failed, Failure
from .payload import Serializer, arguments
from .session import Session
from .store import wire


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed for good. ``reason`` says why it was not tried again; ``attempts`` counts its runs.

    For an entry that no runner wrote, ``task`` is empty and ``raw`` holds its fields and values as they stood.
    """

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    error_type: str
    message: str
    traceback: str
    attempts: int
    failed_at: datetime
    reason: str
    raw: list[bytes]


class DeadLetters:
    """``runner.dead_letters``: reads them."""

    def __init__(self, opened: Callable[[], Awaitable[Session]], serializer: Serializer) -> None:
        self._opened = opened
        self._serializer = serializer

    async def get(self, id: str) -> FailedJob | None:
        """The dead letter of a job, or None."""
        letter = await (await self._opened()).read(lambda inspection: inspection.dead_letter(id))
        return None if letter is None else self._read(letter)

    async def list(self, limit: int = 100) -> list[FailedJob]:
        """The latest dead letters, newest first."""
        letters = await (await self._opened()).read(lambda inspection: inspection.dead_letters(limit))
        return [self._read(letter) for letter in letters]

    async def count(self) -> int:
        """How many there are."""
        return (await (await self._opened()).read(lambda inspection: inspection.stats_of_all(None))).dead

    def _read(self, letter: wire.DeadLetter) -> FailedJob:
        payload, raw = None, letter.raw
        if letter.letter is not None:
            try:
                payload = wire.unseal(letter.letter).payload
            except ValueError:
                raw = [letter.letter]  # another release took it for one; whoever looks for letters must see the others
        failure = Failure(letter.error_type, letter.message, letter.traceback)
        failed_at = datetime.fromtimestamp(letter.failed_at / 1000, UTC)
        return _failed_job(
            letter.id, letter.task, letter.queue, letter.attempts, payload, failure, letter.reason, failed_at, raw,
            self._serializer,
        )  # fmt: skip


def failed_job(arrival: Arrival, failed: Failed, failed_at: datetime, serializer: Serializer) -> FailedJob:
    """A job that is about to become a dead letter, for the failed_task_handler."""
    if isinstance(arrival, Unreadable):
        id = "unreadable-" + arrival.entry_id.decode()
        return FailedJob(
            id, "", [], {}, arrival.queue, failed.failure.error_type, failed.failure.message, "", 0, failed_at,
            failed.reason, arrival.raw,
        )  # fmt: skip
    assert isinstance(arrival, Delivery)
    envelope = arrival.envelope
    return _failed_job(
        envelope.id, envelope.task, arrival.queue, envelope.attempt, envelope.payload, failed.failure, failed.reason,
        failed_at, [], serializer,
    )  # fmt: skip


def _failed_job(
    id: str, task: str, queue: str, attempts: int, payload: bytes | None, failure: Failure, reason: str,
    failed_at: datetime, raw: list[bytes], serializer: Serializer,
) -> FailedJob:  # fmt: skip
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    if payload is not None:
        try:
            args, kwargs = arguments(serializer.loads(payload))
        except Exception:
            raw = [payload]  # it failed because of this; here it is as it stood
    return FailedJob(
        id, task, args, kwargs, queue, failure.error_type, failure.message, failure.traceback, attempts, failed_at,
        reason, raw,
    )  # fmt: skip

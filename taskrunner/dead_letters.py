"""Dead letters: jobs that failed for good, kept with all that is needed to look into it and to run them again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from .durability import Durability
from .envelope import KEPT, Arrival, Delivery, Draft, Unreadable
from .errors import NotFound, PayloadError, TaskOptionError, UniqueConflict
from .job import Job, Origin
from .options import Seconds, seconds, whole
from .outcome import Failed, Failure
from .payload import Serializer, arguments
from .priority import queue_of
from .producer import PATIENCE
from .session import Session
from .store import wire
from .store.graveyard import Grave, Graveyard
from .store.keys import PartitionKeys

log = logging.getLogger("taskrunner")

T = TypeVar("T")


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
    """``runner.dead_letters``: counts, lists, runs again and removes them. A job that fails for good is a dead letter
    until it is run again or deleted, or until the bounds ``max_dead_letters`` and ``dead_letter_ttl`` drop it.

        for failed in await runner.dead_letters.list("charge"):
            print(failed.id, failed.args, failed.message)
        await runner.dead_letters.retry_all("charge")

    All of it needs as many round trips as there are queues and partitions, and then as many as what it returns takes.
    Every method may raise RedisUnavailable or RedisConfigurationError.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[Session]],
        origin: Callable[[str, bool], Origin],
        serializer: Serializer,
        durability: Durability,
    ) -> None:
        self._opened = opened
        self._origin = origin
        self._serializer = serializer
        self._durability = durability

    # -- looking ---------------------------------------------------------------------------------------------

    async def count(self, task: str | None = None) -> int:
        """How many there are: of the task of this name, or of all (None)."""
        name = _task(task)
        return await self._ask(lambda graveyard: graveyard.count(name))

    async def dropped(self) -> int:
        """How many the bounds have dropped since the namespace was made."""
        return await self._ask(lambda graveyard: graveyard.dropped())

    async def get(self, id: str) -> FailedJob | None:
        """The dead letter of a job, or None."""
        found = await self._ask(lambda graveyard: graveyard.find(id))
        return self._read(found[0].letter()) if found else None

    async def list(self, task: str | None = None, limit: int = 100, after: str | None = None) -> list[FailedJob]:
        """The latest dead letters of a task (None: of all), newest first, at most ``limit``.

        ``after`` is the id of the last one of the page before; others may come and go meanwhile. Raises NotFound when
        that one itself is gone.
        """
        name, most = _task(task), whole(limit, "limit", 1)
        begin = None
        if after is not None:
            places = await self._ask(lambda graveyard: graveyard.find(after, read=False))
            if not places:
                raise NotFound(f"there is no dead letter {after!r} any more to go on after; begin at the newest again")
            begin = places[-1]  # the oldest of several in several queues: else paging would come back to it for ever
        found = await self._ask(lambda graveyard: graveyard.newest(name, most, begin))
        return [self._read(grave.letter()) for grave in found]

    # -- running again ---------------------------------------------------------------------------------------

    async def retry(self, id: str) -> Job[Any]:
        """Runs a dead job again: same id, queue, arguments and options, attempts from zero. Returns its handle.

        One step on the server takes the dead letter and the outcome away, and its unique key again. Raises NotFound;
        UniqueConflict when an equal job is alive, PayloadError for one that can't be run: then it stays a dead letter;
        DispatchUncertain when the answer was lost: then calling it again is safe.
        """
        session = await self._opened()
        while True:
            found = await session.read(lambda _: Graveyard(session.store).find(id))
            if not found:
                raise NotFound(f"there is no dead letter {id!r}: it was run again, deleted or dropped, or never was")
            grave = found[0]
            draft = self._draft(session, grave)
            rival = await session.producer.submit(draft, grave.partition.number)
            if rival is None:
                origin = self._origin(draft.envelope.task, bool(draft.envelope.flags & KEPT))
                return Job(id, origin, grave.partition.number)
            if rival:
                raise UniqueConflict(f"job {id} stays a dead letter: an equal job is alive, {rival}", rival)
            # Somebody has run it again or removed it in this instant; it may even have failed once more.

    async def retry_all(self, task: str | None = None) -> int:
        """Runs again all that are dead letters now, of a task or of all (None), oldest first. Returns how many.

        Up to 200 (or a megabyte) per round trip. It leaves those whose unique key another job holds and those that
        can't be run, and doesn't count them. It can be interrupted anywhere: each is a dead letter or a job. Raises
        DispatchUncertain when an answer was lost; calling it again is safe.
        """
        name = _task(task)
        session = await self._opened()
        graveyard, total = Graveyard(session.store), 0
        for partition, lane in await session.read(lambda _: graveyard.lanes()):
            until = await session.read(partial(_now, graveyard, partition))
            after: Grave | None = None
            # By place and not from the head: what stays isn't looked at twice, nor what fails again meanwhile.
            while page := await session.read(partial(_oldest, graveyard, partition, lane, name, after, until)):
                after = page[-1]
                drafts = _drafts(page, partial(self._draft, session))
                if drafts:
                    left = await session.store.dispatch(partition.number, lane, drafts, PATIENCE)
                    total += len(drafts) - len(left)
        return total

    def _draft(self, session: Session, grave: Grave) -> Draft:
        draft = grave.draft(session.store.clock.now())
        draft.durability = self._durability
        return draft

    # -- removing --------------------------------------------------------------------------------------------

    async def delete(self, id: str) -> bool:
        """Removes a dead letter for good. Returns whether it was there.

        Only that: while its outcome is known (``result_ttl``), the job is still known as failed.
        """
        return await self._ask(lambda graveyard: graveyard.delete(id))

    async def purge(self, older_than: Seconds | None = None) -> int:
        """Removes those that failed longer ago than so many seconds (or a timedelta); None: all that are there now.
        Returns how many. Some hundred per round trip. Raises TaskOptionError for a wrong duration."""
        age = None if older_than is None else round(seconds(older_than, "older_than") * 1000)
        session = await self._opened()
        graveyard, total = Graveyard(session.store), 0
        for partition, lane in await session.read(lambda _: graveyard.lanes()):
            now = await session.read(partial(_now, graveyard, partition))
            before = now + 1 if age is None else now - age
            while removed := await session.read(partial(_purge, graveyard, partition, lane, before)):
                total += removed
        return total

    # -- how -------------------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[Graveyard], Awaitable[T]]) -> T:
        session = await self._opened()
        return await session.read(lambda _: question(Graveyard(session.store)))

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
            id, "", [], {}, queue_of(arrival.queue), failed.failure.error_type, failed.failure.message, "", 0,
            failed_at, failed.reason, arrival.raw,
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
        id, task, args, kwargs, queue_of(queue), failure.error_type, failure.message, failure.traceback, attempts,
        failed_at, reason, raw,
    )  # fmt: skip


def _drafts(page: Sequence[Grave], draft_of: Callable[[Grave], Draft]) -> list[Draft]:
    drafts: list[Draft] = []
    problems: list[PayloadError] = []
    for grave in page:
        try:
            drafts.append(draft_of(grave))
        except PayloadError as error:
            problems.append(error)
    if problems:
        log.warning("%d dead letters can't be run again; the first: %s", len(problems), problems[0])
    return drafts


def _task(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise TaskOptionError(f"task must be the name of a task, not {value!r}")
    return value


# Questions of more than one argument, as Session.read asks them: of an inspection that they have no need of.


async def _now(graveyard: Graveyard, partition: PartitionKeys, _: object) -> int:
    return await graveyard.now(partition)


async def _oldest(
    graveyard: Graveyard, partition: PartitionKeys, lane: str, task: str | None, after: Grave | None, until: int,
    _: object,
) -> list[Grave]:  # fmt: skip
    return await graveyard.oldest(partition, lane, task, after, until)


async def _purge(graveyard: Graveyard, partition: PartitionKeys, lane: str, before: int, _: object) -> int:
    return await graveyard.purge(partition, lane, before)

"""Progress: how far a job is, told by its task while it works; see ``JobContext.progress``."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .envelope import Delivery
from .errors import RedisError, TaskOptionError
from .session import Session
from .store import progress
from .store.persist import wait_before
from .store.store import BATCH

log = logging.getLogger("taskrunner.worker")

PAUSE = 0.1
"""Seconds between two writes of one worker and partition: nobody sees more than ten pictures a second in a bar."""
LAST_WORD = 1.0
"""Seconds that the end of a run waits for its last report to be written, which takes a round trip."""
TURN = 0.005
"""Seconds that a loop which does nothing but report may hold the event loop."""
MESSAGE_LIMIT = 1_000
"""Characters of a message: a line of text for people."""
MOST = 2**53
"""The largest amount: what JSON carries exactly."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is: ``done`` of ``total``, which may be unknown (None), both in the task's own unit; a text for
    people; ``at`` is when the server heard of it, aware."""

    done: float
    total: float | None
    message: str | None
    at: datetime

    @property
    def fraction(self) -> float | None:
        """``done / total``, from 0.0 to 1.0 (also for more than the total); 1.0 for a total of 0; None without one."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``done``, ``total``, ``message``, ``fraction``, and ``at`` as text (ISO 8601)."""
        return {
            "done": self.done,
            "total": self.total,
            "message": self.message,
            "fraction": self.fraction,
            "at": self.at.isoformat(),
        }


def read_progress(data: bytes | None) -> JobProgress | None:
    """What is kept of a job's progress; None for nothing."""
    found = progress.read(data)
    if found is None:
        return None
    report, at = found
    return JobProgress(*report, datetime.fromtimestamp(at / 1000, UTC))


def checked(done: Any, total: Any, message: Any) -> progress.Report:
    """A report that can be written. Raises TaskOptionError."""
    _check_amount(done, "done")
    if total is not None:
        _check_amount(total, "total")
    if message is not None:
        if not isinstance(message, str) or len(message) > MESSAGE_LIMIT:
            raise TaskOptionError(
                f"progress: message must be a text of at most {MESSAGE_LIMIT} characters, not {_short(message)}"
            )
        if not _is_sound(message):
            raise TaskOptionError(f"progress: message can't be written as UTF-8: {_short(message)}")
    return done, total, message


def _check_amount(value: Any, what: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= MOST:
        raise TaskOptionError(f"progress: {what} must be a number from 0 to 2**53, not {_short(value)}")


def _is_sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, as of a file name that is no UTF-8
        return False
    return True


def _short(value: Any) -> str:
    return repr(value)[:100]


class ProgressReports:
    """Writes the reports of one worker's runs: one call in flight per partition, with the latest report of each run."""

    def __init__(self, session: Session) -> None:
        self._writers = [Writer(session, number) for number in range(len(session.store.partitions))]
        self._turned = 0.0

    async def report(self, delivery: Delivery, done: Any, total: Any, message: Any) -> None:
        """Takes a report, to be written soon, unless a later one of the run comes before. Raises TaskOptionError."""
        report = checked(done, total, message)
        delivery.saved = True  # before it is written: what may be there must be tidied up
        self._writers[delivery.partition].put(delivery, report)
        now = time.monotonic()
        if now - self._turned > TURN:
            self._turned = now
            await asyncio.sleep(0)

    async def finish(self, delivery: Delivery) -> None:
        """Waits until the last report of a run is written, or can't be."""
        await self._writers[delivery.partition].finish(delivery)

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()


class Writer:
    """Of one partition. It has a task only while there is something to write."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._latest: dict[Delivery, progress.Report] = {}
        self._sent: dict[Delivery, progress.Report] = {}
        self._hurry = asyncio.Event()
        self._round = asyncio.Event()
        """Set when the attempt that is next or under way has come to its end, well or not; a new one each time."""
        self._task: asyncio.Task[None] | None = None

    def put(self, delivery: Delivery, report: progress.Report) -> None:
        self._latest[delivery] = report
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="taskrunner-progress")

    async def finish(self, delivery: Delivery) -> None:
        if delivery not in self._latest and delivery not in self._sent:
            return
        try:
            async with asyncio.timeout(LAST_WORD):
                # The attempt that is under way may carry an older report of this run, or those of other runs.
                while delivery in self._latest or delivery in self._sent:
                    self._hurry.set()
                    await self._round.wait()
        except TimeoutError:
            pass  # the server is away, or slow: the outcome is worth more than the last report
        finally:
            self._latest.pop(delivery, None)
            self._sent.pop(delivery, None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        failures = 0
        while self._latest:
            self._hurry.clear()
            failures = 0 if await self._write() else failures + 1
            ended, self._round = self._round, asyncio.Event()
            ended.set()
            if failures or len(self._latest) < BATCH:
                await self._pause(wait_before(failures) if failures else PAUSE)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _write(self) -> bool:
        store = self._session.store
        keys, options = store.partitions[self._number], store.options
        reports = [(delivery, self._latest.pop(delivery)) for delivery in list(self._latest)[:BATCH]]
        self._sent = dict(reports)
        try:
            await progress.write(store.control(keys), keys, options.group, options.worker_id, reports)
        except RedisError as error:
            # Those that a run does not wait for any more were taken out; of the others a later report may be there.
            self._latest = self._sent | self._latest
            log.warning("the progress of %d jobs could not be written, trying again: %s", len(reports), error)
            return False
        finally:
            self._sent = {}
        return True

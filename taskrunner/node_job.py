"""The handle of a job at a node of a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from .errors import JobCancelled, JobNotFound
from .form import Form
from .job import ENDED, Job, JobInfo, JobStatus, JobUpdate
from .options import seconds
from .store.wire import Ended
from .store.workflows import View
from .workflow_reach import Reach, why
from .workflow_state import NEVER, OPEN, WAITS, job_id, status_at

R = TypeVar("R")


class NodeJob(Job[R]):
    """A job of a workflow, which need not exist yet: then it is blocked; and cancelled when it never will. A node where
    a group or a graph ends is looked at as if it were a job.

    When an equal job was alive as its turn came, it stands for that one from then on, whose id is another.
    """

    __slots__ = ("_form", "_number", "_reach")

    def __init__(self, reach: Reach, number: int, form: Form) -> None:
        id = reach.names.get(number) or form.id or f"{reach.id}.{number}"
        super().__init__(id, reach.origin(form))
        self._reach = reach
        self._number = number
        self._form = form

    async def status(self) -> JobStatus:
        """Where it stands: blocked before its turn has come, cancelled when it will never come. Raises JobNotFound when
        the workflow is unknown, or past its ``result_ttl``."""
        view = await self._reach.seen()
        if self._has_begun(view):
            try:
                return await self._plain(view).status()
            except JobNotFound:
                pass
        return status_at(view, self._number) or JobStatus.RUNNING

    async def info(self) -> JobInfo:
        """What is known of it: before its turn has come, no more than its status. Raises JobNotFound like
        ``status``."""
        view = await self._reach.seen()
        if self._has_begun(view):
            try:
                return await self._plain(view).info()
            except JobNotFound:
                pass
        status = status_at(view, self._number) or JobStatus.RUNNING
        return JobInfo(job_id(view, self._reach.id, self._number), self.task, "", status, 0)

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """As ``Job.result``, also before its turn has come. Raises JobCancelled when it never will."""
        deadline = _deadline(timeout)
        view = await self._turned(timeout)
        if self._has_begun(view):
            try:
                return await self._plain(view).result(_left(deadline))
            except JobNotFound:
                return await self._kept(_left(deadline))
        raise JobCancelled(
            f"job {self.id} never ran: what it waited for came to another end, or {self._reach.kind} {self._reach.id} "
            "was cancelled"
        )

    async def cancel(self) -> bool:
        """As ``Job.cancel``. False also before its turn has come: then cancel the workflow."""
        view = await self._reach.seen()
        return self._has_begun(view) and await self._plain(view).cancel()

    async def events(self) -> AsyncIterator[JobUpdate]:
        """As ``Job.events``; the first update says that it is blocked, if its turn has not come."""
        view = await self._reach.seen()
        if not self._has_begun(view):
            update = self._update(view)
            yield update
            if update.ended:
                return
            view = await self._turned(None)
        if self._has_begun(view):
            try:
                async for update in self._plain(view).events():
                    yield update
                return
            except JobNotFound:
                view = await self._reach.reached(self._has_ended, None, self.id)
        yield self._update(view)

    def _update(self, view: View) -> JobUpdate:
        at = datetime.fromtimestamp(self._reach.session().store.clock.now() / 1000, UTC)
        status = status_at(view, self._number) or JobStatus.RUNNING
        return JobUpdate(job_id(view, self._reach.id, self._number), self.task, status, at, 0)

    async def _ended(self, timeout: float | timedelta | None) -> Ended:
        deadline = _deadline(timeout)
        view = await self._turned(timeout)
        if self._has_begun(view):
            try:
                return await self._plain(view)._ended(_left(deadline))
            except JobNotFound:
                view = await self._reach.reached(self._has_ended, _left(deadline), self.id)
        letter = view.states[self._number]
        return Ended(letter if letter in ENDED else "c", self.task, "", 0, 0, 0, 0.0, None, b"")

    async def _turned(self, timeout: float | timedelta | None) -> View:
        return await self._reach.reached(self._has_turned, timeout, self.id)

    async def _kept(self, timeout: float | None) -> R:
        """What the workflow knows of its end, when nothing is left of the job, or it never was one."""
        reach, number = self._reach, self._number
        view = await reach.reached(self._has_ended, timeout, self.id)
        letter = view.states[number]
        if letter != "s":
            record = await reach.record(number) if view.failed == number else None
            raise why(self.id, record or Ended(letter, self.task, "", 0, 0, 0, 0.0, None, b""))
        value = await (await reach.opened()).value(reach.partition, reach.id, number)
        if value == b"":
            raise self._unknown()
        return self._form.read(value, reach.loads)  # type: ignore[no-any-return]

    def _plain(self, view: View) -> Job[R]:
        return Job(job_id(view, self._reach.id, self._number), self._origin)

    def _has_begun(self, view: View) -> bool:
        return view.states[self._number] not in (WAITS, NEVER)

    def _has_turned(self, view: View) -> bool:
        return status_at(view, self._number) is not JobStatus.BLOCKED

    def _has_ended(self, view: View) -> bool:
        return self._has_turned(view) and view.states[self._number] != OPEN


def _deadline(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else asyncio.get_running_loop().time() + seconds(timeout, "timeout")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())

"""Reach: how the handles of one workflow ask the server about it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from .errors import JobCancelled, JobError, JobExpired, JobFailed, JobNotFound, ResultTimeout
from .form import UNKNOWN, Form
from .job import JobStatus, Origin
from .options import seconds
from .session import PATIENCE, Session
from .store.glance import Glance
from .store.persist import persist
from .store.wire import Ended, read_record
from .store.workflows import View
from .workflow import Graph
from .workflow_state import has_come_to_its_end, job_id, numbers_of, status_at, status_of

FEW = 1_000
"""Most nodes of a workflow that tells of every change of them. Whoever waits for a job of a larger one, before the turn
of that has come, looks now and then: each look reads a letter per node."""


@dataclass(frozen=True, slots=True)
class Reach:
    """``head`` is that of the workflow's blueprint, ``names`` the ids of its jobs as far as they are the user's. As far
    as the dispatch has told: ``form``, of its value; ``steps``, those of a chain; ``aside``, of what follows a group;
    ``graph``, which it was."""

    id: str
    kind: str
    session: Callable[[], Session]
    loads: Callable[[bytes], Any]
    partition: int
    head: Mapping[str, Any]
    names: Mapping[int, str] = field(default_factory=dict)
    form: Form = UNKNOWN
    steps: Sequence[Form] = ()
    aside: Mapping[str, Form] = field(default_factory=dict)
    graph: Graph | None = None

    def knowing(self, form: Form, steps: Sequence[Form], aside: Mapping[str, Form], graph: Graph | None) -> Reach:
        """The same with what the dispatch knows besides."""
        return replace(self, form=form, steps=steps, aside=aside, graph=graph)

    def origin(self, form: Form) -> Origin:
        """That of a job of the workflow."""
        known = form.origin
        if known is None:
            return Origin("", self.session, self.loads)
        return Origin(known.task, self.session, self.loads, known.convert, known.kept)

    async def opened(self) -> Session:
        session = self.session()
        await session.open()
        return session

    # -- how it stands ---------------------------------------------------------------------------------------

    async def seen(self) -> View:
        """How it stands now. Raises JobNotFound, RedisError."""
        view = await (await self.opened()).workflow(self.partition, self.id)
        if view is None:
            raise self._unknown()
        return view

    async def reached(
        self, far_enough: Callable[[View], bool], timeout: float | timedelta | None, job: str = ""
    ) -> View:
        """How it stands when it has come so far. ``job``: the id of the one that is waited for, if that is not the
        workflow itself. Raises ResultTimeout, JobNotFound, RedisError."""
        limit = math.inf if timeout is None else seconds(timeout, "timeout")
        try:
            async with asyncio.timeout(None if timeout is None else limit):
                view = await self.seen()
                return view if far_enough(view) else await self._told(far_enough, job)
        except TimeoutError:
            what = f"job {job}" if job else f"{self.kind} {self.id}"
            raise ResultTimeout(f"{what} has not ended within {limit:g} s; it goes on") from None

    async def _told(self, far_enough: Callable[[View], bool], job: str) -> View:
        session = self.session()
        of_nodes = bool(job) and self.head["nodes"] <= FEW

        async def look(channel: str) -> View | bool:
            view = await session.store.workflows.view(self.partition, self.id, channel, of_nodes)
            return view is not None and (view if far_enough(view) else True)

        keys = session.store.partitions[self.partition]
        view = await session.watch(self.id, keys, look, "" if of_nodes else job)
        if view is None:
            raise self._unknown()
        return view

    def _unknown(self) -> JobNotFound:
        return JobNotFound(f"{self.kind} {self.id} is unknown: it never was, or its result_ttl is over")

    async def cancel(self) -> bool:
        session = await self.opened()
        return await session.store.workflows.cancel(self.partition, self.id, PATIENCE)

    # -- what it came to -------------------------------------------------------------------------------------

    async def result(self, timeout: float | timedelta | None) -> Any:
        """Its value. Raises why there is none."""
        view = await self.reached(has_come_to_its_end, timeout)
        if status_of(view) is not JobStatus.SUCCEEDED:
            raise await self.failure(view)
        value = await (await self.opened()).value(self.partition, self.id, view.head["result"])
        return self.form.read(value, self.loads)

    async def failure(self, view: View) -> JobError:
        """Why it has no value."""
        number = view.stopped if view.failed is None else view.failed
        if number is None or number < 0:
            return JobCancelled(f"{self.kind} {self.id} was cancelled")
        id = job_id(view, self.id, number)
        if view.failed is None:
            return JobCancelled(f"job {id} was cancelled, and so {self.kind} {self.id} has no result")
        return why(id, await self.record(number))

    async def record(self, number: int) -> Ended | None:
        """What is kept of the job that failed first, if it is this one."""
        session = await self.opened()
        [record] = await persist(lambda: session.store.workflows.values(self.partition, self.id, [number]), PATIENCE)
        try:
            return read_record(record) if record else None
        except (ValueError, TypeError):
            return None  # a strange hand was here, or the job left no record of its end

    # -- its jobs --------------------------------------------------------------------------------------------

    async def statuses(self) -> tuple[JobStatus, dict[str, JobStatus]]:
        """Its own status, and those of its jobs by id, in order."""
        view = await self.seen()
        jobs: dict[str, JobStatus] = {}
        begun: list[str] = []
        for number in numbers_of(view.head["jobs"]):
            id, status = job_id(view, self.id, number), status_at(view, number)
            if status is None:
                begun.append(id)
            # One that has begun and of which nothing is found has ended just now; that is soon known here too.
            jobs[id] = status or JobStatus.RUNNING
        jobs.update(await self._looked_at(begun))
        return status_of(view), jobs

    async def _looked_at(self, ids: list[str]) -> dict[str, JobStatus]:
        store = (await self.opened()).store
        own = store.partitions[self.partition]
        found: dict[str, JobStatus] = {}
        for keys in (own, *(one for one in store.partitions if one is not own)):
            missing = [id for id in ids if id not in found]
            if missing:
                glance = Glance(store.control(keys), keys, store.options.group)
                states = await persist(partial(glance.states, missing), PATIENCE)
                found |= {id: JobStatus(state) for id, state in states.items()}
        return found


def why(id: str, ended: Ended | None) -> JobError:
    """What it comes to that a job of a workflow has failed."""
    if ended is None or (ended.error is None and ended.state == "f"):
        return JobFailed("", "nothing is kept of its error", job_id=id)
    if ended.state == "e":
        return JobExpired(f"job {id} did not start in time and never will")
    if ended.state == "c":
        return JobCancelled(f"job {id} was cancelled")
    error_type, message, traceback, reason = ended.error or ("", "", "", "")
    return JobFailed(error_type, message, traceback, ended.attempts, reason, id)

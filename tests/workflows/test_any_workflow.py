"""Workflows of any shape, on the server: who runs, and what each sees as previous, is what the workflow says."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given

from taskrunner import JobContext, JobStatus, TaskRunner
from tests import properties
from tests.unit.spelled import Reading, Spelled, make, names_of, without_cancelling, workflows
from tests.waiting import DEADLINE, eventually

__all__ = ["properties"]


def some() -> list[Spelled]:
    """The same ones each time."""
    found: list[Spelled] = []

    @given(workflows())
    def keep(spelled: Spelled) -> None:
        found.append(spelled)

    keep()
    return found


class Players:
    """A task whose jobs fail when they are told to, and note what they have seen."""

    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner
        self.failing: dict[str, set[int]] = {}
        self.seen: dict[str, dict[int, Any]] = {}
        self.task = runner.task(name="play", max_retry=0)(self._play)

    async def _play(self, context: JobContext, name: int) -> int:
        workflow = context.job_id.rpartition(".")[0]
        assert name not in self.seen[workflow], "a job runs once"
        self.seen[workflow][name] = context.previous
        if name in self.failing[workflow]:
            raise ValueError(name)
        return name

    async def dispatch(self, spelled: Spelled, failing: set[int]) -> Any:
        job = await self.runner.dispatch(make(spelled, self.task))
        self.failing[job.id], self.seen[job.id] = failing, {}
        return job

    async def has_ended(self, job: Any) -> bool:
        """Whether all of it has, what follows a group aside too."""
        session = await self.runner.opened()
        view = await session.workflow(session.store.keyspace.partition_of(job.id), job.id)
        assert view is not None
        assert (view.left == 0) == (not set(view.states) & set("wo"))
        return view.left == 0


def some_of(spelled: Spelled, random: Random) -> set[int]:
    names = list(names_of(spelled))
    return set(random.sample(names, random.randint(0, min(3, len(names)))))


@pytest.mark.leaves("dead")
async def test_any_workflow_runs_as_it_is_written_whoever_fails(runner: TaskRunner) -> None:
    players, random = Players(runner), Random(6)
    shapes = [(without_cancelling(spelled), some_of(spelled, random)) for spelled in some()]
    jobs = [await players.dispatch(spelled, failing) for spelled, failing in shapes]
    async with runner.start():
        for job, (spelled, failing) in zip(jobs, shapes, strict=True):
            reading = Reading(failing)
            good, value = reading.read(spelled)
            await eventually(lambda job=job: players.has_ended(job))
            assert players.seen[job.id] == reading.seen, (spelled, failing)
            assert await job.status() is (JobStatus.SUCCEEDED if good else JobStatus.FAILED), (spelled, failing)
            if good:
                assert await (job.result if spelled[0] == "chain" else job.results)(DEADLINE) == value, spelled


@pytest.mark.leaves("dead")
async def test_any_workflow_ends_whoever_fails_and_is_cancelled_for_it(runner: TaskRunner) -> None:
    players, random = Players(runner), Random(66)
    jobs = [await players.dispatch(spelled, some_of(spelled, random)) for spelled in some()]
    async with runner.start():
        for job in jobs:
            await eventually(lambda job=job: players.has_ended(job))

"""The matrix of unique keys: every kind of unique job, every way in which one can end. Afterwards its key is free, and
who was parked behind it has gone on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio

from taskrunner import GiveUp, Job, JobCancelled, JobError, JobStatus, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.task import Task
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

KINDS: dict[str, dict[str, Any]] = {
    "True": {"unique": True},
    "debounce": {"unique": "debounce", "unique_for": 0.1},
    "latest": {"unique": "latest"},
    "latest, one parked": {"unique": "latest"},
}


@dataclass
class Stage:
    """A runner with a task that ends as its argument says."""

    runner: TaskRunner
    client: redis.asyncio.Redis
    keys: PartitionKeys
    kind: str
    jobs: list[Job[Any]] = field(default_factory=list[Job[Any]])
    running: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.task: Task[[str], Any] = self.runner.task(name="work", unique_key="same", max_retry=0, **KINDS[self.kind])(
            self.work
        )

    async def work(self, how: str) -> Any:
        if how == "fail":
            raise ValueError("no")
        if how == "give up":
            raise GiveUp("enough")
        if how == "for ever":
            self.running.set()
            await asyncio.Future()
        return object() if how == "unkept" else how

    async def dispatch(self, how: str, **options: Any) -> Job[Any]:
        """The job that is to end so, and maybe another one behind it."""
        job = await self.task.with_options(**options).dispatch(how)
        assert not job.deduplicated
        self.jobs = [job]
        if self.kind == "latest, one parked":
            self.jobs.append(await self.task.dispatch("well"))
            assert await self.jobs[1].status() is JobStatus.BLOCKED
        return job

    async def unique_keys(self) -> list[bytes]:
        pattern = self.keys.prefix.replace("{", "\\{")
        return [*await self.client.keys(f"{pattern}unique:*"), *await self.client.keys(f"{pattern}next:*")]


Exit = Callable[[Stage], Awaitable[None]]


async def by_its_run(stage: Stage, how: str) -> None:
    await stage.dispatch(how)
    async with stage.runner.start():
        await over(stage)


async def success(stage: Stage) -> None:
    await by_its_run(stage, "well")


async def failure(stage: Stage) -> None:
    await by_its_run(stage, "fail")


async def given_up(stage: Stage) -> None:
    await by_its_run(stage, "give up")


async def a_result_that_can_not_be_kept(stage: Stage) -> None:
    await by_its_run(stage, "unkept")


async def expiry(stage: Stage) -> None:
    await stage.dispatch("well", expires=0.001)
    await asyncio.sleep(0.01)
    async with stage.runner.start():
        await over(stage)


async def cancelled_while_it_waits(stage: Stage) -> None:
    job = await stage.dispatch("well")
    assert await job.cancel()
    async with stage.runner.start():
        await over(stage)


async def cancelled_while_it_runs(stage: Stage) -> None:
    job = await stage.dispatch("for ever")
    async with stage.runner.start():
        await stage.running.wait()
        assert await job.cancel()
        await over(stage)


async def deleted(stage: Stage) -> None:
    job = await stage.dispatch("well")
    assert await stage.runner.delete(job.id)
    stage.jobs.remove(job)
    async with stage.runner.start():
        await over(stage)


async def purged(stage: Stage) -> None:
    await stage.dispatch("well")
    await stage.runner.purge("default")
    for job in stage.jobs:
        with pytest.raises(JobCancelled):
            await job.result(timeout=20)
    stage.jobs.clear()


async def lost(stage: Stage) -> None:
    await stage.dispatch("well")
    names = stage.keys.queue("default")
    await stage.client.delete(names.stream, names.due)
    async with stage.runner.start():
        await over(stage)


async def over(stage: Stage) -> None:
    """Waits until they have ended; the parked one with its result."""
    first, parked = (stage.jobs, []) if stage.kind != "latest, one parked" else (stage.jobs[:-1], stage.jobs[-1:])
    for job in first:
        try:
            await job.result(timeout=30)
        except JobError:
            pass
    for job in parked:
        assert await job.result(timeout=30) == "well"


EXITS: tuple[Exit, ...] = (
    success,
    failure,
    given_up,
    a_result_that_can_not_be_kept,
    expiry,
    cancelled_while_it_waits,
    cancelled_while_it_runs,
    deleted,
    purged,
    lost,
)


@pytest.mark.leaves("dead", "tallies:")
@pytest.mark.parametrize("end", EXITS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("kind", KINDS)
async def test_after_every_end_of_every_kind_the_key_is_free(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, kind: str, end: Exit
) -> None:
    stage = Stage(make_runner(reservation_timeout=1.0), redis_client, keys, kind)
    await end(stage)
    if end is not lost:  # its letter, which named the key, is lost as well: the next dispatch takes the key over
        await eventually(lambda: none(stage))
    again = await stage.task.dispatch("well")
    assert not again.deduplicated
    async with stage.runner.start():
        assert await again.result(timeout=30) == "well"
    await eventually(lambda: none(stage))


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_parked_job_that_is_ended_leaves_its_place_to_the_next(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, how: str
) -> None:
    stage = Stage(runner, redis_client, keys, "latest, one parked")
    holder = await stage.dispatch("for ever")
    async with runner.start():
        await stage.running.wait()
        parked = stage.jobs[1]
        assert await (parked.cancel() if how == "cancel" else runner.delete(parked.id))
        assert (await runner.stats("default")).blocked == 0
        following = await stage.task.dispatch("well")
        assert not following.deduplicated
        assert await following.status() is JobStatus.BLOCKED
        await holder.cancel()
        assert await following.result(timeout=20) == "well"
    assert await stage.unique_keys() == []


async def none(stage: Stage) -> bool:
    return await stage.unique_keys() == []

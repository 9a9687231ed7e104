"""Producers, workers and operators do everything at once. Afterwards the figures agree and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    GiveUp,
    Job,
    JobContext,
    JobNotFound,
    JobStatus,
    NotFound,
    Retry,
    Snooze,
    TaskRunner,
    UniqueConflict,
)
from tests.features.untouched import remains
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
QUEUES, PRIORITIES = ("default", "mail"), ("high", "normal", "low")
ENDED = (JobStatus.SUCCEEDED, JobStatus.CANCELLED, JobStatus.EXPIRED)
ENDS: list[Exception | None] = [None, None, None, ValueError("no"), Retry(0.01), Snooze(0.02), GiveUp("enough")]


class Commotion:
    """Random acts upon one namespace, each of which must either succeed or say why it can't."""

    def __init__(self, runners: list[TaskRunner], seed: int) -> None:
        self.runners = runners
        self.chance = random.Random(seed)
        self.jobs = list[Job[Any]]()
        self.calm = False
        for runner in runners:
            for name in QUEUES:
                runner.task(name=name, queue=name, max_retry=1, backoff=Backoff.constant(0.02))(self._run)

    async def _run(self, ctx: JobContext, n: int) -> int:
        if self.calm:
            return n
        if n % 3 == 0:
            await ctx.save(n)
        await asyncio.sleep(self.chance.choice([0, 0, 0.001, 0.02]))
        end = self.chance.choice(ENDS)
        if end is not None:
            raise end
        return n

    @property
    def runner(self) -> TaskRunner:
        return self.chance.choice(self.runners[:2])

    def _options(self) -> dict[str, Any]:
        unique: dict[str, Any] = self.chance.choice(
            [{}, {}, {"unique": True}, {"unique": "latest"}, {"unique": "debounce", "unique_for": 0.03}]
        )
        options: dict[str, Any] = {"priority": self.chance.choice(PRIORITIES), **unique}
        if unique:
            options["unique_key"] = self.chance.choice("abc")
        if unique.get("unique") in (None, True):
            options |= self.chance.choice([{}, {}, {"delay": 0.05}, {"delay": 1000}, {"expires": 0.001}])
        return options | self.chance.choice([{}, {}, {"ignore_result": True}, {"queue": self.chance.choice(QUEUES)}])

    async def dispatch(self) -> None:
        task = self.runner.tasks[self.chance.choice(QUEUES)]
        self.jobs.append(await task.with_options(**self._options()).dispatch(self.chance.randrange(100)))

    async def dispatch_many(self) -> None:
        runner = self.runner
        tasks = [runner.tasks[self.chance.choice(QUEUES)] for _ in range(20)]
        self.jobs += await runner.dispatch_many([task.with_options(**self._options()).job(1) for task in tasks])

    async def cancel(self) -> None:
        if self.jobs:
            await self.runner.job(self.chance.choice(self.jobs).id).cancel()

    async def delete(self) -> None:
        if self.jobs:
            await self.runner.delete(self.chance.choice(self.jobs).id)

    async def look(self) -> None:
        if self.jobs:
            with suppress(JobNotFound):
                await self.runner.job(self.chance.choice(self.jobs).id).info()
        await self.runner.jobs(self.chance.choice(list(JobStatus)), limit=20)

    async def redrive(self) -> None:
        for letter in await self.runner.dead_letters.list(limit=3):
            with suppress(NotFound, UniqueConflict):
                await self.runner.dead_letters.retry(letter.id)

    async def redrive_all(self) -> None:
        await self.runner.dead_letters.retry_all(self.chance.choice([None, *QUEUES]))

    async def remove_dead(self) -> None:
        await self.runner.dead_letters.purge(self.chance.choice([0, 0.1]))

    async def pause(self) -> None:
        queue = self.chance.choice([None, *QUEUES])
        await self.runner.pause(queue)
        await asyncio.sleep(0.02)
        await self.runner.resume(queue)

    async def purge(self) -> None:
        await self.runner.purge(self.chance.choice(QUEUES))

    async def schedule(self) -> None:
        runner, name = self.runner, self.chance.choice("xyz")
        spec = runner.tasks[self.chance.choice(QUEUES)].with_options(priority="high").job(7)
        await runner.schedule(name, spec, every=self.chance.choice([0.02, 0.05]))
        await asyncio.sleep(0.06)
        await self.runner.unschedule(name)

    async def act(self, seconds: float) -> None:
        acts = [self.dispatch] * 12 + [self.dispatch_many] * 2 + [self.cancel] * 4 + [self.delete] * 3
        acts += [self.look, self.redrive, self.redrive_all, self.remove_dead, self.pause, self.purge, self.schedule]
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await self.chance.choice(acts)()

    async def come_and_go(self, runner: TaskRunner, seconds: float) -> None:
        """A worker that is stopped and started all the time."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            async with runner.start():
                await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def figures_that_disagree(self) -> dict[str, Any]:
        """While nothing moves: what is counted is what is listed, by queue, and in the figures too."""
        runner, found = self.runners[0], dict[str, Any]()
        await runner.pause()
        for act in [self.dispatch] * 60 + [self.cancel] * 5 + [self.delete] * 5:
            await act()
        await eventually(lambda: nothing_moves(runner))
        assert await runner.count() > 10
        for queue in QUEUES:
            stats = await runner.stats(queue)
            told = {
                "queued": stats.waiting,
                "scheduled": stats.scheduled,
                "blocked": stats.blocked,
                "failed": stats.dead,
            }
            for state in ("queued", "scheduled", "retrying", "blocked", "running", "failed"):
                counted, listed = await runner.count(queue, state=state), await runner.jobs(state, queue, 100_000)
                by_task = sum([await runner.count(queue, name, state) for name in QUEUES])
                figures = {counted, by_task, len({job.id for job in listed}), told.get(state, counted)}
                if len(figures) > 1:
                    found[f"{queue} {state}"] = (counted, by_task, len(listed), told.get(state))
        return found

    async def settle_down(self) -> None:
        """What is still to be run runs, and the rest is removed."""
        self.calm = True
        runner = self.runners[0]
        for name in ("x", "y", "z"):
            await runner.unschedule(name)
        await runner.resume()
        for queue in QUEUES:
            await runner.resume(queue)
            await runner.purge(queue)
        await eventually(lambda: quiet(runner))
        await runner.dead_letters.purge()


async def nothing_moves(runner: TaskRunner) -> bool:
    """Whether nothing runs and nothing is due soon."""
    if (await runner.stats()).running or await runner.count(state="retrying"):
        return False
    soon = datetime.now(UTC) + timedelta(seconds=100)
    return all(job.due_at is not None and job.due_at > soon for job in await runner.jobs("scheduled", limit=100_000))


async def quiet(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running + stats.scheduled + stats.blocked == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_whatever_happens_at_once_every_job_ends_and_nothing_is_left(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, partitions: int
) -> None:
    runners = [make_runner(partitions=partitions, result_ttl=1, num_workers=20) for _ in range(3)]
    told = list[str]()
    for runner in runners:
        runner.on_error(lambda role, error: told.append(f"{role}: {error!r}"))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    commotion = Commotion(runners, seed)
    async with runners[0].start(), runners[1].start():
        await asyncio.gather(commotion.come_and_go(runners[2], 2), *(commotion.act(2) for _ in range(6)))
        assert await commotion.figures_that_disagree() == {}
        await commotion.settle_down()
        figures = {state: await runners[0].count(state=state) for state in JobStatus}
        waiting = {name: one.waiting for name, one in (await runners[0].stats()).per_task.items() if one.waiting}
    assert {state: n for state, n in figures.items() if n and state not in ENDED} == {}
    assert waiting == {}
    assert told == []
    for runner in runners:
        await runner.aclose()
    assert await remains(redis_client, namespace) == {}

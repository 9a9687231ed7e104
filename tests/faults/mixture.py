"""A load of every kind of job, and what must be true of it once its workers have gone."""

from __future__ import annotations

import redis.asyncio

from taskrunner import Job, JobSpec
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet

COUNT = 6
"""Jobs of each kind."""


class Mixture:
    """``await dispatch()`` it, and in the end ``await check(client)``."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.jobs: dict[str, list[Job[object]]] = {}

    def _specs(self) -> dict[str, list[JobSpec[object]]]:
        tasks, some = self._fleet.tasks, range(COUNT)
        return {
            "plain": [tasks.quick.job(n) for n in some],
            "retrying": [tasks.flaky.job(n) for n in some],
            "delayed": [tasks.quick.with_options(delay=0.1 * n).job(n) for n in some],
            "unique": [tasks.quick.with_options(unique=True, unique_key=f"key-{n}").job(n) for n in some],
            "locked": [tasks.quick.with_options(lock_key=f"lock-{n % 2}").job(n) for n in some],
            "locked and retrying": [tasks.flaky.with_options(lock_key=f"lock-{n % 2}").job(n) for n in some],
            "dispatching": [tasks.relay.job(n) for n in some],
        }

    async def dispatch(self) -> None:
        for kind, specs in self._specs().items():
            self.jobs[kind] = list(await self._fleet.runner.dispatch_many(specs))

    async def end(self) -> None:
        """Waits until every job has ended, and those that they dispatched, and compares their results."""
        runner = self._fleet.runner
        for kind, jobs in self.jobs.items():
            results = [await job.result(40) for job in jobs]
            if kind == "dispatching":
                results = [await runner.job(str(name)).result(40) for name in results]
            assert results == list(range(COUNT)), kind

    async def check(self, client: redis.asyncio.Redis) -> None:
        """Each was recorded once, and nothing is left of any. When no worker is there any more."""
        for task, count in (("quick", 5 * COUNT), ("flaky", 2 * COUNT), ("relay", COUNT)):
            figures = await self._fleet.figures(task)
            assert (figures.succeeded, figures.failed, figures.waiting) == (count, 0, 0), task
        left = await leftovers(client, self._fleet.namespace)
        assert not left, left
        unique = self._fleet.tasks.quick.with_options(unique=True, unique_key="key-0", delay=3600)
        assert not (await unique.dispatch(0)).deduplicated, "the key of a job that has ended was not given back"

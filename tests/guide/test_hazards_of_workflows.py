"""Hazards 6 to 8 of ``test_hazards.py``, for jobs that wait for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobContext, JobFailed, TaskRunner, chain, group
from taskrunner.store.keys import PartitionKeys
from tests.guide.states import forgotten
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]


async def test_hazard_6_of_a_chain_one_job_is_there_at_any_instant(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    """A step that has ended, and the next one that is not there yet: there is no such instant."""
    tasks, keys, seen = Tasks(make_runner()), PartitionKeys("taskrunner", namespace, 0), list[tuple[int, int]]()
    stream, [_, nodes, _] = keys.queue("default").stream, keys.workflow("one")
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(*(tasks.give.job(n) for n in range(100)), id="one"))
        while True:
            async with redis_client.pipeline(transaction=True) as pipe:
                pipe.xlen(stream)
                pipe.get(nodes)
                length, letters = await pipe.execute()
            if letters.endswith(b"s"):
                break
            seen.append((length, letters.count(b"o")))
        assert await job.result(DEADLINE) == 99
    assert set(seen) == {(1, 1)}


async def test_hazard_7_what_is_handed_on_outlives_every_ttl_while_somebody_waits_for_it(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner = make_runner(result_ttl=0.05)

    @runner.task
    async def give(n: int) -> int:
        return n

    @runner.task(queue="later")
    async def show(ctx: JobContext) -> Any:
        return ctx.previous

    async with runner.start(queues=["default"]):  # so that those in the queue "later" wait
        jobs = [
            await runner.dispatch(chain(give.job(1), show.with_options(result_ttl=60).job())),
            await runner.dispatch(chain(group(give.job(1), give.job(2)), show.with_options(result_ttl=60).job())),
        ]
        for n in (f"{jobs[0].id}.0", f"{jobs[1].id}.2", f"{jobs[1].id}.3"):
            await eventually(lambda id=n: forgotten(runner, id))
        async for key in redis_client.scan_iter(match=f"*{namespace}*}}:workflow*"):
            assert await redis_client.pttl(key) == -1
    async with runner.start():
        assert [await job.result(DEADLINE) for job in jobs] == [1, [1, 2]]


async def test_hazard_8_waiting_for_jobs_that_have_ended_and_kept_nothing_ends(tasks: Tasks) -> None:
    silent = tasks.give.with_options(ignore_result=True)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            chain(silent.job(1), group(silent.job(2), silent.job(3)), tasks.add_up.job(), tasks.show.job())
        )
        assert await job.result(DEADLINE) == 5
        assert await job.result(DEADLINE) == 5, "also for who comes later"


@pytest.mark.leaves("dead")
async def test_hazard_8_a_step_that_stands_for_a_job_that_has_ended_before_goes_on_at_once(tasks: Tasks) -> None:
    async with tasks.runner.start():
        good = await tasks.give.with_options(id="good").dispatch("from before")
        bad = await tasks.fail.with_options(id="bad").dispatch("from before")
        for job in (good, bad):
            await job.wait(DEADLINE)
        tasks.calls.clear()
        went_on = await tasks.runner.dispatch(chain(tasks.give.with_options(id="good").job("anew"), tasks.show.job()))
        assert await went_on.result(DEADLINE) == "from before"
        ended = await tasks.runner.dispatch(group(tasks.fail.with_options(id="bad").job(), tasks.give.job(1)))
        with pytest.raises(JobFailed, match="from before"):
            await ended.results(DEADLINE)
        await ended.wait(DEADLINE)
    assert sorted(tasks.calls, key=str) == [1, "show"]


@pytest.fixture
def tasks(runner: TaskRunner) -> Tasks:
    return Tasks(runner)

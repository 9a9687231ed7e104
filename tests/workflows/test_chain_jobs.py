"""The handle of a chain: what it says of a chain on its way, and how that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskrunner import (
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobStatus,
    JobUpdate,
    ResultTimeout,
    chain,
    group,
)
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks


async def test_the_result_of_a_chain_is_that_of_its_last_step(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.add_up.job(2), tasks.add_up.job(3)))
        assert await job.result(DEADLINE) == 6
        assert await job.status() is JobStatus.SUCCEEDED


async def test_a_step_that_returns_nothing_hands_on_none_and_the_chain_goes_on(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.nothing.job(), tasks.nothing.job(), tasks.show.job()))
        assert await job.result(DEADLINE) is None
    assert tasks.calls == ["nothing", "nothing", "show"]


async def test_the_info_of_a_chain_goes_with_it_from_step_to_step(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.hold.job("a"), tasks.hold.job("b")))
        first, second, third = (step.id for step in job.steps)
        await eventually(lambda: tasks.started == ["a"])
        info = await job.info()
        assert (info.status, info.current, info.finished) == (JobStatus.RUNNING, second, [first])
        assert await job.info() == info, "looking changes nothing"
        tasks.go.set()
        await job.wait(DEADLINE)
        info = await job.info()
        assert (info.status, info.current, info.finished) == (JobStatus.SUCCEEDED, None, [first, second, third])


@pytest.mark.leaves("dead")
async def test_a_failed_step_ends_the_chain_and_is_the_last_that_finished(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.fail.job("broken"), tasks.give.job(3)))
        first, second, third = job.steps
        with pytest.raises(JobFailed, match=rf"^job {second.id}: ValueError: broken$") as caught:
            await job.result(DEADLINE)
        error = caught.value
        assert (error.error_type, error.message, error.attempts, error.job_id) == ("ValueError", "broken", 1, second.id)
        assert "raise ValueError(text)" in error.traceback
        info = await job.info()
        assert (info.status, info.current, info.finished) == (JobStatus.FAILED, None, [first.id, second.id])
        assert await third.status() is JobStatus.CANCELLED, "it never exists"
        await job.wait(DEADLINE)
    assert tasks.calls == [1, "fail"]


async def test_a_step_that_is_a_group_hands_on_the_list_and_finishes_as_one(tasks: Tasks) -> None:
    async with tasks.runner.start():
        wide = group(tasks.add_up.job(1), tasks.add_up.job(2))
        job = await tasks.runner.dispatch(chain(tasks.give.job(10), wide, tasks.show.job()))
        assert await job.result(DEADLINE) == [11, 12]
        _, middle, _ = job.steps
        assert (await job.info()).finished == [step.id for step in job.steps]
        assert await middle.result(DEADLINE) == [11, 12]


async def test_the_result_of_a_chain_that_ends_with_a_group_is_a_list(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), group(tasks.show.job(), tasks.add_up.job(1))))
        assert await job.result(DEADLINE) == [1, 2]


async def test_a_cancelled_chain_never_runs_what_waits(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.hold.job(), tasks.give.job(3)))
        await eventually(lambda: tasks.started)
        assert await job.cancel()
        assert await job.status() is JobStatus.CANCELLED
        with pytest.raises(JobCancelled, match="chain"):
            await job.result(DEADLINE)
        first, second, third = job.steps
        assert await first.result(DEADLINE) == 1, "what has ended keeps its value"
        await eventually(lambda: ended_as(second, JobStatus.CANCELLED))
        await eventually(lambda: ended_as(third, JobStatus.CANCELLED))
        assert (await job.info()).current is None
        assert not await job.cancel()
    assert tasks.calls == [1]


async def test_a_step_that_is_cancelled_cancels_the_chain(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        await eventually(lambda: tasks.started)
        [first, _] = job.steps
        assert await first.cancel()
        with pytest.raises(JobCancelled, match=first.id):
            await job.result(DEADLINE)
        info = await job.info()
        assert (info.status, info.finished) == (JobStatus.CANCELLED, [first.id])


async def test_a_step_that_expires_fails_the_chain(tasks: Tasks) -> None:
    late = tasks.give.with_options(expires=0.001).job(2)
    job = await tasks.runner.dispatch(chain(late, tasks.give.job(3)))
    await asyncio.sleep(0.05)  # until it is too late: the worker comes after that
    async with tasks.runner.start():
        with pytest.raises(JobExpired, match=job.steps[0].id):
            await job.result(DEADLINE)
        assert await job.status() is JobStatus.FAILED


async def test_whoever_waits_too_long_for_a_chain_is_told_so(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        with pytest.raises(ResultTimeout, match=rf"chain {job.id} has not ended within 0.01 s"):
            await job.result(0.01)
        with pytest.raises(ResultTimeout):
            await job.wait(0.01)
        tasks.go.set()
        assert await job.result(DEADLINE) == 2


async def test_all_who_wait_for_a_chain_hear_of_its_end(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        waiting = [asyncio.create_task(job.result(DEADLINE)) for _ in range(5)]
        await eventually(lambda: tasks.started)
        tasks.go.set()
        assert await asyncio.gather(*waiting) == [2] * 5


async def test_a_step_can_be_waited_for_before_its_turn(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(1), tasks.add_up.job(2)))
        _, second = job.steps
        assert await second.status() is JobStatus.BLOCKED
        info = await second.info()
        assert (info.id, info.task, info.status, info.attempts) == (second.id, "add_up", JobStatus.BLOCKED, 0)
        assert not await second.cancel(), "it does not exist yet"
        waiting = asyncio.create_task(second.result(DEADLINE))
        events = asyncio.create_task(statuses(second.events()))
        await eventually(lambda: tasks.started)
        tasks.go.set()
        assert await waiting == 3
        seen = await events
        assert seen[0] is JobStatus.BLOCKED
        assert seen[-1] is JobStatus.SUCCEEDED


@pytest.mark.leaves("dead")
async def test_whoever_waits_for_a_step_that_never_comes_is_told_so(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.fail.job(), tasks.give.job(2)))
        _, second = job.steps
        with pytest.raises(JobCancelled, match=rf"job {second.id} never ran"):
            await second.result(DEADLINE)
        await second.wait(DEADLINE)
        assert [update.status async for update in second.events()] == [JobStatus.CANCELLED]


async def test_a_step_whose_unique_key_another_job_holds_stands_for_that_one(tasks: Tasks) -> None:
    unique = tasks.hold.with_options(unique=True)
    async with tasks.runner.start():
        other = await unique.dispatch("same")
        await eventually(lambda: tasks.started)
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), unique.job("same"), tasks.show.job()))
        first, second, _ = job.steps
        await first.wait(DEADLINE)
        assert await second.status() is JobStatus.RUNNING
        assert (await second.info()).id == other.id == (await job.info()).current
        tasks.go.set()
        assert await job.result(DEADLINE) == await second.result(DEADLINE) == "same"
    assert tasks.started == ["same"]


async def test_a_thousand_steps_run_one_after_the_other(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(0), *(tasks.add_up.job(1) for _ in range(999))))
        assert await job.result(DEADLINE) == 999
        assert len((await job.info()).finished) == 1_000


async def ended_as(step: Job[Any], status: JobStatus) -> bool:
    return await step.status() is status


async def statuses(updates: AsyncIterator[JobUpdate]) -> list[JobStatus]:
    return [update.status async for update in updates]

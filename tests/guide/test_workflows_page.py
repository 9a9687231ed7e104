"""What docs/workflows.md says, where no other test shows it, and whether the tests exist that it names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskrunner import (
    GroupJob,
    JobCancelled,
    JobContext,
    JobFailed,
    JobStatus,
    TaskRunner,
    chain,
    group,
)
from tests.guide.references import is_there
from tests.guide.states import quiet
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]
PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text("utf-8")


@pytest.fixture
def tasks(runner: TaskRunner) -> Tasks:
    return Tasks(runner)


# -- what a step sees --------------------------------------------------------------------------------------------


async def test_members_see_what_came_before_the_group_and_saved_values_count(tasks: Tasks) -> None:
    @tasks.runner.task
    async def save(ctx: JobContext) -> None:
        await ctx.save({"half": 1})

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            chain(save.job(), group(tasks.show.job(), tasks.show.job()), tasks.show.job())
        )
        assert await job.result(DEADLINE) == [{"half": 1}, {"half": 1}]


# -- failure and cancellation ------------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
async def test_on_failure_of_a_group_in_a_chain_runs_and_the_chain_ends(tasks: Tasks) -> None:
    seen = asyncio.Queue[Any]()

    @tasks.runner.task
    async def clean_up(ctx: JobContext) -> None:
        seen.put_nowait(ctx.previous)

    async with tasks.runner.start():
        members = (tasks.give.job(1), tasks.fail.job())
        inner = group(*members, then=tasks.nothing.job(), on_failure=clean_up.job())
        job = await tasks.runner.dispatch(chain(tasks.give.job(0), inner, tasks.nothing.job()))
        with pytest.raises(JobFailed, match="no"):
            await job.result(DEADLINE)
        assert await asyncio.wait_for(seen.get(), DEADLINE) == [1, None]
        await eventually(lambda: quiet(tasks.runner))
        assert await job.status() is JobStatus.FAILED
    assert "nothing" not in tasks.calls


@pytest.mark.parametrize("waits", [{"delay": 3600}, {"unique": "latest"}], ids=["for its time", "for a job"])
async def test_a_step_that_waits_in_a_queue_that_was_never_used_is_found_there(
    tasks: Tasks, waits: dict[str, Any]
) -> None:
    """It is the only job of that queue, and has not come to its stream."""
    if "unique" in waits:
        await tasks.give.with_options(queue="another", **waits).dispatch(1)
    job = await tasks.runner.dispatch(
        chain(tasks.give.with_options(queue="new", **waits).job(1), tasks.nothing.job(), id="one")
    )
    assert await job.steps[0].status() in (JobStatus.SCHEDULED, JobStatus.BLOCKED)
    assert await tasks.runner.purge("new") == 1
    assert await job.status() is JobStatus.CANCELLED
    with pytest.raises(JobCancelled):
        await job.result(DEADLINE)
    assert await tasks.runner.purge("another") == int("unique" in waits)


async def test_a_member_that_is_cancelled_lets_on_failure_run_and_a_cancelled_group_does_not(tasks: Tasks) -> None:
    def members() -> Any:
        return group(tasks.hold.job(), tasks.give.job(1), then=tasks.nothing.job(), on_failure=tasks.show.job())

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(members())
        await eventually(lambda: tasks.started)
        first = next(iter((await job.info()).jobs))
        assert await tasks.runner.job(first).cancel()
        assert job.on_failure is not None
        assert await job.on_failure.result(DEADLINE) == [None, 1]
        assert await job.status() is JobStatus.CANCELLED
        tasks.calls.clear()
        tasks.started.clear()

        job = await tasks.runner.dispatch(members())
        await eventually(lambda: tasks.started and tasks.calls)
        assert await job.cancel()
        assert job.on_failure is not None
        with pytest.raises(JobCancelled):
            await job.on_failure.result(DEADLINE)
        assert not await job.cancel()
        await eventually(lambda: quiet(tasks.runner))
    assert tasks.calls == [1]


async def test_a_dead_step_runs_again_by_itself_with_what_it_saw_and_the_chain_stays_failed(tasks: Tasks) -> None:
    broken = True

    @tasks.runner.task(max_retry=0)
    async def flaky(ctx: JobContext) -> Any:
        if broken:
            raise ValueError
        return ctx.previous

    async with tasks.runner.start():
        for first, expected in (
            (tasks.give.job("x"), "x"),
            (group(tasks.give.job(1), tasks.give.job(2)), [1, 2]),
        ):
            broken = True
            job = await tasks.runner.dispatch(chain(first, flaky.job(), tasks.nothing.job()))
            with pytest.raises(JobFailed) as failed:
                await job.result(DEADLINE)
            broken = False
            again = await tasks.runner.dead_letters.retry(failed.value.job_id)
            assert await again.result(DEADLINE) == expected
            assert await job.status() is JobStatus.FAILED
        await eventually(lambda: quiet(tasks.runner))
    assert "nothing" not in tasks.calls


# -- options of a step -------------------------------------------------------------------------------------------


async def test_a_delay_and_a_time_to_start_in_count_from_the_turn_of_a_step(tasks: Tasks) -> None:
    @tasks.runner.task
    async def wait() -> None:
        await asyncio.sleep(3.2)

    @tasks.runner.task
    async def when(ctx: JobContext) -> list[float]:
        assert ctx.enqueued_at is not None
        return [ctx.enqueued_at.timestamp(), ctx.started_at.timestamp()]

    async with tasks.runner.start():
        urgent = when.with_options(expires=3)
        job = await tasks.runner.dispatch(chain(wait.job(), urgent.job(), when.with_options(delay=0.3).job()))
        [turn, start] = await job.result(DEADLINE)
        first = await job.steps[0].info()
        assert (await job.steps[1].info()).status is JobStatus.SUCCEEDED
    assert first.ended_at is not None
    assert turn >= first.ended_at.timestamp() - 0.01
    assert start - turn >= 0.29


async def test_a_step_whose_unique_key_is_taken_stands_for_the_job_that_has_it(tasks: Tasks) -> None:
    unique = tasks.hold.with_options(unique=True)
    async with tasks.runner.start():
        holder = await unique.dispatch("same")
        job = await tasks.runner.dispatch(chain(tasks.give.job(0), unique.job("same"), tasks.show.job()))
        await eventually(lambda: is_at(job, holder.id))
        assert tasks.started == ["same"]
        tasks.go.set()
        assert await job.result(DEADLINE) == "same"
        assert (await job.info()).finished == [job.steps[0].id, holder.id, job.steps[2].id]
    assert tasks.started == ["same"]


async def is_at(job: Any, id: str) -> bool:
    return (await job.info()).current == id


async def test_members_of_one_lock_key_run_one_at_a_time(tasks: Tasks) -> None:
    running = most = 0

    @tasks.runner.task(lock_key="one")
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return n

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(group.map(work, range(10)), tasks.add_up.job()))
        assert await job.result(DEADLINE) == 45
    assert most == 1


# -- more to do --------------------------------------------------------------------------------------------------


async def test_a_step_that_runs_twice_dispatches_the_same_workflow(tasks: Tasks) -> None:
    handles = list[Any]()

    @tasks.runner.task(max_retry=1, backoff=lambda attempt: 0.0)
    async def explore(ctx: JobContext) -> str:
        more = group.map(tasks.give, range(20), then=tasks.add_up.job(), id=f"{ctx.job_id}.pages")
        handles.append(await ctx.runner.dispatch(more))
        if len(handles) == 1:
            raise ConnectionError("cut off when all was sent")
        return handles[-1].id

    async with tasks.runner.start():
        id = await (await explore.dispatch()).result(DEADLINE)
        pages = await tasks.runner.workflow(id)
        assert isinstance(pages, GroupJob)
        assert pages.then is not None
        assert await pages.then.result(DEADLINE) == sum(range(20))
    assert [one.deduplicated for one in handles] == [False, True]
    assert sorted(tasks.calls) == list(range(20))


# -- the page ----------------------------------------------------------------------------------------------------

NAMED = re.findall(r"`([a-z_/]+\.py::\w+)`", PAGE)


@pytest.mark.parametrize("reference", sorted(set(NAMED)))
def test_the_tests_that_the_page_names_exist(reference: str) -> None:
    assert is_there(reference)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 30

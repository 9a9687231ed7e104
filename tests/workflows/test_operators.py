"""What operators do to jobs that are nodes of workflows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobCancelled, JobFailed, JobStatus, Task, TaskRunner, chain, group
from tests.waiting import eventually
from tests.workflows.auditing import audit, keys_of
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]


async def is_drained(runner: TaskRunner, client: redis.asyncio.Redis) -> bool:
    keys = await keys_of(runner)
    return not await client.exists(keys.workflows, keys.followers, keys.unfolding, keys.live)


def post(runner: TaskRunner, tasks: Tasks) -> Task[..., Any]:
    """A task with a queue of its own."""

    @runner.task(queue="mail")
    async def post(value: Any) -> Any:
        tasks.calls.append(value)
        return value

    return post


# -- purge --------------------------------------------------------------------------------------------------------


async def test_the_purge_of_a_queue_ends_the_workflows_of_its_jobs_as_cancelled(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    mail = post(runner, tasks)
    steps = await runner.dispatch(chain(mail.job(1), tasks.give.job(2)))
    later = await runner.dispatch(chain(mail.with_options(delay=60).job(1), tasks.give.job(2)))
    members = await runner.dispatch(
        group(mail.job(3), mail.job(4), then=tasks.give.job("then"), on_failure=tasks.give.job("mended"))
    )
    behind = await runner.dispatch(chain(tasks.give.job(5), mail.job(6)))
    assert await runner.purge("mail") == 4
    for job in (steps, later):
        assert await job.status() is JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            await job.result(5)
    assert await members.status() is JobStatus.CANCELLED
    async with runner.start():
        await eventually(lambda: "mended" in tasks.calls)
        assert await behind.result(20) == 6, "what does not exist yet is not in the queue"
        await eventually(lambda: is_drained(runner, redis_client))
    assert sorted(tasks.calls, key=str) == [5, 6, "mended"]
    assert await audit(runner) == []


async def test_the_purge_of_a_large_group_ends_it(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(group(*(tasks.give.job(n) for n in range(450)), then=tasks.give.job("then")))
    assert await runner.purge("default") == 450
    assert await job.status() is JobStatus.CANCELLED
    assert await is_drained(runner, redis_client)
    assert await audit(runner) == []


# -- delete and cancel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "cancel"])
async def test_a_step_that_an_operator_ends_cancels_the_chain(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, how: str
) -> None:
    job = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2), tasks.give.job(3)))
    async with runner.start(consume=False):
        one = runner.job(f"{job.id}.0")
        assert await (runner.delete(one.id) if how == "delete" else one.cancel())
        assert await job.status() is JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            await job.result(5)
    assert await is_drained(runner, redis_client)


@pytest.mark.parametrize("how", ["delete", "cancel"])
async def test_a_step_that_runs_is_ended_likewise(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, how: str
) -> None:
    async with runner.start():
        job = await runner.dispatch(chain(tasks.hold.job(1), tasks.give.job(2)))
        await eventually(lambda: tasks.started)
        one = runner.job(f"{job.id}.0")
        assert await (runner.delete(one.id) if how == "delete" else one.cancel())
        await job.wait(timeout=20)
        assert await job.status() is JobStatus.CANCELLED
        await eventually(lambda: is_drained(runner, redis_client))
    assert tasks.calls == []


async def test_a_member_that_an_operator_ends_is_what_the_group_fails_by(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    part = group(tasks.give.job(1), tasks.give.job(2), then=tasks.give.job(3), on_failure=tasks.show.job())
    job = await runner.dispatch(part)
    assert await runner.delete(f"{job.id}.3")
    assert await job.status() is JobStatus.CANCELLED
    async with runner.start():
        assert job.on_failure is not None
        assert await job.on_failure.result(20) == [1, None]
        await eventually(lambda: is_drained(runner, redis_client))
    assert tasks.calls == [1, "show"]


async def test_what_ended_can_be_deleted_and_changes_nothing(runner: TaskRunner, tasks: Tasks) -> None:
    async with runner.start():
        job = await runner.dispatch(chain(tasks.give.job(1), tasks.hold.job(2), tasks.show.job()))
        await eventually(lambda: tasks.started)
        assert await runner.delete(f"{job.id}.0")
        assert await runner.delete_result(f"{job.id}.0") is False
        tasks.go.set()
        assert await job.result(20) == 2
        assert await runner.delete(f"{job.id}.2")
        assert await job.result(5) == 2, "a workflow keeps what it came to itself"


async def test_steps_that_wait_for_their_turn_are_no_jobs_yet(runner: TaskRunner, tasks: Tasks) -> None:
    job = await runner.dispatch(
        chain(tasks.give.job(1), tasks.give.job(2), group(tasks.give.job(3), tasks.give.job(4)))
    )
    stats = await runner.stats()
    assert (stats.waiting, stats.scheduled, stats.blocked) == (1, 0, 0)
    assert await runner.count() == 1
    assert await runner.count(state="blocked") == 0
    assert await runner.delete(f"{job.id}.1") is False
    assert await runner.job(f"{job.id}.1").cancel() is False
    async with runner.start():
        assert await job.result(20) == [3, 4]


# -- dead letters -------------------------------------------------------------------------------------------------


async def test_the_dead_letter_of_a_step_that_is_run_again_is_a_job_of_its_own(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    runs: list[str] = []

    @runner.task(max_retry=0)
    async def second_time() -> str:
        runs.append("run")
        if len(runs) == 1:
            raise ValueError("no")
        return "done"

    async with runner.start():
        job = await runner.dispatch(chain(tasks.give.job(1), second_time.job(), tasks.give.job(3)))
        with pytest.raises(JobFailed):
            await job.result(20)
        again = await runner.dead_letters.retry(f"{job.id}.1")
        assert await again.result(20) == "done"
        await eventually(lambda: is_drained(runner, redis_client))
        assert await job.status() is JobStatus.FAILED, "where a workflow has come to, it stays"
        with pytest.raises(JobFailed, match="no"):
            await job.result(5)
    assert (runs, tasks.calls) == (["run", "run"], [1])
    assert await audit(runner) == []


async def test_dead_letters_of_workflows_can_be_dropped_without_harm(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    runner = make_runner(max_dead_letters=1)
    tasks = Tasks(runner)
    async with runner.start():
        job = await runner.dispatch(
            group(tasks.fail.job("one"), tasks.fail.job("two"), tasks.hold.job(3), on_failure=tasks.show.job())
        )
        await eventually(lambda: len(tasks.calls) == 2)
        await eventually(lambda: one_letter(runner))
        [letter] = await runner.dead_letters.list()
        assert await runner.dead_letters.delete(letter.id)
        tasks.go.set()
        assert job.on_failure is not None
        assert await job.on_failure.result(20) == [None, None, 3]
        with pytest.raises(JobFailed):
            await job.results(5)
        await eventually(lambda: is_drained(runner, redis_client))
    assert await runner.dead_letters.purge(older_than=timedelta(days=1)) == 0


async def one_letter(runner: TaskRunner) -> bool:
    return await runner.dead_letters.dropped() == 1 and await runner.dead_letters.count() == 1


# -- pause --------------------------------------------------------------------------------------------------------


async def test_a_step_in_a_paused_queue_waits_and_the_workflow_goes_on_when_it_is_resumed(
    runner: TaskRunner, tasks: Tasks
) -> None:
    mail = post(runner, tasks)
    async with runner.start():
        await (await mail.dispatch(0)).wait(timeout=20)
        await runner.pause("mail")
        job = await runner.dispatch(chain(tasks.give.job(1), group(mail.job(2), tasks.give.job(3)), tasks.add_up.job()))
        await eventually(lambda: {1, 3} <= set(tasks.calls))
        assert (await runner.stats("mail")).waiting == 1
        assert await job.status() is JobStatus.RUNNING
        assert 2 not in tasks.calls
        await runner.resume("mail")
        assert await job.result(20) == 5


async def test_a_workflow_whose_jobs_are_in_a_paused_queue_can_be_cancelled(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    async with runner.start():
        await (await tasks.nothing.dispatch()).wait(timeout=20)  # the worker is there, and hears of the pause
        await runner.pause("default")
        job: Any = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2)))
        assert await job.cancel()
        await job.wait(timeout=20)
        assert await job.status() is JobStatus.CANCELLED
        await runner.resume("default")
        await eventually(lambda: is_drained(runner, redis_client))
    assert 1 not in tasks.calls

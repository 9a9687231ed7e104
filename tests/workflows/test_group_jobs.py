"""The handle of a group: its members one by one, what follows it aside, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrunner import Job, JobCancelled, JobFailed, JobStatus, ResultTimeout, chain, group
from taskrunner.store.links import Link
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks


async def has_status(job: Job[Any], status: JobStatus) -> bool:
    return await job.status() is status


async def test_the_results_of_a_group_are_those_of_its_members_in_order(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(*(tasks.give.job(n) for n in range(20))))
        assert await job.results(DEADLINE) == list(range(20))
        assert await job.status() is JobStatus.SUCCEEDED
        info = await job.info()
        assert list(info.jobs) == [f"{job.id}.{n}" for n in range(2, 22)]
        assert set(info.jobs.values()) == {JobStatus.SUCCEEDED}


async def test_an_empty_group_has_succeeded_at_once(tasks: Tasks) -> None:
    job = await tasks.runner.dispatch(group())
    assert await job.status() is JobStatus.SUCCEEDED
    assert await job.results(DEADLINE) == []
    assert (await job.info()).jobs == {}


async def test_what_follows_an_empty_group_runs_with_an_empty_list(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(then=tasks.show.job()))
        assert job.then is not None
        assert await job.then.result(DEADLINE) == []


async def test_the_info_of_a_group_tells_how_each_of_its_jobs_stands(tasks: Tasks) -> None:
    first_of_two = tasks.hold.job("chained")
    members = (
        tasks.hold.job("runs"),
        tasks.give.with_options(delay=3600).job("scheduled"),
        tasks.give.with_options(queue="elsewhere").job("queued"),
        chain(first_of_two, tasks.give.job("blocked")),
    )
    async with tasks.runner.start(queues=["default"]):
        job = await tasks.runner.dispatch(group(*members))
        await eventually(lambda: sorted(tasks.started) == ["chained", "runs"])
        info = await job.info()
        assert info.status is JobStatus.RUNNING
        assert list(info.jobs.values()) == [
            JobStatus.RUNNING,
            JobStatus.SCHEDULED,
            JobStatus.QUEUED,
            JobStatus.RUNNING,
            JobStatus.BLOCKED,
        ]
        assert await job.cancel()
        info = await eventually(lambda: all_ended(job))
        assert set(info.jobs.values()) == {JobStatus.CANCELLED}


async def all_ended(job: Any) -> Any:
    info = await job.info()
    return info if JobStatus.RUNNING not in info.jobs.values() else None


async def test_a_retry_is_no_failure_of_the_group(tasks: Tasks) -> None:
    runs = 0

    @tasks.runner.task(max_retry=1, backoff=lambda attempt: 3600.0)
    async def flaky() -> None:
        nonlocal runs
        runs += 1
        raise OSError("for now")

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(flaky.job(), tasks.give.job(1)))
        await eventually(lambda: retries(job))
        info = await job.info()
        assert (runs, info.status) == (1, JobStatus.RUNNING)
        await job.cancel()


async def retries(job: Any) -> bool:
    return list((await job.info()).jobs.values()) == [JobStatus.RETRYING, JobStatus.SUCCEEDED]


@pytest.mark.leaves("dead")
async def test_a_group_is_failed_at_once_though_the_others_go_on(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.hold.job("on"), tasks.fail.job("broken")))
        with pytest.raises(JobFailed, match=rf"job {job.id}.3: ValueError: broken"):
            await job.results(DEADLINE)
        assert await job.status() is JobStatus.FAILED
        await eventually(lambda: tasks.started)
        assert list((await job.info()).jobs.values()) == [JobStatus.RUNNING, JobStatus.FAILED]
        with pytest.raises(ResultTimeout):
            await job.wait(0.01)
        tasks.go.set()
        await job.wait(DEADLINE)
        info = await job.info()
        assert (info.status, list(info.jobs.values())) == (JobStatus.FAILED, [JobStatus.SUCCEEDED, JobStatus.FAILED])


@pytest.mark.leaves("dead")
async def test_with_cancel_on_failure_the_others_are_cancelled(tasks: Tasks) -> None:
    async with tasks.runner.start():
        members = (tasks.hold.job(), chain(tasks.hold.job(), tasks.give.job(1)), tasks.fail.job("broken"))
        job = await tasks.runner.dispatch(group(*members, cancel_on_failure=True))
        await job.wait(DEADLINE)
        info = await job.info()
        assert info.status is JobStatus.FAILED
        assert list(info.jobs.values()) == [*[JobStatus.CANCELLED] * 3, JobStatus.FAILED]
        with pytest.raises(JobFailed, match="broken"):
            await job.results(DEADLINE)


@pytest.mark.leaves("dead")
async def test_who_cleans_up_behind_a_group_within_is_not_cancelled_with_the_others(tasks: Tasks) -> None:
    async with tasks.runner.start():
        inner = group(tasks.fail.job("broken"), then=tasks.give.job(1), on_failure=tasks.nothing.job())
        job = await tasks.runner.dispatch(group(inner, tasks.hold.job(), cancel_on_failure=True))
        await job.wait(DEADLINE)
        assert list((await job.info()).jobs.values()) == [JobStatus.FAILED, JobStatus.CANCELLED]
        await eventually(lambda: "nothing" in tasks.calls)
    assert tasks.calls.count("nothing") == 1


async def test_what_follows_a_success_runs_once_with_the_results(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            group(tasks.give.job(1), tasks.give.job(2), then=tasks.show.job(), on_failure=tasks.nothing.job())
        )
        assert job.then is not None
        assert job.on_failure is not None
        assert await job.then.result(DEADLINE) == [1, 2]
        assert await job.on_failure.status() is JobStatus.CANCELLED
        assert job.then.id not in (await job.info()).jobs
    assert tasks.calls.count("show") == 1
    assert "nothing" not in tasks.calls


@pytest.mark.leaves("dead")
async def test_what_follows_a_failure_runs_once_when_all_have_ended(tasks: Tasks) -> None:
    async with tasks.runner.start():
        members = (tasks.hold.job("late"), tasks.fail.job())
        job = await tasks.runner.dispatch(group(*members, then=tasks.nothing.job(), on_failure=tasks.show.job()))
        assert job.then is not None
        assert job.on_failure is not None
        await eventually(lambda: tasks.started and "fail" in tasks.calls)
        assert await job.on_failure.status() is JobStatus.BLOCKED
        tasks.go.set()
        assert await job.on_failure.result(DEADLINE) == ["late", None]
        assert await job.then.status() is JobStatus.CANCELLED
        assert await job.status() is JobStatus.FAILED, "what follows aside changes nothing"
    assert tasks.calls.count("show") == 1
    assert "nothing" not in tasks.calls


async def test_a_whole_workflow_may_follow_a_group(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            group(tasks.give.job(1), tasks.give.job(2), then=chain(tasks.add_up.job(), tasks.add_up.job(10)))
        )
        assert job.then is not None
        assert await job.then.result(DEADLINE) == 13
        wide = group(tasks.give.job(5), then=group(tasks.show.job(), tasks.add_up.job(1)))
        job = await tasks.runner.dispatch(wide)
        assert job.then is not None
        assert await job.then.result(DEADLINE) == [[5], 6]
        assert [update.status async for update in job.then.events()] == [JobStatus.SUCCEEDED]


async def test_a_group_without_followers_has_none(tasks: Tasks) -> None:
    job = await tasks.runner.dispatch(group())
    assert job.then is None
    assert job.on_failure is None


async def test_groups_within_groups_give_lists_within_lists(tasks: Tasks) -> None:
    async with tasks.runner.start():
        inner = group(tasks.give.job(1), group(), group(tasks.give.job(2)))
        job = await tasks.runner.dispatch(
            group(tasks.give.job(0), inner, chain(tasks.give.job(3), tasks.add_up.job(1)))
        )
        assert await job.results(DEADLINE) == [0, [1, [], [2]], 4]
        assert len((await job.info()).jobs) == 5


async def test_groups_may_be_nested_deeper_than_functions(tasks: Tasks) -> None:
    part: Any = group(tasks.give.job(1))
    for _ in range(1_200):
        part = group(part)
    async with tasks.runner.start():
        value = await (await tasks.runner.dispatch(part)).results(DEADLINE)
        depth = 0
        while isinstance(value, list):
            [value] = value
            depth += 1
    assert (depth, value) == (1_201, 1)


async def test_the_values_of_many_groups_are_read_together(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(*(group(tasks.give.job(n)) for n in range(150))))
        await job.wait(DEADLINE)
    writes = 0
    original: Any = Link.exchange

    async def exchange(self: Any, *commands: Any) -> Any:
        nonlocal writes
        writes += 1
        return await original(self, *commands)

    monkeypatch.setattr(Link, "exchange", exchange)
    assert await job.results(DEADLINE) == [[n] for n in range(150)]
    assert writes <= 10, "TIME, a look at it, and two or three questions for each depth"


async def test_a_cancelled_group_is_cancelled_at_once_and_has_no_results(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.hold.job(), tasks.give.job(1), then=tasks.nothing.job()))
        await eventually(lambda: tasks.started and tasks.calls == [1])
        waiting = asyncio.create_task(job.results(DEADLINE))
        assert await job.cancel()
        with pytest.raises(JobCancelled, match=f"group {job.id} was cancelled"):
            await waiting
        assert await job.status() is JobStatus.CANCELLED
        await job.wait(DEADLINE)
    assert tasks.calls == [1]


@pytest.mark.leaves("dead")
async def test_a_cancelled_group_that_then_fails_stays_cancelled(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.hold.job(), chain(tasks.hold.job(), tasks.fail.job())))
        await eventually(lambda: len(tasks.started) == 2)
        first = next(iter((await job.info()).jobs))
        assert await tasks.runner.job(first).cancel()
        assert await job.status() is JobStatus.CANCELLED
        tasks.go.set()
        await job.wait(DEADLINE)
        assert await job.status() is JobStatus.CANCELLED
    assert tasks.calls == ["fail"]


async def test_a_group_over_many_items_tells_all_of_them(tasks: Tasks) -> None:
    job = await tasks.runner.dispatch(group.map(tasks.give, range(2_500)))
    info = await job.info()
    assert len(info.jobs) == 2_500
    assert set(info.jobs.values()) == {JobStatus.QUEUED}
    async with tasks.runner.start():
        assert await job.results(60) == list(range(2_500))
        assert set((await job.info()).jobs.values()) == {JobStatus.SUCCEEDED}


async def test_each_member_has_a_handle(tasks: Tasks) -> None:
    async with tasks.runner.start():
        inner = group(tasks.give.job(2), tasks.give.job(3))
        job = await tasks.runner.dispatch(group(tasks.give.job(1), inner, chain(tasks.give.job(4), tasks.give.job(5))))
        assert [await one.result(DEADLINE) for one in job.members] == [1, [2, 3], 5]
        assert job.members[0].id in (await job.info()).jobs

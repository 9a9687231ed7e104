"""Dead letters that are run again: one, or all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    FailedJob,
    Job,
    JobContext,
    JobFailed,
    JobNotFound,
    JobStatus,
    NotFound,
    PayloadError,
    TaskRunner,
    UniqueConflict,
)
from taskrunner.store.keys import PartitionKeys
from tests.features.retrying import end_in_dead_letters
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


class Fault:
    """Tasks that fail as long as it is there."""

    def __init__(self) -> None:
        self.there = True
        self.runs = list[tuple[str, int, int]]()

    async def work(self, ctx: JobContext, n: int) -> int:
        self.runs.append((ctx.job_id, n, ctx.attempt))
        if self.there:
            raise ValueError(n)
        return n * 10


@pytest.fixture
def fault() -> Fault:
    return Fault()


async def died(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        with pytest.raises(JobFailed):
            await job.result(timeout=20)


async def test_it_runs_again_as_itself_with_all_its_attempts(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=2, backoff=Backoff.constant(0), queue="own")(fault.work)
    async with runner.start():
        job = await task.with_options(headers={"a": "b"}).dispatch(4)
        await died([job])
        assert [attempt for _, _, attempt in fault.runs] == [1, 2, 3]
        again = await runner.dead_letters.retry(job.id)
        assert again == job
        assert again.task == "work"
        await died([again])
        assert [attempt for _, _, attempt in fault.runs] == [1, 2, 3, 1, 2, 3]
        letter = await runner.dead_letters.get(job.id)
        assert letter is not None
        assert (letter.attempts, letter.queue) == (3, "own")
        assert await runner.dead_letters.count() == 1, "it took the place of itself"
        fault.there = False
        again = await runner.dead_letters.retry(job.id)
        assert await again.result(timeout=20) == 40
        assert await job.result(timeout=20) == 40, "a handle of before shows the new run"
        assert fault.runs[-1] == (job.id, 4, 1)
        info = await again.info()
        assert (info.status, info.queue, info.attempts) == (JobStatus.SUCCEEDED, "own", 1)
    assert await runner.dead_letters.count() == 0


async def test_until_it_runs_it_is_queued_and_its_old_outcome_forgotten(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        job = await task.dispatch(1)
        await died([job])
    assert await job.status() is JobStatus.FAILED
    again = await runner.dead_letters.retry(job.id)
    assert await again.status() is JobStatus.QUEUED
    assert await runner.dead_letters.get(job.id) is None
    waiting = asyncio.create_task(again.result(timeout=20))
    fault.there = False
    async with runner.start():
        assert await waiting == 10


@dataclass
class Point:
    x: int


async def test_the_result_has_the_type_of_the_task(runner: TaskRunner) -> None:
    good = False

    @runner.task(max_retry=0)
    async def locate(point: Point) -> Point:
        if not good:
            raise ValueError("nowhere")
        return Point(point.x + 1)

    async with runner.start():
        job = await locate.dispatch(Point(1))
        await died([job])
        good = True
        assert await (await runner.dead_letters.retry(job.id)).result(timeout=20) == Point(2)


async def test_the_priority_and_the_partition_stay(make_runner: MakeRunner, fault: Fault) -> None:
    runner = make_runner(partitions=3)
    task = runner.task(name="work", max_retry=0, unique=True)(fault.work)
    async with runner.start():
        jobs = [await task.with_options(priority=priority).dispatch(n)
                for n, priority in enumerate(("high", "normal", "low", "low"))]  # fmt: skip
        await died(jobs)
        fault.there = False
        again = [await runner.dead_letters.retry(job.id) for job in jobs]
        assert [await job.result(timeout=20) for job in again] == [0, 10, 20, 30]
    assert await runner.dead_letters.count() == 0


async def test_without_a_result_it_runs_again_too(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0, ignore_result=True)(fault.work)
    async with runner.start():
        job = await task.dispatch(1)

        async def dead() -> list[FailedJob]:
            return await runner.dead_letters.list()

        await eventually(dead)
        fault.there = False
        assert await runner.dead_letters.retry(job.id) == job
        await eventually(lambda: len(fault.runs) == 2)


async def test_one_whose_end_is_past_has_no_end_any_more(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        await eventually(lambda: runner.ready)
        job = await task.with_options(expires=2.0).dispatch(1)
        await died([job])
    await asyncio.sleep(2.0)
    fault.there = False
    again = await runner.dead_letters.retry(job.id)
    async with runner.start():
        assert await again.result(timeout=20) == 10


async def test_of_two_who_run_the_same_one_again_one_is_told_that_it_is_gone(
    make_runner: MakeRunner, fault: Fault
) -> None:
    one, two = make_runner(), make_runner()
    task = one.task(name="work", max_retry=0)(fault.work)
    async with one.start():
        jobs = await one.dispatch_many([task.job(n) for n in range(20)])
        await died(jobs)
    both = [runner.dead_letters.retry(job.id) for job in jobs for runner in (one, two)]
    told = await asyncio.gather(*both, return_exceptions=True)
    for first, second in zip(told[::2], told[1::2], strict=True):
        assert sorted((type(first), type(second)), key=str) == sorted((Job, NotFound), key=str)
    fault.there = False
    fault.runs.clear()
    async with one.start():
        assert [await job.result(timeout=20) for job in jobs] == [n * 10 for n in range(20)]
    assert len(fault.runs) == 20


async def test_while_another_job_holds_its_unique_key_it_stays_and_then_it_holds_it_again(
    runner: TaskRunner, fault: Fault
) -> None:
    task = runner.task(name="work", max_retry=0, unique=True, unique_key="key")(fault.work)
    async with runner.start():
        first = await task.dispatch(1)
        await died([first])
    second = await task.dispatch(2)
    assert not second.deduplicated, "a dead letter holds no key"
    with pytest.raises(UniqueConflict, match="stays a dead letter") as caught:
        await runner.dead_letters.retry(first.id)
    assert caught.value.job_id == second.id
    assert await first.status() is JobStatus.FAILED
    assert await runner.dead_letters.retry_all() == 0
    assert [letter.id for letter in await runner.dead_letters.list()] == [first.id]
    assert await second.cancel()
    again = await runner.dead_letters.retry(first.id)
    third = await task.dispatch(3)
    assert third.deduplicated
    assert third == again == first
    fault.there = False
    async with runner.start():
        assert await third.result(timeout=20) == 10
        assert not (await task.dispatch(4)).deduplicated


async def test_what_is_no_job_of_ours_is_refused_and_stays(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, caplog: pytest.LogCaptureFixture
) -> None:
    async with runner.start():
        await redis_client.xadd(keys.queue("default").stream, {"hello": "world"})
        [letter] = await eventually(runner.dead_letters.list)
        with pytest.raises(PayloadError, match="look at its raw"):
            await runner.dead_letters.retry(letter.id)
        with caplog.at_level(logging.WARNING, "taskrunner"):
            assert await runner.dead_letters.retry_all() == 0
        assert "1 dead letters can't be run again" in caplog.text
        assert await runner.dead_letters.list() == [letter]
        assert await runner.dead_letters.delete(letter.id)


async def test_all_run_again_the_oldest_first(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    other = runner.task(name="other", max_retry=0, queue="other")(fault.work)
    async with runner.start():
        jobs: list[Job[int]] = []
        for n in range(5):
            jobs.append(await task.dispatch(n))
            await died(jobs[-1:])
        others = await runner.dispatch_many([other.job(n) for n in range(3)])
        await died(others)
    fault.there = False
    fault.runs.clear()
    assert await runner.dead_letters.retry_all() == 8
    assert await runner.dead_letters.count() == 0
    async with runner.start():
        assert [await job.result(timeout=20) for job in (*jobs, *others)] == [0, 10, 20, 30, 40, 0, 10, 20]
    assert [id for id, _, _ in fault.runs if id in {job.id for job in jobs}] == [job.id for job in jobs]


@end_in_dead_letters
async def test_all_of_one_task_run_again_and_no_others(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    other = runner.task(name="work-more", max_retry=0)(fault.work)
    async with runner.start():
        jobs = await runner.dispatch_many([task.job(n) for n in range(3)])
        left = await runner.dispatch_many([other.job(n) for n in range(2)])
        await died([*jobs, *left])
        fault.there = False
        assert await runner.dead_letters.retry_all("nobody") == 0
        assert await runner.dead_letters.retry_all("work") == 3
        assert [await job.result(timeout=20) for job in jobs] == [0, 10, 20]
        assert sorted(letter.id for letter in await runner.dead_letters.list()) == sorted(job.id for job in left)


@end_in_dead_letters
async def test_what_fails_again_meanwhile_is_not_taken_twice(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        jobs = await runner.dispatch_many([task.job(n) for n in range(500)])
        await died(jobs)
        fault.runs.clear()
        assert await runner.dead_letters.retry_all() == 500

        async def failed_again() -> bool:
            return await runner.dead_letters.count() == 500

        await eventually(failed_again)
    assert sorted(n for _, n, _ in fault.runs) == [*range(500)]


async def test_those_that_stay_hold_up_none_of_the_others(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        jobs = await runner.dispatch_many([
            task.with_options(unique=True, unique_key=f"key {n}").job(n) if n < 250 else task.job(n) for n in range(600)
        ])  # fmt: skip
        await died(jobs)
    blockers = await runner.dispatch_many([
        task.with_options(unique=True, unique_key=f"key {n}", delay=1000).job(n) for n in range(250)
    ])  # fmt: skip
    assert await runner.dead_letters.retry_all() == 350
    assert await runner.dead_letters.count() == 250
    for blocker in blockers:
        await blocker.cancel()
    assert await runner.dead_letters.retry_all() == 250
    fault.there = False
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    assert await runner.dead_letters.count() == 0


@end_in_dead_letters
async def test_while_its_outcome_is_known_a_fixed_id_is_the_dead_job_and_then_a_new_one(
    runner: TaskRunner, fault: Fault
) -> None:
    daily = runner.task(name="work", max_retry=0)(fault.work).with_options(id="daily", result_ttl=1.0)
    async with runner.start():
        first = await daily.dispatch(1)
        await died([first])
        again = await daily.dispatch(2)
        assert again.deduplicated
        await died([again])

        async def dispatched() -> Job[int] | None:
            job = await daily.dispatch(3)
            return None if job.deduplicated else job

        third = await eventually(dispatched)
        await died([third])
        [letter] = await runner.dead_letters.list()
        assert letter.args == [3], "the later one took the place of the earlier"
        assert await runner.dead_letters.count("work") == 1


async def test_a_fixed_id_is_its_own_again_when_it_was_run_again(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        first = await task.with_options(id="fixed").dispatch(1)
        await died([first])
        fault.there = False
        again = await runner.dead_letters.retry("fixed")
        assert (await task.with_options(id="fixed").dispatch(2)).deduplicated
        assert await again.result(timeout=20) == 10


async def test_its_hooks_are_called_as_for_any_job(runner: TaskRunner, fault: Fault) -> None:
    told = list[str]()
    runner.on_start(lambda _: told.append("start"))
    runner.on_failure(lambda _: told.append("failure"))
    runner.on_success(lambda _: told.append("success"))
    task = runner.task(name="work", max_retry=0)(fault.work)
    async with runner.start():
        job = await task.dispatch(1)
        await died([job])
        fault.there = False
        await (await runner.dead_letters.retry(job.id)).result(timeout=20)
    assert told == ["start", "failure", "start", "success"]


async def test_one_that_was_deleted_can_not_be_run_again(runner: TaskRunner, fault: Fault) -> None:
    task = runner.task(name="work", max_retry=0, result_ttl=0.05)(fault.work)
    async with runner.start():
        job = await task.dispatch(1)
        await eventually(lambda: len(fault.runs) == 1)
        assert await eventually(runner.dead_letters.list)
        assert await runner.dead_letters.delete(job.id)
        with pytest.raises(NotFound):
            await runner.dead_letters.retry(job.id)

        async def forgotten() -> bool:
            try:
                await job.status()
            except JobNotFound:
                return True
            return False

        await eventually(forgotten)

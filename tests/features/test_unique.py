"""A unique key is held while its job lives, in whatever state, and by one job only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import Backoff, JobContext, JobFailed, JobStatus, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_a_waiting_job_holds_its_key_and_an_equal_dispatch_gets_its_handle(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(n: int) -> int:
        return n

    first = await work.dispatch(1)
    second = await work.dispatch(1)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert second.id == first.id
    async with runner.start():
        assert await second.result(timeout=10) == 1


async def test_a_running_job_holds_its_key(runner: TaskRunner) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True)
    async def work() -> None:
        started.set()
        await go.wait()

    async with runner.start():
        first = await work.dispatch()
        await started.wait()
        second = await work.dispatch()
        go.set()
        await second.result(timeout=10)
    assert second.deduplicated
    assert second.id == first.id


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live", "unique:")
async def test_a_job_that_waits_for_its_retry_holds_its_key(runner: TaskRunner) -> None:
    @runner.task(unique=True, backoff=Backoff.constant(1000))
    async def work() -> None:
        raise ValueError

    async with runner.start():
        first = await work.dispatch()
        await eventually(lambda: is_in(first, JobStatus.RETRYING))
        second = await work.dispatch()
    assert second.deduplicated
    assert second.id == first.id


async def test_a_scheduled_job_holds_its_key(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work() -> None: ...

    first = await work.with_options(delay=0.5).dispatch()
    assert (await work.dispatch()).id == first.id
    async with runner.start():
        await first.result(timeout=10)


async def test_a_job_that_was_retried_still_holds_its_key_in_its_second_run(runner: TaskRunner) -> None:
    second_run, go = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True, backoff=Backoff.constant(0))
    async def work(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise ValueError
        second_run.set()
        await go.wait()

    async with runner.start():
        first = await work.dispatch()
        await second_run.wait()
        assert (await work.dispatch()).id == first.id
        go.set()
        await first.result(timeout=10)


async def test_the_same_key_of_another_task_is_another_key(runner: TaskRunner) -> None:
    async def work(n: int) -> None: ...

    one = runner.task(name="one", unique=True)(work)
    two = runner.task(name="two", unique=True)(work)
    async with runner.start():
        jobs = [await one.dispatch(1), await two.dispatch(1)]
        assert not any(job.deduplicated for job in jobs)
        for job in jobs:
            await job.result(timeout=10)


async def test_a_dispatch_can_be_unique_though_its_task_is_not(runner: TaskRunner) -> None:
    @runner.task
    async def work(n: int) -> None: ...

    unique = work.with_options(unique=True, unique_key="the one")
    first, second, plain = await unique.dispatch(1), await unique.dispatch(2), await work.dispatch(1)
    assert second.id == first.id
    assert not plain.deduplicated
    async with runner.start():
        await first.result(timeout=10)
        await plain.result(timeout=10)


async def test_the_first_of_equal_jobs_in_one_dispatch_many_is_the_only_one(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(n: int) -> int:
        return n

    jobs = await runner.dispatch_many([work.job(n % 3) for n in range(9)])
    assert [job.deduplicated for job in jobs] == [False] * 3 + [True] * 6
    assert [job.id for job in jobs[3:6]] == [job.id for job in jobs[:3]]
    async with runner.start():
        assert [await job.result(timeout=10) for job in jobs] == [0, 1, 2] * 3


async def test_fifty_producers_at_once_make_one_job(make_runner: MakeRunner) -> None:
    runners = [make_runner() for _ in range(50)]
    for runner in runners:
        runner.task(name="work", unique=True)(answer)
    jobs = await asyncio.gather(*(runner.dispatch("work", 7) for runner in runners))
    assert len({job.id for job in jobs}) == 1
    assert sum(not job.deduplicated for job in jobs) == 1
    async with runners[0].start():
        assert await jobs[-1].result(timeout=10) == 7


async def test_two_jobs_of_one_key_never_live_at_once_while_fifty_producers_dispatch_and_workers_run(
    make_runner: MakeRunner,
) -> None:
    alive, most, runs = 0, 0, list[str]()

    async def work(ctx: JobContext) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        runs.append(ctx.job_id)
        await asyncio.sleep(0.001)
        alive -= 1

    workers, producers = [make_runner() for _ in range(2)], [make_runner() for _ in range(50)]
    for runner in (*workers, *producers):
        runner.task(name="work", unique=True, unique_key="same")(work)

    async def produce(runner: TaskRunner) -> list[str]:
        jobs = [await runner.dispatch("work") for _ in range(10)]
        return [job.id for job in jobs if not job.deduplicated]

    async with workers[0].start(), workers[1].start():
        made = await asyncio.gather(*(produce(runner) for runner in producers))
        await eventually(lambda: len(runs) == sum(map(len, made)))
    assert most == 1
    assert sorted(runs) == sorted(id for ids in made for id in ids)


@pytest.mark.leaves("live")
async def test_a_key_whose_holder_has_no_record_any_more_is_taken_over(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(unique=True)
    async def work() -> None: ...

    first = await work.dispatch()
    await redis_client.hdel(keys.live, first.id)
    second = await work.dispatch()
    assert not second.deduplicated
    async with runner.start():
        await second.result(timeout=10)


@pytest.mark.leaves("dead")
async def test_a_key_whose_holder_an_operator_deleted_from_the_stream_is_taken_over_and_the_holder_has_failed(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(reservation_timeout=0.5)

    @runner.task(unique=True)
    async def work() -> None: ...

    first = await work.dispatch()
    await redis_client.xtrim(keys.queue("default").stream, maxlen=0, approximate=False)
    second = await work.dispatch()
    assert not second.deduplicated
    async with runner.start():
        await second.result(timeout=10)
        with pytest.raises(JobFailed) as failed:
            await first.result(timeout=20)
        assert failed.value.reason == "orphaned"


async def test_a_key_is_freed_by_the_job_that_holds_it_and_no_other(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    started = list[str]()

    @runner.task(unique=True)
    async def work(ctx: JobContext) -> None:
        started.append(ctx.job_id)
        await gates[len(started) - 1].wait()

    async with runner.start():
        first = await work.dispatch()
        await eventually(lambda: len(started) == 1)
        await redis_client.hdel(keys.live, first.id)  # as if its record had been lost: the next takes the key over
        second = await work.dispatch()
        assert not second.deduplicated
        await eventually(lambda: len(started) == 2)
        gates[0].set()
        await eventually(lambda: redis_client.exists(keys.job(first.id)))
        third = await work.dispatch()
        assert third.id == second.id
        gates[1].set()
        await second.result(timeout=10)


@pytest.mark.parametrize("options", [{"unique": "yes"}, {"unique": 1}, {"unique_key": 7}, {"unique_for": 0}])
def test_a_wrong_option_is_refused_at_the_registration(runner: TaskRunner, options: dict[str, object]) -> None:
    with pytest.raises(TaskOptionError, match=next(iter(options))):
        runner.task(**options)(answer)  # type: ignore[call-overload]


async def answer(n: int) -> int:
    return n


async def is_in(job: object, status: JobStatus) -> bool:
    return await job.status() is status  # type: ignore[attr-defined, no-any-return]

"""Many jobs in a few round trips, each on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, PayloadError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.links import Link
from taskrunner.store.scripts import DISPATCH

MakeRunner = Callable[..., TaskRunner]


async def echo(n: Any) -> Any:
    return n


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The dispatch scripts that were sent."""
    sent = list[Any]()
    original = Link.call

    async def call(self: Any, *command: Any, **options: Any) -> Any:
        if command[0] == b"EVALSHA" and command[1] == DISPATCH.sha:
            sent.append(command)
        return await original(self, *command, **options)

    monkeypatch.setattr(Link, "call", call)
    return sent


async def test_a_thousand_jobs_keep_their_order_and_cost_a_round_trip_per_two_hundred(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, round_trips: list[Any]
) -> None:
    runner = make_runner()
    task = runner.task(echo)
    jobs = await runner.dispatch_many([task.job(n) for n in range(1000)])
    assert len(round_trips) == 5
    assert not any(job.deduplicated for job in jobs)
    rows = await redis_client.xrange(keys.queue("default").stream)
    assert [next(iter(row[1].values())).partition(b"\n")[2] for row in rows] == [b"[[%d]]" % n for n in range(1000)]
    async with runner.start():
        assert [await job.result(timeout=20) for job in jobs] == list(range(1000))


async def test_concurrent_dispatches_share_round_trips(make_runner: MakeRunner, round_trips: list[Any]) -> None:
    runner = make_runner()
    task = runner.task(echo)
    await task.dispatch(0)
    round_trips.clear()
    jobs = await asyncio.gather(*(task.dispatch(n) for n in range(1000)))
    assert len(round_trips) < 20
    async with runner.start():
        assert [await job.result(timeout=20) for job in jobs] == list(range(1000))


async def test_tasks_queues_options_and_kinds_may_be_mixed(runner: TaskRunner) -> None:
    @runner.task(queue="mail", unique=True)
    async def mail(n: int) -> int:
        return -n

    task = runner.task(echo)
    specs: list[Any] = [
        task.job(1),
        mail.job(2),
        task.with_options(delay=0.02).job(3),
        mail.job(2),
        task.with_options(id="four").job(4),
        task.with_options(queue="mail").job(5),
        task.with_options(id="four").job(6),
        mail.job(n=7),
    ]
    jobs = await runner.dispatch_many(specs)
    assert [job.deduplicated for job in jobs] == [False, False, False, True, False, False, True, False]
    assert jobs[3].id == jobs[1].id
    assert (jobs[4].id, jobs[6].id) == ("four", "four")
    assert await jobs[2].status() is JobStatus.SCHEDULED
    async with runner.start():
        assert [await job.result(timeout=10) for job in jobs] == [1, -2, 3, -2, 4, 5, 4, -7]


@pytest.mark.parametrize("place", [0, 500, 999])
async def test_one_payload_that_can_not_travel_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, place: int
) -> None:
    task = runner.task(unique=True)(echo)
    specs = [task.job(n) for n in range(1000)]
    specs[place] = task.job(b"raw")
    with pytest.raises(PayloadError, match="argument 'n'"):
        await runner.dispatch_many(specs)
    assert [key async for key in redis_client.scan_iter(match=f"*{keys.prefix}*")] == []


async def test_no_jobs_are_no_jobs(runner: TaskRunner) -> None:
    assert await runner.dispatch_many([]) == []


async def test_jobs_find_their_partitions_and_their_results(make_runner: MakeRunner) -> None:
    runner, asker = make_runner(partitions=3), make_runner(partitions=3)
    task = runner.task(echo)
    unique = runner.task(name="unique", unique=True)(echo)
    jobs = await runner.dispatch_many([task.job(n) for n in range(100)] + [unique.job(n % 5) for n in range(10)])
    assert sum(job.deduplicated for job in jobs) == 5
    async with runner.start():
        expected = [*range(100), *range(5), *range(5)]
        assert [await job.result(timeout=20) for job in jobs] == expected
        assert [await asker.job(job.id).result(timeout=20) for job in jobs] == expected


# -- a dispatch that is cancelled -----------------------------------------------------------------------------------


async def test_a_dispatch_that_is_cancelled_before_it_went_out_makes_no_job(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    task = runner.task(echo)
    await runner.opened()
    first, second = asyncio.create_task(task.dispatch(1)), asyncio.create_task(task.dispatch(2))
    await asyncio.sleep(0)  # both are waiting to be sent
    second.cancel()
    job = await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await redis_client.xlen(keys.queue("default").stream) == 1
    async with runner.start():
        assert await job.result(timeout=10) == 1


async def test_a_dispatch_that_is_cancelled_on_its_way_disturbs_no_other(runner: TaskRunner) -> None:
    task = runner.task(echo)
    ran = set[int]()
    runner.on_start(lambda event: ran.add(event.payload[0][0]))
    async with runner.start():
        for round_ in range(30):
            tasks = [asyncio.create_task(task.dispatch(10 * round_ + n)) for n in range(5)]
            for _ in range(round_ % 4):
                await asyncio.sleep(0)
            tasks[2].cancel()
            jobs = await asyncio.gather(*tasks, return_exceptions=True)
            for n, job in enumerate(jobs):
                if not isinstance(job, BaseException):
                    assert await job.result(timeout=10) == 10 * round_ + n
            assert [isinstance(job, BaseException) for job in jobs].count(True) <= 1
    assert {10 * round_ + n for round_ in range(30) for n in (0, 1, 3, 4)} <= ran

"""ctx.progress(): how far a job is, seen from outside as long as its outcome, and cheap for who tells it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anyio.from_thread
import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    JobContext,
    JobFailed,
    JobProgress,
    Snooze,
    TaskOptionError,
    TaskRunner,
    UsageError,
    current_job,
)
from taskrunner import progress as module
from taskrunner.store import progress as store_progress
from taskrunner.store.keys import Keyspace, PartitionKeys
from tests.features import process_tasks
from tests.features.reports import amounts, of
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
AT_ONCE = Backoff.constant(0)


async def test_the_last_report_is_seen_from_outside_while_the_job_works_and_afterwards(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1, 10, "begun")
        await current_job().progress(3, 10, "on its way")
        await go.wait()
        await ctx.progress(4.5, 10)

    async def seen() -> bool:
        return await amounts(job) == (3, 10, "on its way")

    async with runner.start():
        before = datetime.now(UTC)
        job = await work.dispatch()
        await eventually(seen)
        go.set()
        await job.result(timeout=20)
        found = await of(job)
    assert found is not None
    assert (found.done, found.total, found.message, found.fraction) == (4.5, 10, None, 0.45)
    assert found.at.tzinfo is not None
    assert abs((found.at - before).total_seconds()) < 30


async def test_a_job_that_told_nothing_has_none(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> None: ...

    async with runner.start():
        job = await work.dispatch()
        await job.wait(timeout=20)
        assert await of(job) is None


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(1, 4, 0.25), (0, 4, 0.0), (9, 4, 1.0), (0, 0, 1.0), (7, None, None)]
)
def test_the_fraction_is_between_nothing_and_all(done: float, total: float | None, fraction: float | None) -> None:
    assert JobProgress(done, total, None, datetime.now(UTC)).fraction == fraction


async def test_the_last_report_of_a_run_is_there_when_its_outcome_is(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext) -> None:
        for n in range(1, 4):
            await ctx.progress(n, 3)

    async with runner.start():
        jobs = [await work.dispatch() for _ in range(20)]
        for job in jobs:
            await job.result(timeout=20)
            assert await amounts(job) == (3, 3, None)


@end_in_dead_letters
async def test_what_a_failed_job_told_last_can_be_read(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work(ctx: JobContext) -> None:
        await ctx.progress(57, 100)
        raise ValueError

    async with runner.start():
        job = await work.dispatch()
        with pytest.raises(JobFailed):
            await job.result(timeout=20)
        assert await amounts(job) == (57, 100, None)


@end_in_dead_letters
async def test_what_a_run_told_before_its_timeout_is_there_with_its_failure(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 3600.0)

    @runner.task(max_retry=0, timeout=0.1)
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1, 3)
        await asyncio.sleep(0.05)
        await ctx.progress(2, 3)
        await asyncio.sleep(600)

    async with runner.start():
        job = await work.dispatch()
        with pytest.raises(JobFailed) as failed:
            await job.result(timeout=20)
        assert failed.value.error_type == "JobTimeout"
        assert await amounts(job) == (2, 3, None)


async def test_the_wait_for_the_last_report_is_no_part_of_a_run_that_has_a_timeout(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = asyncio.Event()

    async def write(*_: Any) -> None:
        await written.wait()

    monkeypatch.setattr(store_progress, "write", write)

    @runner.task(max_retry=0, timeout=0.5)
    async def work(ctx: JobContext) -> str:
        await ctx.progress(1)
        return "in time"

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=20) == "in time"
        written.set()


@pytest.mark.parametrize("again", [ValueError("no"), Snooze(0.2)], ids=lambda error: type(error).__name__)
async def test_it_stands_until_the_next_run_tells_its_own(runner: TaskRunner, again: Exception) -> None:
    seen = list[Any]()

    @runner.task(backoff=AT_ONCE)
    async def work(ctx: JobContext) -> None:
        seen.append(await amounts(runner.job(ctx.job_id)))
        if len(seen) == 1:
            await ctx.progress(1, 2)
            raise again
        await ctx.progress(0, 2)

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=20)
        assert await amounts(job) == (0, 2, None)
    assert seen == [None, (1, 2, None)]


async def test_a_million_reports_are_a_handful_of_writes_and_the_last_one_stands(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 3600.0)
    writes = list[list[float]]()
    original = store_progress.write

    async def write(*arguments: Any) -> None:
        writes.append([report[0] for _, report in arguments[-1]])
        await original(*arguments)

    monkeypatch.setattr(store_progress, "write", write)
    rows = 1_000_000

    @runner.task
    async def work(ctx: JobContext) -> None:
        for n in range(1, rows + 1):
            await ctx.progress(n, rows)

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=55)
        assert await amounts(job) == (rows, rows, None)
    assert len(writes) <= 3, "the first, and at the end what is under way and the last"
    assert writes[-1] == [rows]


async def test_a_loop_that_only_reports_lets_others_run(runner: TaskRunner) -> None:
    turns, done = 0, asyncio.Event()

    @runner.task
    async def work(ctx: JobContext) -> int:
        before, n = turns, 0
        while turns < before + 3:
            n += 1
            await ctx.progress(n)
        return n

    async def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0.001)

    async with runner.start():
        turning = asyncio.create_task(turn())
        assert await (await work.dispatch()).result(timeout=20) > 0
        done.set()
        await turning


async def test_the_reports_of_many_runs_share_a_write(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.5)
    sizes, original, go = list[int](), store_progress.write, asyncio.Event()

    async def write(*arguments: Any) -> None:
        sizes.append(len(arguments[-1]))
        await original(*arguments)

    monkeypatch.setattr(store_progress, "write", write)

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1)
        await go.wait()

    async def all_seen() -> bool:
        return all([await amounts(job) for job in jobs])

    async with runner.start():
        jobs = [await work.dispatch() for _ in range(8)]
        await eventually(all_seen)
        go.set()
        for job in jobs:
            await job.result(timeout=20)
    assert max(sizes) > 1
    assert len(sizes) < 8


@pytest.mark.parametrize("partitions", [1, 3])
async def test_it_is_kept_as_long_as_the_outcome(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)
    keyspace = Keyspace("taskrunner", runner.settings.namespace, partitions)
    go = asyncio.Event()

    async def lifetime(id: str) -> int:
        return int(await redis_client.pttl(keyspace.partitions[keyspace.partition_of(id)].progress(id)))

    @runner.task(result_ttl=100)
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1)
        await go.wait()

    async def long() -> bool:
        return await lifetime(job.id) > 6 * 86_400_000

    async def short() -> bool:
        return 0 < await lifetime(job.id) <= 100_000

    async with runner.start():
        job = await work.dispatch()
        await eventually(long)
        go.set()
        await job.wait(timeout=20)
        await eventually(short)


async def test_that_of_a_cancelled_job_is_kept_as_long_as_its_outcome(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(result_ttl=50)

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1, 2)
        await asyncio.sleep(600)

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: amounts(job))
        assert await job.cancel()
        assert await amounts(job) == (1, 2, None)
        assert 0 < await redis_client.pttl(keys.progress(job.id)) <= 50_000


WRONG: list[tuple[Any, ...]] = [
    *((value,) for value in (-1, -0.5, math.nan, math.inf, "3", None, True, 2**53 + 1, 1j, [1])),
    *((1, value) for value in (-1, math.nan, math.inf, "3", False, 2**60)),
    *((1, 2, value) for value in (5, b"text", ["text"], "x" * 1001, "\ud800")),
]


@end_in_dead_letters
async def test_what_is_no_amount_or_no_message_is_refused_in_the_task_and_the_last_report_stays(
    runner: TaskRunner,
) -> None:
    @runner.task(max_retry=0)
    async def work(ctx: JobContext) -> None:
        await ctx.progress(1, 2, "fine")
        for arguments in WRONG:
            with pytest.raises(TaskOptionError, match=r"progress: (done|total|message)"):
                await ctx.progress(*arguments)

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=20)
        assert await amounts(job) == (1, 2, "fine")


async def test_the_largest_amounts_and_the_longest_message_come_back_as_they_were(runner: TaskRunner) -> None:
    report = (2**53, 2**53, "ä" * 1000)

    @runner.task
    async def work(ctx: JobContext) -> None:
        await ctx.progress(*report)

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=20)
        assert await amounts(job) == report


async def test_a_thread_tells_by_way_of_the_event_loop(runner: TaskRunner) -> None:
    @runner.task
    def work(ctx: JobContext) -> None:
        for n in range(100):
            anyio.from_thread.run(ctx.progress, n, 99, "from a thread")

    async with runner.start():
        job = await work.dispatch()
        await job.result(timeout=20)
        assert await amounts(job) == (99, 99, "from a thread")


@end_in_dead_letters
async def test_a_process_can_not_tell_and_hears_why(runner: TaskRunner) -> None:
    tell = runner.task(pool="process", max_retry=0)(process_tasks.tell_progress)
    async with runner.start():
        with pytest.raises(JobFailed, match="no way to the server") as failed:
            await (await tell.dispatch()).result(timeout=30)
    assert failed.value.error_type == UsageError.__name__

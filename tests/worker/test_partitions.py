"""Three partitions: the basics work, each partition is a complete little world, and nothing is left in any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobFailed, TaskRunner, current_job
from tests.waiting import eventually

PARTITIONS = 3
NEVER = 300


@pytest.fixture
def make(make_runner: Callable[..., TaskRunner]) -> Callable[..., TaskRunner]:
    """Makes runners with three partitions and one task of each kind."""

    def make(**options: Any) -> TaskRunner:
        runner = make_runner(partitions=PARTITIONS, **options)

        @runner.task
        async def echo(value: Any) -> Any:
            return value

        @runner.task(max_retry=1, backoff=lambda attempt: 0.01)
        async def fails(n: int) -> None:
            raise ValueError(f"no {n}")

        @runner.task
        async def nap() -> int:
            await asyncio.sleep(60 if current_job().deliveries == 1 else 0)
            return current_job().deliveries

        return runner

    return make


async def entries(client: redis.asyncio.Redis, runner: TaskRunner) -> list[int]:
    """How many jobs stand in the stream of each partition."""
    partitions = (await runner.opened()).store.partitions
    return [await client.xlen(partition.queue("default").stream) for partition in partitions]


async def test_jobs_spread_over_all_partitions_and_all_run(
    make: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    runner = make()
    jobs = [await runner.dispatch("echo", n) for n in range(60)]
    spread = await entries(redis_client, runner)
    assert sum(spread) == 60
    assert min(spread) > 0
    stats = await runner.stats("default")
    assert (stats.waiting, stats.per_task["echo"].waiting) == (60, 60)
    async with runner.start():
        assert [await job.result(10) for job in jobs] == list(range(60))
        # A handle that was made from the id alone doesn't know the partition.
        assert [await runner.job(job.id).result(10) for job in jobs] == list(range(60))
    stats = await runner.stats("default")
    assert (stats.waiting, stats.running, stats.per_task["echo"].succeeded) == (0, 0, 60)


async def test_jobs_in_one_call_keep_their_order_among_the_handles(make: Callable[..., TaskRunner]) -> None:
    runner = make()
    echo = runner.tasks["echo"]
    async with runner.start():
        jobs = await runner.dispatch_many([echo.job(n) for n in range(500)])
        assert [await job.result(10) for job in jobs] == list(range(500))


async def test_a_unique_key_holds_whatever_partition_it_is_in(make: Callable[..., TaskRunner]) -> None:
    runner = make()
    unique = runner.tasks["echo"].with_options(unique=True)
    first = [await unique.dispatch(n) for n in range(20)]
    second = [await unique.dispatch(n) for n in range(20)]
    assert [job.id for job in second] == [job.id for job in first]
    assert all(job.deduplicated for job in second)
    assert [str(await job.status()) for job in second] == ["queued"] * 20
    async with runner.start():
        for job in second:
            await job.wait(10)
        assert not any([(await unique.dispatch(n)).deduplicated for n in range(20)])
        await eventually(lambda: _drained(runner))


async def test_an_id_of_the_callers_is_known_whatever_partition_it_is_in(make: Callable[..., TaskRunner]) -> None:
    runner = make()
    echo = runner.tasks["echo"]
    jobs = [await echo.with_options(id=f"order-{n}").dispatch(n) for n in range(20)]
    assert all([(await echo.with_options(id=f"order-{n}").dispatch(n)).deduplicated for n in range(20)])
    async with runner.start():
        assert [await job.result(10) for job in jobs] == list(range(20))


async def test_delayed_jobs_of_all_partitions_become_due(make: Callable[..., TaskRunner]) -> None:
    runner = make()
    delayed = runner.tasks["echo"].with_options(delay=3)  # none is due before all are dispatched
    async with runner.start():
        jobs = [await delayed.dispatch(n) for n in range(30)]
        assert (await runner.stats("default")).scheduled == 30
        assert [await job.result(10) for job in jobs] == list(range(30))


@pytest.mark.leaves("dead")
async def test_failures_of_all_partitions_are_retried_and_dead_lettered(make: Callable[..., TaskRunner]) -> None:
    runner = make()
    async with runner.start():
        jobs = [await runner.dispatch("fails", n) for n in range(12)]
        for job in jobs:
            with pytest.raises(JobFailed) as failed:
                await job.result(10)
            assert failed.value.attempts == 2
        assert await runner.dead_letters.count() == 12
        assert {letter.id for letter in await runner.dead_letters.list()} == {job.id for job in jobs}
        letter = await runner.dead_letters.get(jobs[7].id)
        assert letter is not None
        assert letter.args == [7]


async def test_a_stop_hands_the_jobs_of_all_partitions_back(make: Callable[..., TaskRunner]) -> None:
    first, second = make(reservation_timeout=NEVER, shutdown_timeout=0.1), make(reservation_timeout=NEVER)
    started = asyncio.Event()
    runs: list[str] = []

    @first.task(name="slow")
    async def slow() -> None:
        runs.append("first")
        if len(runs) == 12:
            started.set()
        await asyncio.sleep(60)

    @second.task(name="slow")
    async def quick() -> tuple[int, int]:
        return current_job().attempt, current_job().deliveries

    async with first.start():
        jobs = [await first.dispatch("slow") for _ in range(12)]
        await started.wait()
    async with second.start():
        assert [await second.job(job.id).result(10) for job in jobs] == [[1, 1]] * 12


async def test_a_silent_workers_jobs_of_all_partitions_are_taken_over(
    make: Callable[..., TaskRunner], redis_client: redis.asyncio.Redis
) -> None:
    silent, runner = make(reservation_timeout=0.5), make(reservation_timeout=0.5)
    jobs = [await runner.dispatch("nap") for _ in range(60)]  # so many that no partition gets none
    store = (await silent.opened()).store
    for partition in store.partitions:
        await store.prepare(partition, ["default"])
        assert await store.reader(partition).fetch(["default"], 100, None)
    async with runner.start():
        assert [await job.result(20) for job in jobs] == [2] * 60

        async def alone() -> bool:
            streams = [partition.queue("default").stream for partition in store.partitions]
            return {len(await redis_client.xinfo_consumers(stream, "taskrunner")) for stream in streams} == {1}

        await eventually(alone)


async def _drained(runner: TaskRunner) -> bool:
    stats = await runner.stats("default")
    return stats.waiting == stats.running == 0

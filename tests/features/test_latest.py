"""unique="latest": while a job is alive, the newest arguments are kept in a second one, which runs once after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import Backoff, GiveUp, JobContext, JobFailed, JobStatus, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


class Gate:
    """A task's body that tells what it runs, and goes on when it is let."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.open = asyncio.Event()

    async def __call__(self, n: int) -> int:
        self.runs.append(n)
        await self.open.wait()
        return n

    async def started(self, count: int = 1) -> None:
        await eventually(lambda: len(self.runs) >= count)


async def test_while_one_runs_the_newest_arguments_are_kept_and_run_once_after_it(runner: TaskRunner) -> None:
    gate = Gate()

    @runner.task(unique="latest", unique_key="same")
    async def work(n: int) -> int:
        return await gate(n)

    async with runner.start():
        first = await work.dispatch(1)
        await gate.started()
        second, third, fourth = [await work.dispatch(n) for n in (2, 3, 4)]
        assert [job.deduplicated for job in (first, second, third, fourth)] == [False, False, True, True]
        assert second.id == third.id == fourth.id != first.id
        gate.open.set()
        assert await first.result(timeout=20) == 1
        assert await second.result(timeout=20) == 4
    assert gate.runs == [1, 4]


async def test_a_parked_job_is_blocked_and_counted_so(runner: TaskRunner) -> None:
    gate = Gate()

    @runner.task(unique="latest", unique_key="same")
    async def work(n: int) -> int:
        return await gate(n)

    async with runner.start():
        await work.dispatch(1)
        await gate.started()
        second = await work.dispatch(2)
        info = await second.info()
        assert (info.status, info.queue, info.task, info.due_at) == (JobStatus.BLOCKED, "default", work.name, None)
        assert await second.status() is JobStatus.BLOCKED
        stats = await runner.stats("default")
        assert (stats.blocked, stats.scheduled, stats.waiting) == (1, 0, 0)
        assert await runner.count(state="blocked") == 1
        assert await runner.count(state="blocked", task=work.name) == 1
        assert [job.id for job in await runner.jobs("blocked")] == [second.id]
        gate.open.set()
        await second.result(timeout=20)
        assert (await runner.stats("default")).blocked == 0


async def test_one_that_waits_in_the_queue_is_alive_too(runner: TaskRunner) -> None:
    runs = list[int]()

    @runner.task(unique="latest", unique_key="same")
    async def work(n: int) -> None:
        runs.append(n)

    jobs = [await work.dispatch(n) for n in (1, 2, 3)]
    assert [job.deduplicated for job in jobs] == [False, False, True]
    async with runner.start():
        await jobs[-1].result(timeout=20)
    assert runs == [1, 3]


async def test_a_retry_is_waited_for(runner: TaskRunner) -> None:
    runs = list[tuple[int, int]]()
    failed = asyncio.Event()

    @runner.task(unique="latest", unique_key="same", backoff=Backoff.constant(0.3), max_retry=1)
    async def work(ctx: JobContext, n: int) -> None:
        runs.append((n, ctx.attempt))
        if n == 1 and ctx.attempt == 1:
            failed.set()
            raise ValueError

    async with runner.start():
        await work.dispatch(1)
        await failed.wait()
        second = await work.dispatch(2)
        await second.result(timeout=20)
    assert runs == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("error", [ValueError("no"), GiveUp("no")], ids=repr)
async def test_a_failure_lets_the_next_go_on(runner: TaskRunner, error: Exception) -> None:
    gate = Gate()

    @runner.task(unique="latest", unique_key="same", max_retry=0)
    async def work(n: int) -> int:
        await gate(n)
        if n == 1:
            raise error
        return n

    async with runner.start():
        first = await work.dispatch(1)
        await gate.started()
        second = await work.dispatch(2)
        gate.open.set()
        with pytest.raises(JobFailed):
            await first.result(timeout=20)
        assert await second.result(timeout=20) == 2


async def test_a_chain_of_them_runs_one_after_the_other(runner: TaskRunner) -> None:
    alive, most, runs = 0, 0, list[int]()

    @runner.task(unique="latest", unique_key="same")
    async def work(n: int) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        runs.append(n)
        await asyncio.sleep(0.002)
        alive -= 1

    async with runner.start():
        jobs = [await work.dispatch(n) for n in range(60)]
        await jobs[-1].result(timeout=20)
    assert most == 1
    assert runs[-1] == 59
    assert runs == sorted(set(runs))


async def test_jobs_without_results_take_turns_just_so(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    gate = Gate()

    @runner.task(unique="latest", unique_key="same", ignore_result=True)
    async def work(n: int) -> int:
        return await gate(n)

    async with runner.start():
        await work.dispatch(1)
        await gate.started()
        for n in (2, 3):
            await work.dispatch(n)
        gate.open.set()
        await gate.started(2)
        await eventually(lambda: no_key(redis_client, keys.live))
    assert gate.runs == [1, 3]
    assert not await redis_client.keys(keys.unique("*").replace("{", "\\{"))


@pytest.mark.parametrize("partitions", [1, 3])
async def test_fifty_producers_and_two_workers_run_the_newest_of_each_key_last_and_never_two_at_once(
    make_runner: MakeRunner, partitions: int
) -> None:
    alive, runs = set[int](), dict[int, list[int]]()

    async def work(key: int, n: int) -> None:
        assert key not in alive
        alive.add(key)
        runs.setdefault(key, []).append(n)
        await asyncio.sleep(0.001)
        alive.remove(key)

    runners = [make_runner(partitions=partitions) for _ in range(52)]
    for runner in runners:
        runner.task(name="work", unique="latest", unique_key=lambda key, n: str(key), max_retry=0)(work)
    async with runners[0].start(), runners[1].start():
        await asyncio.gather(*(runner.dispatch("work", key, n) for n, runner in enumerate(runners) for key in range(5)))
        last = [await runners[2].dispatch("work", key, 99) for key in range(5)]
        for job in last:
            await job.result(timeout=20)
    assert [runs[key][-1] for key in range(5)] == [99] * 5
    assert all(one.count(99) == 1 for one in runs.values())


@pytest.mark.leaves("dead")
async def test_a_parked_job_whose_holder_was_deleted_runs_by_itself(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner = make_runner(reservation_timeout=0.5)

    @runner.task(unique="latest", unique_key="same")
    async def work(n: int) -> int:
        return n

    first, second = await work.dispatch(1), await work.dispatch(2)
    await redis_client.xtrim(keys.queue("default").stream, maxlen=0, approximate=False)
    async with runner.start():
        assert await second.result(timeout=30) == 2
        with pytest.raises(JobFailed):
            await first.result(timeout=30)


async def test_with_a_period_both_hold(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    gate = Gate()

    @runner.task(unique="latest", unique_key="same", unique_for=1000)
    async def work(n: int) -> int:
        return await gate(n)

    async def end_period() -> None:
        [period] = await redis_client.keys(keys.period("*").replace("{", "\\{"))
        await redis_client.delete(period)

    async with runner.start():
        first = await work.dispatch(1)
        await gate.started()
        assert (await work.dispatch(2)).id == first.id, "within the period there is no other"
        await end_period()
        second = await work.dispatch(3)
        assert not second.deduplicated
        assert (await work.dispatch(4)).id == second.id
        gate.open.set()
        assert await second.result(timeout=20) == 4
        assert (await work.dispatch(5)).id == second.id, "nor when it has finished"
    assert gate.runs == [1, 4]


async def test_the_one_that_waits_is_told_apart_by_its_task(runner: TaskRunner) -> None:
    gate = Gate()

    async def work(n: int) -> int:
        return await gate(n)

    one = runner.task(name="one", unique="latest", unique_key="same")(work)
    two = runner.task(name="two", unique="latest", unique_key="same")(work)
    async with runner.start():
        await one.dispatch(1)
        await two.dispatch(2)
        await gate.started(2)
        gate.open.set()
    assert sorted(gate.runs) == [1, 2]


async def no_key(client: redis.asyncio.Redis, key: str) -> bool:
    return not await client.exists(key)

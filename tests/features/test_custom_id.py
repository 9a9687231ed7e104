"""A job whose id is the caller's: dispatched twice it is one job, while it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobContext, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_the_same_id_twice_is_the_first_job(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext, n: int) -> tuple[str, int]:
        return ctx.job_id, n

    first = await work.with_options(id="order 7").dispatch(1)
    second = await work.with_options(id="order 7").dispatch(2)
    assert (first.id, first.deduplicated) == ("order 7", False)
    assert (second.id, second.deduplicated) == ("order 7", True)
    async with runner.start():
        assert await second.result(timeout=10) == ["order 7", 1]
        third = await work.with_options(id="order 7").dispatch(3)
        assert third.deduplicated, "the first is still known"
        assert await third.result(timeout=10) == ["order 7", 1]


async def test_the_same_id_twice_in_one_batch_is_one_job(runner: TaskRunner) -> None:
    @runner.task
    async def work(n: int) -> int:
        return n

    jobs = await runner.dispatch_many([work.with_options(id="same").job(n) for n in range(3)])
    assert [job.deduplicated for job in jobs] == [False, True, True]
    async with runner.start():
        assert await jobs[2].result(timeout=10) == 0


async def test_fifty_producers_of_one_id_at_once_make_one_job(make_runner: MakeRunner) -> None:
    runners = [make_runner() for _ in range(50)]
    for runner in runners:
        runner.task(name="work")(number)
    bound = [runner.tasks["work"].with_options(id="same") for runner in runners]
    jobs = await asyncio.gather(*(one.dispatch(1) for one in bound))
    assert sum(not job.deduplicated for job in jobs) == 1
    async with runners[0].start():
        assert await jobs[0].result(timeout=10) == 1


async def test_an_id_is_free_again_when_its_result_ttl_is_over(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    work = runner.task(number)
    short = work.with_options(id="again", result_ttl=0.05)
    async with runner.start():
        await (await short.dispatch(1)).wait(timeout=10)
        await eventually(lambda: gone(redis_client, keys.job("again")))
        second = await short.dispatch(2)
        assert not second.deduplicated
        await second.wait(timeout=10)


@pytest.mark.leaves("dead")
async def test_an_id_of_a_dead_letter_is_free_again_when_its_result_ttl_is_over(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(max_retry=0)
    async def work(n: int) -> int:
        return 10 // n

    daily = work.with_options(id="daily", result_ttl=0.05)
    async with runner.start():
        await (await daily.dispatch(0)).wait(timeout=10)
        await eventually(lambda: gone(redis_client, keys.job("daily")))
        second = await daily.dispatch(5)
        assert not second.deduplicated
        assert await runner.dead_letters.get("daily") is not None
        await second.wait(timeout=10)


async def test_a_dispatch_that_races_with_the_end_of_the_job_of_its_id_has_an_outcome_all_the_same(
    make_runner: MakeRunner,
) -> None:
    runner, other, runs = make_runner(), make_runner(), list[str]()

    @runner.task
    async def work(ctx: JobContext) -> str:
        runs.append(ctx.job_id)
        return ctx.job_id

    again = other.declare("work")
    async with runner.start(), other.start(consume=False):
        for n in range(100):
            first = await work.with_options(id=f"id {n}").dispatch()
            racing = [again.with_options(id=f"id {n}").dispatch() for _ in range(3)]
            for job in [first, *await asyncio.gather(*racing)]:
                assert await job.result(timeout=20) == f"id {n}"
    assert runs == [f"id {n}" for n in range(100)], "its outcome is known, so there is no second run"


async def test_an_id_without_a_result_is_free_again_at_once(runner: TaskRunner) -> None:
    runs = list[int]()

    @runner.task(ignore_result=True)
    async def work(n: int) -> None:
        runs.append(n)

    job = work.with_options(id="mine")
    first, second = await job.dispatch(1), await job.dispatch(2)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    async with runner.start():
        await eventually(lambda: runs == [1])
        await eventually(lambda: accepted(runner, 3))
        await eventually(lambda: runs == [1, 3])


async def test_an_id_and_a_unique_key_both_hold(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(n: int) -> int:
        return n

    first = await work.with_options(id="one").dispatch(1)
    assert (await work.with_options(id="two").dispatch(1)).id == "one"
    assert (await work.with_options(id="one").dispatch(2)).id == "one"
    assert not (other := await work.with_options(id="two").dispatch(2)).deduplicated
    async with runner.start():
        assert await first.result(timeout=10) == 1
        assert await other.result(timeout=10) == 2


@pytest.mark.parametrize("id", ["", "x" * 201, "a\nb", "\x00", "\ud800", 7, None], ids=ascii)
def test_an_id_must_be_a_printable_string_of_at_most_200_characters(runner: TaskRunner, id: object) -> None:
    with pytest.raises(TaskOptionError, match="printable string of 1 to 200 characters"):
        runner.declare("work").with_options(id=id)


@pytest.mark.parametrize("id", ["x" * 200, "é ü 漢", "a:{b}*?[c]", "../..", "0"])
async def test_any_printable_string_is_an_id(runner: TaskRunner, id: str) -> None:
    work = runner.task(number)
    async with runner.start():
        job = await work.with_options(id=id).dispatch(1)
        assert await runner.job(id).result(timeout=10) == 1
    assert job.id == id


async def number(n: int) -> int:
    return n


async def gone(client: redis.asyncio.Redis, key: str) -> bool:
    return not await client.exists(key)


async def accepted(runner: TaskRunner, n: int) -> bool:
    return not (await runner.tasks["work"].with_options(id="mine").dispatch(n)).deduplicated

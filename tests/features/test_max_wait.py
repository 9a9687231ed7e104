"""max_wait: a job that would wait too long is not dispatched at all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import QueueBusy, QueueStats, RedisUnavailable, TaskOptionError, TaskRunner
from taskrunner.store.inspect import Inspection
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

leaves_jobs = pytest.mark.leaves("stream:default", "stream:default/high", "stream:other", "live")


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues whose forecasts were asked for, in order."""
    asked, original = list[str](), Inspection.stats

    async def stats(self: Inspection, queue: str, *rest: Any) -> QueueStats:
        asked.append(queue)
        return await original(self, queue, *rest)

    monkeypatch.setattr(Inspection, "stats", stats)
    return asked


@pytest.fixture
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is used again."""
    monkeypatch.setattr("taskrunner.admission.FRESH", 0.0)


@leaves_jobs
async def test_where_jobs_wait_and_nobody_consumes_the_forecast_is_infinite_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, namespace: str
) -> None:
    @runner.task
    async def work(n: int) -> None: ...

    await work.dispatch(1)
    before = sorted(await redis_client.keys(f"*{namespace}*"))
    with pytest.raises(QueueBusy, match="max_wait=60; nothing was dispatched") as busy:
        await work.with_options(max_wait=60, unique=True, id="mine", unique_for=60).dispatch(2)
    assert busy.value.eta == math.inf
    assert await redis_client.xlen(keys.queue("default").stream) == 1
    assert sorted(await redis_client.keys(f"*{namespace}*")) == before


@leaves_jobs
@pytest.mark.parametrize("partitions", [1, 3])
async def test_an_empty_queue_always_accepts(make_runner: MakeRunner, partitions: int) -> None:
    task = make_runner(partitions=partitions).task(name="work", max_wait=0)(answer)
    assert not (await task.dispatch()).deduplicated


@pytest.mark.usefixtures("always_asked")
async def test_the_forecast_of_busy_workers_is_compared_with_it(make_runner: MakeRunner) -> None:
    runner, go = make_runner(num_workers=1), asyncio.Event()

    @runner.task(name="work", ignore_result=True)
    async def work(wait: bool) -> None:
        if wait:
            await go.wait()
        await asyncio.sleep(0.02)

    async with runner.start():
        await runner.dispatch_many([work.job(False) for _ in range(5)])
        await eventually(lambda: succeeded(runner, 5))
        await work.dispatch(True)
        await runner.dispatch_many([work.job(False) for _ in range(100)])
        with pytest.raises(QueueBusy) as busy:
            await work.with_options(max_wait=0.5).dispatch(False)
        assert 0.5 < busy.value.eta < math.inf
        assert "is expected to take" in str(busy.value)
        await work.with_options(max_wait=busy.value.eta * 100).dispatch(False)
        go.set()
        await eventually(lambda: succeeded(runner, 107))


@leaves_jobs
@pytest.mark.usefixtures("always_asked")
async def test_jobs_of_every_priority_count_and_those_of_other_queues_do_not(runner: TaskRunner) -> None:
    @runner.task(max_wait=60)
    async def work() -> None: ...

    await work.with_options(priority="high").dispatch()
    with pytest.raises(QueueBusy, match="'default'"):
        await work.with_options(priority="low").dispatch()
    await work.with_options(queue="other").dispatch()


@leaves_jobs
@pytest.mark.usefixtures("always_asked")
async def test_a_dispatch_overrides_the_task_and_none_takes_it_away(runner: TaskRunner) -> None:
    task = runner.task(name="work", max_wait=60)(answer)
    await task.dispatch()
    with pytest.raises(QueueBusy):
        await task.dispatch()
    await task.with_options(max_wait=None).dispatch()
    with pytest.raises(QueueBusy):
        await runner.with_options(max_wait=5).dispatch("work")


@leaves_jobs
async def test_dispatch_many_asks_once_per_queue_and_writes_none_of_them_when_one_is_refused(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, questions: list[str]
) -> None:
    task = runner.task(name="work")(answer)
    patient = task.with_options(max_wait=60)
    assert len(await runner.dispatch_many([patient.job(n) for n in range(500)])) == 500
    assert questions == ["default"]
    await task.with_options(queue="other").dispatch()
    refused = task.with_options(queue="other", max_wait=60)
    with pytest.raises(QueueBusy):
        await runner.dispatch_many([task.with_options(queue="third").job(), refused.job()])
    assert not await redis_client.exists(keys.queue("third").stream)


@leaves_jobs
async def test_concurrent_dispatches_share_one_question(runner: TaskRunner, questions: list[str]) -> None:
    task = runner.task(name="work", max_wait=60)(answer)
    await asyncio.gather(*(task.dispatch(n) for n in range(300)))
    assert questions == ["default"]


@leaves_jobs
async def test_a_fresh_answer_is_used_again_and_an_old_one_is_not(
    runner: TaskRunner, questions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.admission.FRESH", 1000.0)
    task = runner.task(name="work", max_wait=60)(answer)
    for n in range(3):
        await task.dispatch(n)
    assert questions == ["default"]
    monkeypatch.setattr("taskrunner.admission.FRESH", 0.0)
    with pytest.raises(QueueBusy):
        await task.dispatch(3)
    assert questions == ["default"] * 2


@leaves_jobs
async def test_who_is_cancelled_while_asking_leaves_the_question_to_the_others(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered, original = asyncio.Event(), asyncio.Event(), Inspection.stats

    async def stats(self: Inspection, *arguments: Any) -> QueueStats:
        asked.set()
        await answered.wait()
        return await original(self, *arguments)

    monkeypatch.setattr(Inspection, "stats", stats)
    task = runner.task(name="work", max_wait=60)(answer)
    first, second = asyncio.create_task(task.dispatch(1)), asyncio.create_task(task.dispatch(2))
    await asked.wait()
    first.cancel()
    await asyncio.wait([first])
    answered.set()
    assert first.cancelled()
    assert (await second).id


async def test_a_forecast_that_can_not_be_had_is_an_outage_like_any_other(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stats(self: Inspection, *arguments: Any) -> QueueStats:
        raise RedisUnavailable("nobody there")

    monkeypatch.setattr(Inspection, "stats", stats)
    monkeypatch.setattr("taskrunner.session.PATIENCE", 0.05)
    task = runner.task(name="work", max_wait=60)(answer)
    outcomes = await asyncio.gather(*(task.dispatch(n) for n in range(3)), return_exceptions=True)
    assert [type(one) for one in outcomes] == [RedisUnavailable] * 3
    assert len({id(one) for one in outcomes}) == 3, "each has its own traceback"
    assert not await redis_client.exists(keys.queue("default").stream)


async def test_a_question_ends_with_its_runner(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def stats(self: Inspection, *arguments: Any) -> QueueStats:
        asked.set()
        return await asyncio.Future()

    monkeypatch.setattr(Inspection, "stats", stats)
    dispatch = asyncio.create_task(runner.task(name="work", max_wait=60)(answer).dispatch())
    await asked.wait()
    await runner.aclose()
    with pytest.raises(RedisUnavailable, match="closed"):
        await dispatch


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "60", True], ids=repr)
def test_a_wrong_value_is_refused(runner: TaskRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="max_wait"):
        runner.task(name="one", max_wait=value)(answer)
    with pytest.raises(TaskOptionError, match="max_wait"):
        runner.task(name="two")(answer).with_options(max_wait=value)


async def answer(n: int = 1) -> int:
    return n


async def succeeded(runner: TaskRunner, count: int) -> bool:
    stats = await runner.stats("default")
    return sum(task.succeeded for task in stats.per_task.values()) == count

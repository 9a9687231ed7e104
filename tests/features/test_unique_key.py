"""What counts as the same: the arguments however they are written, a key function, a period."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobContext, PayloadError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

pytestmark = pytest.mark.leaves("stream:default", "live", "unique:")  # most of these only dispatch


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((), {"a": 1}),
    ((1, 2), {}),
    ((1,), {"b": 2}),
    ((), {"b": 2, "a": 1}),
    ((1,), {"c": 3}),
    ((1, 2), {"c": 3}),
]


@pytest.mark.parametrize(("args", "kwargs"), CALLS, ids=str)
async def test_the_default_key_is_the_arguments_however_they_are_written(
    runner: TaskRunner, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    @runner.task(unique=True)
    async def work(ctx: JobContext, a: int, b: int = 2, *, c: int = 3) -> None: ...

    await work.dispatch(1)
    assert (await work.dispatch(*args, **kwargs)).deduplicated


@pytest.mark.parametrize(("args", "kwargs"), [((2,), {}), ((1, 3), {}), ((1,), {"c": 4}), (("1",), {})], ids=str)
async def test_other_arguments_are_another_key(
    runner: TaskRunner, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    @runner.task(unique=True)
    async def work(a: int, b: int = 2, *, c: int = 3) -> None: ...

    await work.dispatch(1)
    assert not (await work.dispatch(*args, **kwargs)).deduplicated


async def test_the_order_of_the_keys_of_a_mapping_is_no_difference(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(order: dict[str, int]) -> None: ...

    await work.dispatch({"a": 1, "b": 2})
    assert (await work.dispatch({"b": 2, "a": 1})).deduplicated


async def test_a_declared_task_without_a_signature_takes_its_arguments_as_they_are_written(runner: TaskRunner) -> None:
    task = runner.declare("elsewhere", unique=True)
    await task.dispatch(1, b=2, c=3)
    assert (await task.dispatch(1, c=3, b=2)).deduplicated
    assert not (await task.dispatch(1, 2, c=3)).deduplicated


async def test_a_key_function_gets_the_arguments_and_decides(runner: TaskRunner) -> None:
    @runner.task(unique=True, unique_key=lambda order_id, **_: str(order_id))
    async def charge(ctx: JobContext, order_id: int, customer: str) -> None: ...

    first = await charge.dispatch(7, customer="ann")
    assert (await charge.dispatch(7, customer="ben")).id == first.id
    assert not (await charge.dispatch(8, customer="ann")).deduplicated


@pytest.mark.parametrize(
    "key",
    ["", "}{", "\x00", "é" * 1000, "\ud800", "a:b *?[x]"],
    ids=["empty", "braces", "zero", "long", "surrogate", "glob"],
)
async def test_any_string_is_a_key(runner: TaskRunner, key: str) -> None:
    task = runner.declare("work", unique=True, unique_key=lambda *_: key)
    first = await task.dispatch(1)
    assert (await task.dispatch(2)).id == first.id
    assert not (await task.with_options(unique_key=key + ".").dispatch(3)).deduplicated


async def test_a_key_function_that_gives_no_string_is_a_payload_error(runner: TaskRunner) -> None:
    task = runner.declare("work", unique=True, unique_key=lambda n: n)
    with pytest.raises(PayloadError, match="must return a string, not 7"):
        await task.dispatch(7)


async def test_a_default_that_can_not_be_a_key_is_a_payload_error_that_says_what_to_do(runner: TaskRunner) -> None:
    @runner.task(unique=True)
    async def work(n: int, marker: object = object()) -> None: ...

    with pytest.raises(PayloadError, match="give unique_key"):
        await work.dispatch(1)


# -- for a period ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [60, timedelta(minutes=1)], ids=str)
async def test_a_period_holds_whether_the_job_has_finished_or_not(runner: TaskRunner, period: Any) -> None:
    @runner.task(unique_for=period)
    async def work() -> int:
        return 1

    async with runner.start():
        first = await work.dispatch()
        assert (await work.dispatch()).id == first.id
        await first.result(timeout=10)
        again = await work.dispatch()
        assert (again.deduplicated, again.id) == (True, first.id)
        assert await again.result(timeout=10) == 1


async def test_a_period_alone_ends_by_the_servers_clock_though_the_job_still_waits(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    @runner.task(unique_for=0.05)
    async def work() -> None: ...

    first = await work.dispatch()
    await eventually(lambda: over(redis_client, keys))
    second = await work.dispatch()
    assert not second.deduplicated
    async with runner.start():
        await first.result(timeout=10)
        await second.result(timeout=10)


async def test_both_together_hold_the_key_after_the_end_of_the_job(runner: TaskRunner) -> None:
    @runner.task(unique=True, unique_for=60)
    async def work() -> None: ...

    async with runner.start():
        first = await work.dispatch()
        await first.result(timeout=10)
        assert (await work.dispatch()).id == first.id


async def test_both_together_hold_the_key_after_the_end_of_the_period(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True, unique_for=0.05)
    async def work() -> None:
        started.set()
        await go.wait()

    async with runner.start():
        first = await work.dispatch()
        await started.wait()
        await eventually(lambda: over(redis_client, keys))
        assert (await work.dispatch()).id == first.id
        go.set()
        await first.result(timeout=10)
        third = await work.dispatch()
        assert not third.deduplicated
        await third.result(timeout=10)


async def over(client: redis.asyncio.Redis, keys: PartitionKeys) -> bool:
    """Whether no period lasts any more."""
    return not [key async for key in client.scan_iter(match=keys.period("*"), count=1000)]

"""What can't travel is refused before anything is written, and the argument is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import redis.asyncio

from taskrunner import PayloadError, PayloadTooLarge, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.features.payload_types import Item, Model, Struct, take_any

MakeRunner = Callable[..., TaskRunner]
NAN, INF = float("nan"), float("inf")


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BAD: dict[str, Any] = {
    "bytes": b"raw",
    "bytes inside": {"a": [b"raw"]},
    "nan": NAN,
    "nan inside": [{"a": (NAN,)}],
    "infinity": -INF,
    "nan in a dataclass": Item("a", NAN),
    "nan in a model": Model(number=1, share=NAN),
    "nan in a struct": Struct(1, [], NAN),
    "nan in models in a list": [Model(number=1, inner=Model(number=2, share=INF))],
    "65 bits": 2**64,
    "negative 65 bits": -(2**63) - 1,
    "surrogate": "a\udc00b",
    "surrogate as key": {"\ud800": 1},
    "number as key": {1: 2},
    "set": {1},
    "object": object(),
    "class": Item,
    "coroutine function": take_any,
    "too deep": deep(2000),
    "circle": circle(),
}


@pytest.mark.parametrize("where", ["positional", "keyword"])
@pytest.mark.parametrize("kind", BAD)
async def test_it_is_refused_by_name_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, kind: str, where: str
) -> None:
    task, value = runner.task(take_any), BAD[kind]
    with pytest.raises(PayloadError, match="'value'" if where == "positional" else "'other'") as refused:
        await (task.dispatch(value) if where == "positional" else task.dispatch(1, other=value))
    assert "'take_any'" in str(refused.value)
    assert [key async for key in redis_client.scan_iter(match=f"*{keys.prefix}*")] == []


async def test_numbers_up_to_64_bits_are_fine(runner: TaskRunner) -> None:
    task, numbers = runner.task(take_any), [2**64 - 1, -(2**63), 0.1, 1e308, -0.0]
    async with runner.start():
        assert await (await task.dispatch(numbers)).result(timeout=10) == numbers


async def test_none_and_empty_and_text_of_all_sorts_are_fine(runner: TaskRunner) -> None:
    task, values = runner.task(take_any), [None, "", "\x00", "\n", "null", "é😀\u2028", [], {}]
    async with runner.start():
        for value in values:
            assert await (await task.dispatch(value)).result(timeout=10) == value


async def test_fifty_megabytes_are_refused_before_any_write(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    task = runner.task(take_any)
    with pytest.raises(PayloadTooLarge, match=r"'take_any' take 50,000,006 bytes, over max_payload=1,000,000"):
        await task.dispatch("x" * 50_000_000)
    assert [key async for key in redis_client.scan_iter(match=f"*{keys.prefix}*")] == []


async def test_the_limit_itself_is_allowed(make_runner: MakeRunner) -> None:
    runner = make_runner(max_payload=100)
    task = runner.task(take_any)
    size = 100 - len(orjson.dumps([[""]]))
    async with runner.start():
        assert await (await task.dispatch("x" * size)).result(timeout=10) == "x" * size
        with pytest.raises(PayloadTooLarge):
            await task.dispatch("x" * (size + 1))


async def test_a_payload_that_is_refused_does_not_disturb_those_dispatched_with_it(runner: TaskRunner) -> None:
    task = runner.task(take_any)
    async with runner.start():
        values: list[Any] = [1, b"raw", 2, NAN, 3]
        jobs = await asyncio.gather(*(task.dispatch(value) for value in values), return_exceptions=True)
        assert [type(job).__name__ for job in jobs] == ["Job", "PayloadError", "Job", "PayloadError", "Job"]
        for job, value in zip(jobs[::2], values[::2], strict=True):
            assert not isinstance(job, BaseException)
            assert await job.result(timeout=10) == value


@pytest.mark.parametrize(
    "headers",
    [{"a": 1}, {1: "a"}, "a", ["a"], {"a": "\ud800"}, {"a": "x" * 10_000}, {"x" * 10_000: "a"}, None],
    ids=lambda value: ascii(value)[:20],
)
def test_headers_that_can_not_travel_are_refused_at_once(runner: TaskRunner, headers: Any) -> None:
    with pytest.raises(TaskOptionError, match="headers must"):
        runner.declare("work").with_options(headers=headers)

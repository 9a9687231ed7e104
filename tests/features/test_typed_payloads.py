"""Arguments arrive as the types that the signature asks for; what doesn't fit is refused before anything is written."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio

from taskrunner import JobFailed, PayloadError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.features import payload_types as types
from tests.features.payload_types import Colour, Item, Level, Model, Order, Struct

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def order() -> Order:
    inner = Order(uuid4(), NOW, [Item("part", 1.0)])
    return Order(uuid4(), NOW, [Item("a", 1.5, Colour.BLUE)], {"b": Item("b", 2.0)}, Item("c", 3.0), [inner])


async def echo(runner: TaskRunner, function: Any, *args: Any, **kwargs: Any) -> Any:
    task = runner.task(function)
    async with runner.start():
        return await (await task.dispatch(*args, **kwargs)).result(timeout=10)


async def test_a_nested_dataclass_arrives_as_it_was(runner: TaskRunner) -> None:
    sent = order()
    assert await echo(runner, types.take_order, sent) == sent


async def test_a_mapping_is_as_good_as_the_dataclass(runner: TaskRunner) -> None:
    sent = order()
    assert await echo(runner, types.take_order, asdict(sent)) == sent


async def test_a_pydantic_model_arrives_as_it_was(runner: TaskRunner) -> None:
    sent = Model(number=1, inner=Model(number=2, when=NOW))
    assert await echo(runner, types.take_model, sent) == sent


async def test_what_a_pydantic_model_would_accept_is_accepted(runner: TaskRunner) -> None:
    assert await echo(runner, types.take_model, {"number": "7"}) == Model(number=7)


async def test_a_msgspec_struct_arrives_as_it_was(runner: TaskRunner) -> None:
    assert await echo(runner, types.take_struct, Struct(1, ["a"])) == Struct(1, ["a"])


async def test_simple_types_arrive_as_what_they_are(runner: TaskRunner) -> None:
    args = (NOW, date(2030, 1, 2), time(3, 4), uuid4(), Colour.RED, Level.LOW, Decimal("1.10"))
    names = ["datetime", "date", "time", "UUID", "Colour", "Level", "Decimal", "Decimal('1.10')"]
    assert await echo(runner, types.take_simple, *args) == names


async def test_a_datetime_where_a_date_is_asked_for_arrives_as_its_date(runner: TaskRunner) -> None:
    args = (NOW, NOW, time(3, 4), uuid4(), Colour.RED, Level.LOW, Decimal(1))
    assert (await echo(runner, types.take_simple, *args))[1] == "date"


async def test_their_texts_are_as_good_as_the_types(runner: TaskRunner) -> None:
    args = (NOW.isoformat(), "2030-01-02", "03:04", str(uuid4()), "red", 1, "1.10")
    assert (await echo(runner, types.take_simple, *args))[-1] == "Decimal('1.10')"


async def test_types_inside_containers_are_rebuilt(runner: TaskRunner) -> None:
    item = Item("a", 1.0)
    assert await echo(runner, types.take_containers, [item], {"x": item}, item, item) == ["Item"] * 4


async def test_positional_keyword_and_further_arguments_all_arrive(runner: TaskRunner) -> None:
    item = Item("a", 1.0)
    assert await echo(runner, types.take_star, item, 1, 2, last=item, more=3) == ["Item", [1, 2], "Item", {"more": 3}]


async def test_a_plain_function_gets_its_types_too(runner: TaskRunner) -> None:
    assert await echo(runner, types.plain, order(), count=2) == "Order 2"


async def test_a_declared_task_sends_what_it_gets_and_the_worker_rebuilds_it(
    runner: TaskRunner, make_runner: Any
) -> None:
    producer = make_runner()
    producer.declare("take_order")
    runner.task(types.take_order)
    async with runner.start():
        job = await producer.dispatch("take_order", order())
        assert (await job.result(timeout=10))["items"][0]["name"] == "a"


# -- what is refused at the dispatch -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "argument"),
    [
        (types.take_order, ({"id": "no"},), "order"),
        (types.take_order, (5,), "order"),
        (types.take_order, ({**asdict(order()), "colour": 1},), "order"),
        (types.take_model, ({"number": "x"},), "model"),
        (types.take_struct, ({"number": "x"},), "struct"),
        (types.take_simple, ("no", "2030-01-02", "03:04", str(uuid4()), "red", 1, "1"), "when"),
        (types.take_simple, (NOW, "2030-01-02", "03:04", "no", "red", 1, "1"), "id"),
        (types.take_simple, (NOW, "2030-01-02", "03:04", str(uuid4()), "green", 1, "1"), "colour"),
        (types.take_containers, ([{"name": "a"}], {}, None, Item("a", 1.0)), "many"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_argument_that_does_not_fit_is_named_and_nothing_is_written(
    runner: TaskRunner,
    redis_client: redis.asyncio.Redis,
    keys: PartitionKeys,
    function: Any,
    args: Any,
    argument: str,
) -> None:
    with pytest.raises(PayloadError, match=f"argument '{argument}' of task '{function.__name__}' doesn't fit"):
        await runner.task(function).dispatch(*args)
    assert [key async for key in redis_client.scan_iter(match=f"*{keys.prefix}*")] == []


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((), {}, "missing a required argument: 'order'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"wrong": 1}, "unexpected keyword argument 'wrong'"),
        ((1,), {"order": 1}, "multiple values"),
    ],
    ids=["missing", "too many", "unknown", "twice"],
)
async def test_a_call_that_the_signature_does_not_take_is_refused(
    runner: TaskRunner, args: Any, kwargs: Any, complaint: str
) -> None:
    with pytest.raises(PayloadError, match=complaint):
        await runner.task(types.plain).dispatch(*args, **kwargs)


# -- what is found out on arrival -----------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
@pytest.mark.parametrize(
    ("function", "args", "complaint"),
    [
        (types.take_model, ({"number": "x"},), "argument 'model' of task 'take_model' doesn't fit its annotation"),
        (types.take_model, (), "missing a required argument: 'model'"),
        (types.plain, (5,), "argument 'order'"),
    ],
    ids=["value", "missing", "function"],
)
async def test_what_does_not_fit_on_arrival_fails_for_good_with_no_run(
    runner: TaskRunner, make_runner: Any, function: Any, args: Any, complaint: str
) -> None:
    """A producer of another version, which doesn't know the signature."""
    producer = make_runner()
    task = producer.declare(function.__name__)
    runner.task(max_retry=5)(function)
    async with runner.start():
        job = await task.dispatch(*args)
        with pytest.raises(JobFailed, match=complaint) as failed:
            await job.result(timeout=10)
    assert (failed.value.attempts, failed.value.reason) == (1, "its arguments can't be read")
    letter = await runner.dead_letters.get(job.id)
    assert letter is not None
    assert letter.args == list(args)

"""The form of a part says how its value is read, and holds none of its arguments."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from taskrunner import Graph, TaskRunner, chain, group
from taskrunner.form import UNKNOWN, Form, form_of
from taskrunner.workflow import Part

runner = TaskRunner("redis://127.0.0.1:1")


@runner.task
async def price(item: Any = None) -> Decimal:
    return Decimal(1)


@runner.task
async def plain(item: Any = None) -> Any:
    return item


def read(part: Part, value: Any) -> Any:
    def as_bytes(one: Any) -> Any:
        return [as_bytes(n) for n in one] if isinstance(one, list) else one and json.dumps(one).encode()

    return form_of(part).read(as_bytes(value), json.loads)


def test_the_value_of_a_job_is_read_as_what_its_task_returns() -> None:
    assert read(price.job(), "1.50") == Decimal("1.50")
    assert read(plain.job(), "1.50") == "1.50"


def test_nothing_and_what_is_not_known_are_none() -> None:
    assert form_of(price.job()).read(b"", json.loads) is None
    assert form_of(price.job()).read(b"null", json.loads) is None


def test_a_chain_is_read_as_its_last_step_also_when_that_ends_a_chain_within() -> None:
    assert read(chain(plain.job(), chain(plain.job(), price.job())), "2") == Decimal(2)
    assert read(chain(price.job(), group(plain.job(), price.job())), ["2", "2"]) == ["2", Decimal(2)]


def test_a_group_and_a_graph_are_read_member_by_member() -> None:
    graph = Graph()
    graph.add(plain.job())
    graph.add(group(price.job()))
    assert read(graph, ["1", ["2"]]) == ["1", [Decimal(2)]]
    assert read(group.map(price, range(3)), ["1", "2", "3"]) == [Decimal(1), Decimal(2), Decimal(3)]


def test_without_a_form_values_are_plain_data() -> None:
    assert UNKNOWN.read([b'"1"', [b'"2"'], b""], json.loads) == ["1", ["2"], None]


def test_members_of_one_task_share_their_form() -> None:
    forms = form_of(group(*(price.job(n) for n in range(100)), price.with_options(id="mine").job())).members
    assert forms is not None
    assert len(set(map(id, forms))) == 2
    assert forms[-1].id == "mine"


def test_parts_may_be_nested_deeper_than_functions() -> None:
    part: Any = group(price.job())
    for _ in range(5_000):
        part = group(part)
    form: Form = form_of(part)
    for _ in range(5_001):
        form = form.of(0)
    assert form.origin is not None

"""Converters, signatures and the packing of arguments, without a server."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Optional, Union
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner import JobContext, PayloadError
from taskrunner.payload import JSON, Packer, Signature, converter
from tests.features.payload_types import Colour, Item, Model, Struct

PLAIN = [
    int,
    str,
    float,
    bool,
    list,
    dict,
    Any,
    list[int],
    dict[str, int],
    int | str,
    Item | Model,
    tuple[Item, ...],
    None,
]


@pytest.mark.parametrize("hint", PLAIN, ids=str)
def test_plain_data_needs_no_converter(hint: Any) -> None:
    assert converter(hint) is None


@pytest.mark.parametrize(
    ("hint", "plain", "value"),
    [
        (Item, {"name": "a", "price": 1.0, "colour": "blue"}, Item("a", 1.0, Colour.BLUE)),
        (Item | None, None, None),
        (Optional[Item], {"name": "a", "price": 1.0}, Item("a", 1.0)),  # noqa: UP045 - the old way of writing it too
        (Union[Item, None], {"name": "a", "price": 1.0}, Item("a", 1.0)),  # noqa: UP007
        (list[Item], [{"name": "a", "price": 1.0}], [Item("a", 1.0)]),
        (dict[str, Item], {"k": {"name": "a", "price": 1.0}}, {"k": Item("a", 1.0)}),
        (list[list[UUID]], [[str(UUID(int=1))]], [[UUID(int=1)]]),
        (Annotated[UUID, "note"], str(UUID(int=1)), UUID(int=1)),
        (Model, {"number": 1}, Model(number=1)),
        (Struct, {"number": 1}, Struct(1)),
        (Colour, "red", Colour.RED),
        (Decimal, "1.50", Decimal("1.50")),
        (datetime, "2030-01-02T03:04:05+00:00", datetime.fromisoformat("2030-01-02T03:04:05+00:00")),
        (date, "2030-01-02", date(2030, 1, 2)),
        (time, "03:04", time(3, 4)),
    ],
    ids=str,
)
def test_a_converter_makes_the_type_and_lets_through_what_has_it(hint: Any, plain: Any, value: Any) -> None:
    convert = converter(hint)
    assert convert is not None
    assert convert(plain) == value
    assert convert(value) == value
    assert JSON().loads(JSON().dumps(value)) is None or convert(JSON().loads(JSON().dumps(value))) == value


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        (Item, 5),
        (Item, {"name": "a", "price": 1, "size": 2}),
        (Item, {"name": "a"}),
        (Colour, "green"),
        (UUID, "x"),
        (Model, {"number": "x"}),
        (Struct, {"number": "x"}),
        (datetime, "soon"),
        (list[Item], 5),
        (date, 5),
    ],
    ids=str,
)
def test_a_converter_refuses_what_does_not_fit(hint: Any, wrong: Any) -> None:
    convert = converter(hint)
    assert convert is not None
    with pytest.raises((TypeError, ValueError, KeyError)):
        convert(wrong)


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
)


@given(values)
def test_json_carries_plain_data_unchanged(value: Any) -> None:
    assert JSON().loads(JSON().dumps(value)) == value


@dataclass
class Odd:
    value: Any


@given(st.sampled_from([float("nan"), float("inf"), -float("inf")]), st.integers(0, 5))
def test_json_refuses_odd_numbers_wherever_they_hide(number: float, depth: int) -> None:
    value: Any = number
    for wrap in (lambda v: [v], lambda v: {"k": v}, lambda v: (1, v), Odd, lambda v: [None, v])[:depth]:
        value = wrap(value)
    with pytest.raises(ValueError, match="NaN and infinity"):
        JSON().dumps(value)


# -- signatures ---------------------------------------------------------------------------------------------------


def packer(function: Any) -> Packer:
    return Packer("task", Signature(function, JobContext), JSON(), 1000)


async def several(ctx: JobContext, a: int, /, b: int = 2, *rest: int, c: int, **more: int) -> None: ...


def test_the_context_is_no_part_of_the_signature() -> None:
    signature = Signature(several, JobContext)
    assert signature.takes_context
    assert list(signature.signature.parameters) == ["a", "b", "rest", "c", "more"]


def test_a_context_in_a_quoted_annotation_is_known_too() -> None:
    async def quoted(ctx: "JobContext", other: "Unknown") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    signature = Signature(quoted, JobContext)
    assert signature.takes_context
    assert signature.converters == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "packed"),
    [
        ((1,), {"c": 3}, b'[[1],{"c":3}]'),
        ((1, 2, 3), {"c": 3, "d": 4}, b'[[1,2,3],{"c":3,"d":4}]'),
    ],
)
def test_arguments_are_packed_as_they_are_written(args: Any, kwargs: Any, packed: bytes) -> None:
    assert packer(several).pack(args, kwargs) == packed


@pytest.mark.parametrize(("args", "kwargs"), [((), {"c": 1}), ((1,), {}), ((), {"a": 1, "c": 2})])
def test_what_the_signature_does_not_take_is_refused(args: Any, kwargs: Any) -> None:
    with pytest.raises(PayloadError, match="can't be called like this"):
        packer(several).pack(args, kwargs)


def test_each_of_the_remaining_arguments_has_the_type_of_their_annotation() -> None:
    async def many(*rest: UUID, **more: UUID) -> None: ...

    one, two = UUID(int=1), UUID(int=2)
    packed = packer(many).pack((one, str(two)), {"more": str(one)})
    assert packed == JSON().dumps([[one, two], {"more": one}])
    args, kwargs = JSON().loads(packed)
    assert Signature(many, JobContext).rebuild(args, kwargs, "task") == ((one, two), {"more": one})
    with pytest.raises(PayloadError, match="argument 'rest' of task 'task' doesn't fit its annotation"):
        packer(many).pack(("no uuid",), {})


def test_a_call_without_arguments_is_the_shortest_payload() -> None:
    async def nothing() -> None: ...

    assert packer(nothing).pack((), {}) == b"[[]]"
    assert Packer("task", None, JSON(), 1000).pack((), {}) == b"[[]]"


async def keyed(a: int, b: int = 2, *, c: Any = None) -> None: ...


@given(st.permutations(["a", "b", "c"]), st.integers(0, 2))
def test_equal_calls_have_one_canonical_form(order: list[str], positional: int) -> None:
    values: dict[str, Any] = {"a": 1, "b": 2, "c": {"y": 1, "x": 2}}
    args = tuple(values[name] for name in ("a", "b")[:positional])
    kwargs = {name: values[name] for name in order if name not in ("a", "b")[:positional]}
    assert packer(keyed).canonical(args, kwargs) == packer(keyed).canonical((1,), {"c": {"x": 2, "y": 1}})


def test_different_calls_have_different_canonical_forms() -> None:
    calls: list[tuple[Any, Any]] = [
        ((1,), {}),
        ((2,), {}),
        (("1",), {}),
        ((1, 3), {}),
        ((1,), {"c": 0}),
        ((1,), {"c": ""}),
    ]
    assert len({packer(keyed).canonical(*call) for call in calls}) == len(calls)


def test_a_field_that_a_dataclass_fills_itself_travels_and_is_made_again() -> None:
    convert = converter(Derived)
    assert convert is not None
    assert convert({"a": 2, "double": 99}) == Derived(2)
    assert dataclasses.asdict(convert({"a": 2})) == {"a": 2, "double": 4}


@dataclass
class Derived:
    a: int
    double: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.double = 2 * self.a

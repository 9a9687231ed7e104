"""Keys made of arguments: the same for equal calls, however they are written, and refused as early as can be known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from taskrunner import JobContext, PayloadError, TaskOptionError
from taskrunner.payload import Signature
from taskrunner.template import LIMIT, Parameters, checked, key_of


@dataclass
class Order:
    customer: str
    _secret: str = "hidden"


def simple(user_id: int, region: str = "eu") -> None: ...
def only_positional(user_id: int, region: str = "eu", /) -> None: ...
def only_named(*, user_id: int, region: str = "eu") -> None: ...
def many(first: int, *rest: int) -> None: ...
def open_ended(user_id: int, **others: Any) -> None: ...
def ordered(order: Order) -> None: ...
def identified(id: UUID) -> None: ...
def in_context(ctx: JobContext, user_id: int) -> None: ...
def nothing() -> None: ...


def parameters(function: Callable[..., Any]) -> Parameters:
    signature = Signature(function, JobContext)
    return Parameters(signature.signature, signature.converters)


def made(template: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return key_of(checked(template, "lock_key"), "lock_key of task 'work'", parameters(function))(args, kwargs)


def test_an_argument_is_found_however_it_is_given() -> None:
    assert made("user:{user_id}", simple, 7) == made("user:{user_id}", simple, user_id=7) == "user:7"
    assert made("{region}/{user_id}", simple, 7, "us") == made("{region}/{user_id}", simple, region="us", user_id=7)
    assert made("{user_id}", only_positional, 7) == made("{user_id}", only_named, user_id=7) == "7"


@pytest.mark.parametrize("function", [simple, only_positional, only_named])
def test_an_argument_that_is_not_given_has_its_default(function: Callable[..., Any]) -> None:
    given: Any = {"user_id": 7} if function is only_named else {}
    assert made("{region}", function, *(() if given else (7,)), **given) == "eu"


def test_the_rest_of_the_arguments_can_be_told_apart() -> None:
    assert made("{rest[0]}", many, 1, 2, 3) == "2"
    assert made("{rest}", many, 1, 2, 3) == "(2, 3)"


def test_each_of_the_rest_has_its_type() -> None:
    def work(*ids: UUID) -> None: ...

    text = "12345678-1234-5678-1234-56781234567a"
    assert made("{ids[0]}", work, text.upper()) == made("{ids[0]}", work, UUID(text)) == text


def test_the_context_is_no_argument() -> None:
    assert made("{user_id}", in_context, 7) == "7"
    with pytest.raises(TaskOptionError, match="names 'ctx'"):
        made("{ctx}", in_context, 7)


@pytest.mark.parametrize(
    ("template", "order", "key"),
    [
        ("{order.customer}", Order("ann"), "ann"),
        ("{order[customer]}", {"customer": "ann"}, "ann"),
        ("{order[0]}", ["ann"], "ann"),
        ("{order[a b].customer}", {"a b": Order("ann")}, "ann"),
        ("{order:>5}", "ann", "  ann"),
        ("{order!r}", "ann", "'ann'"),
        ("{order!s:_<5}", "ann", "ann__"),
        ("{order:,}", 1234567, "1,234,567"),
        ("{{{order}}}", "ann", "{ann}"),
        ("{order}:{order}", "ann", "ann:ann"),
        ("{order}", "{ann}", "{ann}"),
        ("é{order}漢", "\U0001f600", "é\U0001f600漢"),
        ("the one", 1, "the one"),
        ("{{order}}", 1, "{order}"),
    ],
)
def test_what_a_template_comes_to(template: str, order: Any, key: str) -> None:
    def take(order: Any) -> None: ...

    assert made(template, take, order) == key


def test_a_typed_argument_makes_the_same_key_as_what_it_is_built_from() -> None:
    text = "12345678-1234-5678-1234-567812345678"
    assert made("{id}", identified, text.upper()) == made("{id}", identified, UUID(text)) == text
    assert made("{order.customer}", ordered, {"customer": "ann"}) == made("{order.customer}", ordered, Order("ann"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{user}", ["names 'user'", "use one of user_id, region"]),
        ("{user_id}{x}", ["names 'x'", "use one of user_id, region"]),
        ("{}", ["names no argument", "use its name"]),
        ("{0}", ["names no argument", "use its name"]),
        ("{user_id.}", ["names no argument"]),
        ("{user_id[}", ["can't be read"]),
        ("{user id}", ["names no argument"]),
        ("{.x}", ["names no argument"]),
        ("{user_id._secret}", ["private"]),
        ("{user_id.real.__class__}", ["private"]),
        ("{user_id[0]._x}", ["private"]),
        ("{user_id:{region}}", ["format"]),
        ("{user_id!x}", ["format"]),
        ("{user_id", ["can't be read", "use {{ for a brace"]),
        ("user_id}", ["can't be read", "use {{ for a brace"]),
        ("{", ["can't be read"]),
    ],
)
def test_a_template_that_can_not_be_filled_in_is_refused_before_there_is_a_job(template: str, words: list[str]) -> None:
    with pytest.raises(TaskOptionError) as refused:
        key_of(checked(template, "lock_key"), "lock_key of task 'work'", parameters(simple))
    text = str(refused.value)
    assert text.startswith("lock_key of task 'work': ")
    assert [word for word in [*words, template] if word not in text] == [], text


def test_a_task_without_arguments_is_told_so() -> None:
    with pytest.raises(TaskOptionError, match=r"names 'user_id', .* it takes none, so use a text without braces"):
        made("{user_id}", nothing)


@pytest.mark.parametrize("template", ["", "x" * (LIMIT + 1), "\ud800", 5, b"key", ["key"], True, None], ids=ascii)
def test_what_is_no_template_is_refused(template: Any) -> None:
    with pytest.raises(TaskOptionError, match=r"^lock_key must be a template like 'user:\{user_id\}'") as refused:
        checked(template, "lock_key")
    assert len(str(refused.value)) < 400, "it may be long, its message may not"


# -- open signatures -----------------------------------------------------------------------------------------------


def test_a_name_that_the_function_takes_with_others_is_looked_for_in_each_dispatch() -> None:
    assert made("{shop}", open_ended, 7, shop="s") == "s"
    with pytest.raises(PayloadError, match=r"^lock_key of task 'work': '\{shop\}' needs the argument 'shop'"):
        made("{shop}", open_ended, 7)


def test_the_mapping_of_the_others_is_no_argument_itself() -> None:
    with pytest.raises(TaskOptionError, match="use the name of the argument in it itself"):
        made("{others[shop]}", open_ended, 7, shop="s")


def test_without_a_function_names_are_those_of_keywords() -> None:
    key = key_of("user:{user_id}", "lock_key of task 'work'", None)
    assert key((), {"user_id": 7}) == "user:7"
    with pytest.raises(PayloadError, match="needs the argument 'user_id'; give it by name"):
        key((7,), {})


# -- what a dispatch gives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "order"),
    [("{order.nothing}", "x"), ("{order[nothing]}", {}), ("{order[0]}", []), ("{order:d}", "x"), ("{order.a.b}", None)],
)
def test_arguments_that_do_not_fit_the_template_are_refused(template: str, order: Any) -> None:
    def take(order: Any) -> None: ...

    with pytest.raises(PayloadError, match=r"^lock_key of task 'work': .* can't be filled in from these arguments: "):
        made(template, take, order)


@pytest.mark.parametrize(
    "key", ["", "x" * (LIMIT + 1), "x" * 1_000_000, "\ud800", "a\udfffb"], ids=lambda key: ascii(key)[:10]
)
def test_a_key_that_can_not_be_is_refused_whether_a_template_or_a_function_made_it(key: str) -> None:
    def take(order: Any) -> None: ...

    for template in ("{order}", lambda order: order):
        with pytest.raises(PayloadError, match=r"^lock_key of task 'work' must be 1 to 1,000 characters") as refused:
            made(template, take, key)
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("key", [5, None, b"key", ["key"], True], ids=repr)
def test_a_function_must_return_a_string(key: Any) -> None:
    with pytest.raises(PayloadError, match=r"^lock_key of task 'work' must return a string, not "):
        made(lambda n: key, simple, 7)


def test_a_function_gets_the_arguments_as_they_were_given() -> None:
    assert made(lambda *args, **kwargs: f"{args} {kwargs}", simple, 7, region="us") == "(7,) {'region': 'us'}"


def test_the_error_of_a_function_is_its_own() -> None:
    with pytest.raises(ZeroDivisionError):
        made(lambda n: str(1 // n), simple, 0)


@pytest.mark.parametrize(
    "key", ["x", "x" * LIMIT, "\x00", " ", "é漢\U0001f600", "a\nb"], ids=lambda key: ascii(key)[:10]
)
def test_any_other_text_is_a_key(key: str) -> None:
    assert made("{user_id}", simple, key) == key


def test_signatures_are_read_once_and_not_at_each_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of("{user_id}:{region}", "lock_key", parameters(simple))

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(inspect.Signature, "bind", never)
    monkeypatch.setattr(inspect, "signature", never)
    assert key((7,), {}) == "7:eu"

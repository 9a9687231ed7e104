"""Templates: the key of a job, made of its arguments: ``"user:{user_id}"`` or ``"{order.customer}"``.

A template is read once, when its task is registered or its options are given, and every name in it is looked for among
the parameters then. What is left for each dispatch is to pick the values and to format them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from string import Formatter
from typing import Any, NamedTuple

from .errors import PayloadError, TaskOptionError

LIMIT = 1_000
"""Characters of a key, and of a template."""

FIELD = re.compile(r"(?P<name>[^\W\d]\w*)(?P<path>(\.[^\W\d]\w*|\[[^\[\]{}]+\])*)")
"""An argument, and how to get from it to what is meant."""

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
Pick = Callable[[Args, Kwargs], Any]
Key = Callable[[Args, Kwargs], str]
"""The key of a job with these arguments. Raises PayloadError for one that can't be."""


class Parameters(NamedTuple):
    """What a task takes, apart from its context; and what turns plain data into the types that it asks for."""

    signature: Signature
    converters: Mapping[str, Callable[[Any], Any]]


class _Missing(Exception):
    """An argument that the template names was not given."""


def checked(value: Any, what: str) -> Any:
    """A template or a function, or TaskOptionError. Which names there are is not known yet."""
    if callable(value):
        return value
    if not isinstance(value, str) or not 0 < len(value) <= LIMIT or not _is_unicode(value):
        raise TaskOptionError(
            f"{what} must be a template like 'user:{{user_id}}', of 1 to {LIMIT:,} characters of valid Unicode, "
            f"or a function of the arguments, not {_shown(value)}"
        )
    return str.__str__(value)


def key_of(value: Any, what: str, parameters: Parameters | None) -> Key:
    """What makes the key of a job: of a template or a function.

    ``what`` begins each message, e.g. ``lock_key of task 'charge'``. Without ``parameters`` (a task that is only
    declared) names are those of keyword arguments. Raises TaskOptionError for a template that can't be filled in.
    """
    return _called(value, what) if callable(value) else _filled(value, what, parameters)


def sound(key: Any, what: str) -> str:
    """A key that was made of arguments. Raises PayloadError for one that is empty, too long or no string."""
    if not isinstance(key, str):
        raise PayloadError(f"{what} must return a string, not {_shown(key)}")
    if not 0 < len(key) <= LIMIT or not _is_unicode(key):
        raise PayloadError(f"{what} must be 1 to {LIMIT:,} characters of valid Unicode, not {_shown(key)}")
    return key


def _is_unicode(text: str) -> bool:
    """Lone surrogates can't travel."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}… ({len(text):,} characters)"


def _called(function: Callable[..., Any], what: str) -> Key:
    return lambda args, kwargs: sound(function(*args, **kwargs), what)


def _filled(template: str, what: str, parameters: Parameters | None) -> Key:
    """The template as one that takes values by their numbers, and what picks these."""
    shape, picks = "", list[Pick]()
    for literal, field, spec, conversion in _pieces(template, what):
        shape += literal.replace("{", "{{").replace("}", "}}")
        if field is None:
            continue
        name, path = _field(field, template, what)
        if "{" in (spec or "") or conversion not in (None, "r", "s", "a"):
            raise TaskOptionError(
                f"{what}: the format of {{{field}}} in {template!r} can't be used; give one like {{{name}:>8}}"
            )
        rest = path + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        shape += f"{{{len(picks)}{rest}}}"
        picks.append(_pick(name, template, what, parameters))
    if not picks:
        constant = shape.format()
        return lambda args, kwargs: constant
    return _format(shape.format, picks, template, what)


def _format(fill: Callable[..., str], picks: list[Pick], template: str, what: str) -> Key:
    first, single = picks[0], len(picks) == 1

    def key(args: Args, kwargs: Kwargs) -> str:
        try:
            made = fill(first(args, kwargs)) if single else fill(*[pick(args, kwargs) for pick in picks])
        except _Missing as error:
            raise PayloadError(f"{what}: {template!r} needs the argument {error.args[0]!r}; give it by name") from None
        except Exception as error:
            raise PayloadError(f"{what}: {template!r} can't be filled in from these arguments: {error!r}") from None
        return sound(made, what)

    return key


def _pieces(template: str, what: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise TaskOptionError(f"{what}: {template!r} can't be read: {error}; use {{{{ for a brace") from None


def _field(field: str, template: str, what: str) -> tuple[str, str]:
    """The argument that a field names, and the way from there."""
    found = FIELD.fullmatch(field)
    if found is None:
        raise TaskOptionError(
            f"{what}: {{{field}}} in {template!r} names no argument; use its name, like {{user_id}} or "
            "{order.customer}, and {{ for a brace"
        )
    if re.search(r"\._", found["path"]):
        raise TaskOptionError(f"{what}: {{{field}}} in {template!r} is private; use a public attribute")
    return found["name"], found["path"]


def _pick(name: str, template: str, what: str, parameters: Parameters | None) -> Pick:
    """What gets the argument of this name, however it is given."""
    if parameters is None:
        return _by_name(name, Parameter.empty)
    known = parameters.signature.parameters
    more = any(one.kind is Parameter.VAR_KEYWORD for one in known.values())
    found = known.get(name)
    if found is None and more:
        return _by_name(name, Parameter.empty)
    if found is None or found.kind is Parameter.VAR_KEYWORD:
        names = [one.name for one in known.values() if one.kind is not Parameter.VAR_KEYWORD]
        remedy = f"use one of {', '.join(names)}" if names else "it takes none, so use a text without braces"
        if found is not None:
            remedy = "use the name of the argument in it itself"
        raise TaskOptionError(f"{what}: {template!r} names {name!r}, which is no argument of the task; {remedy}")
    pick = _by_name(name, found.default)
    if found.kind is not Parameter.KEYWORD_ONLY:
        position = list(known).index(name)
        pick = _rest(position) if found.kind is Parameter.VAR_POSITIONAL else _by_place(position, name, found.default)
    convert = parameters.converters.get(name)
    return pick if convert is None else _converted(pick, convert)


def _by_name(name: str, default: Any) -> Pick:
    def pick(args: Args, kwargs: Kwargs) -> Any:
        value = kwargs.get(name, default)
        if value is Parameter.empty:
            raise _Missing(name)
        return value

    return pick


def _by_place(position: int, name: str, default: Any) -> Pick:
    named = _by_name(name, default)
    return lambda args, kwargs: args[position] if position < len(args) else named(args, kwargs)


def _rest(position: int) -> Pick:
    return lambda args, kwargs: args[position:]


def _converted(pick: Pick, convert: Callable[[Any], Any]) -> Pick:
    # Equal jobs have equal keys, whether a UUID or its text was given.
    return lambda args, kwargs: convert(pick(args, kwargs))

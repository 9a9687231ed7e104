"""Arguments and results as bytes, and back as the types that a task's signature asks for.

On the wire a payload is ``[args]`` or ``[args, kwargs]``, made by the serializer, by default JSON.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

import orjson

from .errors import PayloadError, PayloadTooLarge
from .template import Parameters

Convert = Callable[[Any], Any]
Args = tuple[Any, ...]


class Serializer(Protocol):
    """What ``TaskRunner(serializer=…)`` takes. ``dumps`` raises anything for a value that it can't write."""

    def dumps(self, value: Any) -> bytes: ...

    def loads(self, data: bytes) -> Any: ...


def arguments(data: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments that stood in a payload, which is a stranger's until somebody has looked. Raises PayloadError."""
    args, *rest = data
    kwargs: dict[str, Any] = rest[0] if rest else {}
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise PayloadError("they are no list of arguments with a mapping of keywords")
    return args, kwargs


class JSON:
    """The default: JSON by orjson, with datetime, UUID, dataclasses, enums, pydantic models and msgspec structs."""

    def dumps(self, value: Any) -> bytes:
        data = orjson.dumps(value, default=_plain)
        # orjson writes NaN and infinity as null: a number would be lost without a word.
        if b"null" in data and _has_odd_number(value):
            raise ValueError("NaN and infinity are no JSON numbers")
        return data

    def loads(self, data: bytes) -> Any:
        return orjson.loads(data)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(type(value), "__struct_fields__"):
        import msgspec

        return msgspec.to_builtins(value)
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _has_odd_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_odd_number(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return any(_has_odd_number(one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_has_odd_number(getattr(value, field.name)) for field in dataclasses.fields(value))
    if hasattr(value, "model_dump") or hasattr(type(value), "__struct_fields__"):
        return _has_odd_number(_plain(value))
    return False


# -- rebuilding types ----------------------------------------------------------------------------------------


def converter(hint: Any) -> Convert | None:
    """What turns plain data into the annotated type, or None when plain data is what the annotation means.

    It passes through what already has the type, and raises for what doesn't fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _class_converter(hint) if isinstance(hint, type) else None
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in arguments if one is not type(None)]
        return _optional(converter(rest[0])) if len(rest) == 1 else None
    if origin is list and arguments:
        return _list_of(converter(arguments[0]))
    if origin is dict and len(arguments) == 2:
        return _dict_of(converter(arguments[1]))
    return converter(arguments[0]) if origin is typing.Annotated else None


def _optional(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda value: None if value is None else inner(value)


def _list_of(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda value: [inner(one) for one in value]


def _dict_of(inner: Convert | None) -> Convert | None:
    return None if inner is None else lambda value: {key: inner(one) for key, one in value.items()}


def _class_converter(kind: type) -> Convert | None:
    if hasattr(kind, "model_validate"):
        return lambda value: value if isinstance(value, kind) else kind.model_validate(value)
    if hasattr(kind, "__struct_fields__"):
        import msgspec

        return lambda value: value if isinstance(value, kind) else msgspec.convert(value, kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    if issubclass(kind, Enum) or kind in (UUID, Decimal):
        return lambda value: value if isinstance(value, kind) else kind(value)
    if kind is date:
        return lambda value: value.date() if isinstance(value, datetime) else _date(value)
    if kind in (datetime, time):
        return lambda value: value if isinstance(value, kind) else kind.fromisoformat(value)
    return None


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _dataclass_converter(kind: type) -> Convert:
    inner: dict[str, Convert] = {}
    known: set[str] = set()
    derived: set[str] = set()  # fields that the class itself fills: they travel, and are made again

    def learn() -> None:  # late: a dataclass may name itself, or one that is defined after it
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if not field.init:
                derived.add(field.name)
            else:
                known.add(field.name)
                convert = rebuild if hints[field.name] is kind else converter(hints[field.name])
                if convert is not None:
                    inner[field.name] = convert

    def rebuild(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is made from a mapping, not from {type(value).__name__}")
        if not known:
            learn()
        unknown = sorted(set(value) - known - derived)
        if unknown:
            raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
        given = {name: one for name, one in value.items() if name in known}
        return kind(**{name: inner[name](one) if name in inner else one for name, one in given.items()})

    return rebuild


# -- signatures ----------------------------------------------------------------------------------------------


class Signature:
    """The parameters of a task, without the context, and what turns their plain data into their types."""

    def __init__(self, function: Callable[..., Any], context: type) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        try:
            hints = typing.get_type_hints(function)
        except Exception:
            hints = {}  # an annotation that can't be resolved here; the parameter then takes plain data
        first = parameters[0] if parameters else None
        self.takes_context = first is not None and _is_context(hints.get(first.name, first.annotation), context)
        own = parameters[1:] if self.takes_context else parameters
        self.signature = inspect.Signature(own)
        self.converters = {one.name: c for one in own if (c := _of(one, hints.get(one.name))) is not None}
        self.result = converter(hints.get("return"))
        positional = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._names = tuple(p.name for p in positional)
        self._required = sum(p.default is p.empty for p in positional)
        plain = all(p.kind is not p.KEYWORD_ONLY or p.default is not p.empty for p in own)
        many = any(p.kind is p.VAR_POSITIONAL for p in own)
        self._most = math.inf if many else len(positional)
        self._quick = plain and not self.converters

    def check(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], task: str
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they may travel. Raises PayloadError for what the task would not take."""
        if not kwargs and self._quick and self._required <= len(args) <= self._most:
            return args, {}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise PayloadError(f"task {task!r} can't be called like this: {error}") from None
        if self.converters:
            for name, convert in self.converters.items():
                if name in bound.arguments:
                    bound.arguments[name] = _converted(convert, bound.arguments[name], name, task)
            return bound.args, bound.kwargs
        return args, dict(kwargs)

    def rebuild(self, args: list[Any], kwargs: dict[str, Any], task: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that arrived, as the types that the signature asks for."""
        bound = self.signature.bind(*args, **kwargs)
        for name, convert in self.converters.items():
            if name in bound.arguments:
                bound.arguments[name] = _converted(convert, bound.arguments[name], name, task)
        return bound.args, bound.kwargs

    def canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """One form for equal calls, however they are written."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def name_of(self, position: int) -> str:
        return self._names[position] if position < len(self._names) else f"number {position + 1}"


def _of(parameter: inspect.Parameter, hint: Any) -> Convert | None:
    """What converts the value of a parameter: of ``*rest`` and ``**rest`` the annotation is that of each."""
    inner = converter(hint)
    if inner is None or parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return inner
    return _dict_of(inner) if parameter.kind is parameter.VAR_KEYWORD else lambda values: tuple(map(inner, values))


def _is_context(hint: Any, context: type) -> bool:
    return hint is context or (isinstance(hint, str) and hint.strip("'\"").rpartition(".")[2] == context.__name__)


def _converted(convert: Convert, value: Any, name: str, task: str) -> Any:
    try:
        return convert(value)
    except Exception as error:
        raise PayloadError(f"argument {name!r} of task {task!r} doesn't fit its annotation: {error}") from None


def pack_value(serializer: Serializer, value: Any, limit: int, what: str, remedy: str) -> bytes:
    """A value as bytes. Raises PayloadError, which begins with ``what``, or PayloadTooLarge."""
    try:
        data = serializer.dumps(value)
    except Exception as error:
        raise PayloadError(f"{what} can't be kept: {error}; {remedy}") from None
    if len(data) > limit:
        size = f"takes {len(data):,} bytes, over max_payload={limit:,}"
        raise PayloadTooLarge(f"{what} {size}; store it elsewhere and keep a reference")
    return data


class Packer:
    """Packs and unpacks the arguments of one task."""

    def __init__(self, task: str, signature: Signature | None, serializer: Serializer, max_payload: int) -> None:
        self._task = task
        self._signature = signature
        self._serializer = serializer
        self._dumps = serializer.dumps
        self._max = max_payload

    @property
    def parameters(self) -> Parameters | None:
        """Those of the task's function, None where that lives elsewhere."""
        known = self._signature
        return None if known is None else Parameters(known.signature, known.converters)

    def pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Arguments as bytes. Raises PayloadError, which names the argument, or PayloadTooLarge."""
        if self._signature is not None:
            args, kwargs = self._signature.check(args, kwargs, self._task)
        try:
            data = self._dumps([args, kwargs] if kwargs else [args])
        except RecursionError:
            raise PayloadError(f"the arguments of task {self._task!r} are nested too deeply") from None
        except Exception as error:
            raise PayloadError(self._culprit(args, kwargs, error)) from None
        if len(data) > self._max:
            raise PayloadTooLarge(
                f"the arguments of task {self._task!r} take {len(data):,} bytes, over max_payload={self._max:,}; "
                "store the data elsewhere and send a reference"
            )
        return data

    def canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Equal bytes for equal calls, as far as the serializer gives equal bytes for equal data."""
        try:
            return self._canonical(args, kwargs)
        except Exception as error:
            text = f"the arguments of task {self._task!r} can't be a unique key: {error}; give unique_key"
            raise PayloadError(text) from None

    def _canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        if self._signature is None:
            return self._dumps([args, sorted(kwargs.items())])
        bound = self._signature.canonical(args, kwargs)
        if isinstance(self._serializer, JSON):
            return orjson.dumps(bound, default=_plain, option=orjson.OPT_SORT_KEYS)
        return self._dumps(sorted(bound.items()))

    def _culprit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
        named = [(self._signature.name_of(n) if self._signature else f"number {n + 1}", v) for n, v in enumerate(args)]
        for name, value in [*named, *kwargs.items()]:
            try:
                self._dumps(value)
            except Exception as own:
                return f"argument {name!r} of task {self._task!r} can't be sent: {own}"
        return f"the arguments of task {self._task!r} can't be sent: {error}"

"""Carriage: a call, its result and its error on their way to another process and back, as bytes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from .envelope import Delivery
from .outcome import Elsewhere, Failure, describe
from .procedure import Procedure


@dataclass(slots=True)
class Request:
    """A call. ``delivery`` has no arguments any more; ``previous`` is what its context gives under that name."""

    procedure: Procedure
    delivery: Delivery
    max_retry: int
    previous: Any
    takes_context: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=True)
class Returned:
    value: Any


@dataclass(slots=True)
class Unpicklable:
    """The function returned something that can't travel: why."""

    problem: str


@dataclass(slots=True)
class Raised:
    """What the function raised: as text, and as much of the error itself as can travel.

    ``error`` is the pickled error. Where that can't be, ``kind`` is its class, or the nearest base class that can be
    found by its name from outside, and ``attributes`` are what the error had, if they can travel.
    """

    failure: Failure
    error: bytes | None
    kind: type[BaseException]
    attributes: dict[str, Any]

    def rebuild(self) -> BaseException:
        """An error of the same class, with the text as its cause."""
        error: BaseException
        if self.error is not None:
            error = pickle.loads(self.error)
        else:
            # Without __init__, whose arguments nobody knows. A class that can't be found is made after its name.
            name = self.failure.error_type
            kind: Any = self.kind if self.kind.__name__ == name else type(name, (self.kind,), {})
            error = kind.__new__(kind)
            error.args = (self.failure.message,)
            error.__dict__.update(self.attributes)
        error.__cause__ = Elsewhere(self.failure)
        return error


def pack_error(error: BaseException) -> bytes:
    """An error as a pickled ``Raised``."""
    failure, same = describe(error), _there_and_back(error)
    if type(same) is type(error):
        return pickle.dumps(Raised(failure, pickle.dumps(error), Exception, {}))
    kind = next(one for one in type(error).__mro__ if _there_and_back(one) is one)
    return pickle.dumps(Raised(failure, None, kind, _there_and_back(vars(error)) or {}))


def _there_and_back(thing: Any) -> Any:
    """What comes out of a pickle of it; None if nothing: many an error goes in and can't be made of its ``args``."""
    try:
        return pickle.loads(pickle.dumps(thing))
    except Exception:
        return None


def pack_result(value: Any) -> bytes:
    """A result as a pickled ``Returned``, or ``Unpicklable``."""
    try:
        return pickle.dumps(Returned(value))
    except Exception as error:
        return pickle.dumps(Unpicklable(describe(error).message))

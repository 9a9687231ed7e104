"""The seam for features. A feature owns its options, their checks and its hooks; hooks return data and do no I/O.

When a task is registered (and once more for each different set of options given at a dispatch), every feature is asked
which hooks it takes part in. What it does not need costs nothing per job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .envelope import Delivery, Draft
from .options import Options
from .outcome import Outcome
from .template import Parameters


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its default, its check (value, its name in messages → checked value), and where it may be set.

    ``travels``: set at a dispatch, it goes along in the envelope, and the worker applies it over the task's own.
    """

    default: Any
    check: Callable[[Any, str], Any]
    on_task: bool = True
    on_dispatch: bool = True
    travels: bool = False
    to_wire: Callable[[Any], Any] = lambda value: value
    from_wire: Callable[[Any], Any] = lambda value: value


class Arguments(NamedTuple):
    """The arguments of one dispatch. ``canonical()`` gives equal bytes for equal calls, however they are written."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    canonical: Callable[[], bytes]


Fill = Callable[[Draft, Arguments, int], None]
"""Fills a draft from the arguments; the last parameter is server time in milliseconds."""
Gate = Callable[[Delivery, int], Outcome | None]
"""Looks at a delivery before it runs (server time in ms): an outcome means that it doesn't run at all. Jobs that
have no extras, or a lock and no others, are run without a look, unless the feature ``looks_at_all``."""
Call = Callable[[Delivery], Awaitable[Any]]


class Feature:
    """The hooks, each of which takes no part unless a feature says so."""

    options: Mapping[str, Option] = {}

    def on_register(self, where: str, function: Callable[..., Any], options: Options) -> None:
        """Raise TaskOptionError, which begins with ``where``, for options that don't go with this function."""

    def on_plan(self, where: str, options: Options, core: Mapping[str, Any]) -> None:
        """Raise TaskOptionError, which begins with ``where``, for options of a dispatch that don't go together.

        ``core`` are those given that are no feature's, such as ``delay``.
        """

    def keyed(self, options: Options) -> tuple[str, ...]:
        """Return the options by which a job depends on a key in the server, each on another one."""
        return ()

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        """Return what fills a draft of this task, or None. ``parameters`` is None where the function isn't known."""
        return None

    def gate(self, options: Options) -> Gate | None:
        """Return a look at the delivery before it runs, or None."""
        return None

    def looks_at_all(self, options: Options) -> bool:
        """Whether the gate may also refuse a job that has no extras, or a lock and no others."""
        return False

    def around(self, options: Options, call: Call) -> Call:
        """Return ``call``, or what is to be called in its place."""
        return call


class PackingError(Exception):
    """Arguments can't be read, or a result can't be kept: a failure that no retry mends."""

    def __init__(self, cause: Exception, reason: str) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.reason = reason


class Lapsed(Exception):
    """A run that holds seats was held up before its function was called, for so long that others may have them."""


@dataclass(slots=True)
class Recipe:
    """A task as the worker sees it: compiled once, so that a run looks nothing up.

    ``invoke`` runs it; ``judge`` turns an error into an outcome; ``pack`` a return value into bytes or PackingError;
    ``announce`` tells the hooks what happened (None: nobody listens); ``gates`` may refuse the run;
    ``ttl`` is its own ``result_ttl`` in seconds; ``hands_on``: its result is wanted though it may not be kept;
    ``straight``: no gate refuses a job that has no extras, or a lock and no others.
    """

    name: str
    options: Options
    invoke: Call
    judge: Callable[[BaseException, Delivery], Outcome]
    pack: Callable[[Any], bytes]
    announce: Callable[[str, Delivery, Outcome | None, float], Awaitable[None]] | None
    gates: tuple[Gate, ...] = ()
    ttl: float | None = None
    hands_on: bool = False
    straight: bool = True

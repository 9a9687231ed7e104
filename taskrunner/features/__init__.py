"""Features: one module each. Removing a module and its line here removes the feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import TaskOptionError
from ..feature import Feature, Option
from ..options import Options
from .backpressure import Backpressure
from .callbacks import Callbacks
from .concurrency import Concurrency
from .expiry import Expiry
from .limits import Limits
from .locks import Locks
from .pools import Pools
from .priority import Priority
from .results import Results
from .retries import Retries
from .timeouts import Timeouts
from .unique import Unique

FEATURES: tuple[Feature, ...] = (
    Unique(),
    Locks(),  # before the limits: needs are taken in this order
    Limits(),
    Expiry(),
    Results(),
    Retries(),
    Timeouts(),
    Callbacks(),
    Pools(),
    Priority(),
    Concurrency(),
    Backpressure(),
)

OPTIONS: dict[str, Option] = {name: option for feature in FEATURES for name, option in feature.options.items()}

DEFAULTS = Options({name: option.default for name, option in OPTIONS.items()})


def choose(base: Options, given: Mapping[str, Any], where: str, *, dispatch: bool) -> Options:
    """``base`` with the options ``given`` over it, each checked.

    Raises TaskOptionError for an unknown option, one that can't be set here, or a wrong value. ``where`` begins the
    message, e.g. ``task 'charge'``.
    """
    values = dict(base.checked)
    for name, value in given.items():
        option = OPTIONS.get(name)
        if option is None or not (option.on_dispatch if dispatch else option.on_task):
            allowed = sorted(n for n, o in OPTIONS.items() if (o.on_dispatch if dispatch else o.on_task))
            raise TaskOptionError(f"{where}: there is no option {name!r} here; there are {', '.join(allowed)}")
        values[name] = option.check(value, f"{where}: {name}")
    return Options(values, base.chosen | frozenset(given))


def keyed(options: Options) -> list[str]:
    """The options by which a job depends on a key in the server, each on another one."""
    return [name for feature in FEATURES for name in feature.keyed(options)]


def travelling(given: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Of the options given at a dispatch, those that the worker must know, as they travel."""
    return {name: OPTIONS[name].to_wire(options[name]) for name in given if OPTIONS[name].travels}


def arrived(base: Options, sent: Mapping[str, Any]) -> Options:
    """A task's options with those that travelled with a job over them. Unknown ones (a newer version's) are ignored."""
    known = {name: OPTIONS[name].from_wire(value) for name, value in sent.items() if name in OPTIONS}
    return choose(base, known, "options of the dispatch", dispatch=True)

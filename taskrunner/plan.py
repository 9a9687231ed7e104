"""Plan: how a task's jobs are made, compiled once per task and set of dispatch options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from . import features, options
from .durability import Durability, durability
from .envelope import KEPT, TRACKED, Draft, Envelope, Extra, new_id
from .errors import TaskOptionError
from .feature import Arguments, Fill
from .options import Options
from .payload import Packer
from .priority import lane

HEADERS_LIMIT = 8_000
"""Bytes; they travel in the head of the letter, whose size is limited too (``wire.HEAD_LIMIT``)."""


def _id(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise TaskOptionError(f"{what} must be a printable string of 1 to 200 characters, not {value!r}")
    return value


def _headers(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise TaskOptionError(f"{what} must map strings to strings, not {value!r}")
    text = "".join([*value.keys(), *value.values()])
    if len(text.encode("utf-8", "replace")) > HEADERS_LIMIT or text.encode("utf-8", "replace").decode() != text:
        raise TaskOptionError(f"{what} must be valid Unicode of at most {HEADERS_LIMIT:,} bytes together")
    return dict(value)


def _due(value: datetime, what: str) -> int:
    return options.instant(value, what)


CORE: Mapping[str, Callable[[Any, str], Any]] = {
    "id": _id,
    "queue": options.name,
    "delay": options.seconds,
    "at": _due,
    "headers": _headers,
    "durability": durability,
}
"""Options of a dispatch that are no feature: they say who the job is, where and when it goes, and how surely."""


def _of_one_key(where: str, options: Options) -> None:
    """Raises TaskOptionError for a job that would have to be in the partitions of several keys at once."""
    keyed = features.keyed(options)
    if len(keyed) > 1:
        raise TaskOptionError(
            f"{where}: {' and '.join(keyed)} can't go together with partitions > 1: each has its key in one partition, "
            "and a job must be where its key is; use one of them, or partitions=1"
        )


class Plan:
    """Makes drafts of one task under one set of options."""

    def __init__(
        self,
        task: str,
        queue: str,
        base: Options,
        packer: Packer,
        given: Mapping[str, Any],
        default: Durability = Durability.MEMORY,
        partitions: int = 1,
    ) -> None:
        where = f"dispatch of task {task!r}"
        core = {name: CORE[name](value, f"{where}: {name}") for name, value in given.items() if name in CORE}
        rest = {name: value for name, value in given.items() if name not in CORE}
        if "delay" in core and "at" in core:
            raise TaskOptionError(f"{where}: give delay or at, not both")
        self.task = task
        self.options = features.choose(base, rest, where, dispatch=True)
        for feature in features.FEATURES:
            feature.on_plan(where, self.options, core)
        if partitions > 1:
            _of_one_key(where if given else f"task {task!r}", self.options)
        self.max_wait: float | None = self.options["max_wait"]
        self.lane = lane(core.get("queue", queue), self.options["priority"])
        self.kept = not self.options["ignore_result"]
        self._packer = packer
        self.id: str | None = core.get("id")
        self._delay: float = core.get("delay", 0.0)
        self._due: int = core.get("at", 0)
        self.durability: Durability = core.get("durability", default)
        travelling = features.travelling(rest, self.options)
        self._extras: dict[str, Any] = {Extra.OPTIONS: travelling} if travelling else {}
        if core.get("headers"):
            self._extras[Extra.HEADERS] = core["headers"]
        fills = (feature.on_dispatch(task, self.options, packer.parameters) for feature in features.FEATURES)
        self._fills: tuple[Fill, ...] = tuple(fill for fill in fills if fill is not None)

    @property
    def plain(self) -> bool:
        """True when nothing but the packing of the arguments can fail."""
        return not self._fills

    def pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments as they travel. Raises PayloadError."""
        return self._packer.pack(args, kwargs)

    def draft(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], now: int, payload: bytes | None = None) -> Draft:
        """One job, ready to be sent; ``payload`` if the arguments are packed already. Raises PayloadError."""
        if payload is None:
            payload = self.pack(args, kwargs)
        id = self.id
        envelope = Envelope(id or new_id(), self.task, now, TRACKED | KEPT, 1, {**self._extras}, payload)
        draft = Draft(envelope, self.lane, self._delay, self._due, id is not None, (), self.durability)
        if self._fills:
            arguments = Arguments(args, kwargs, lambda: self._packer.canonical(args, kwargs))
            for fill in self._fills:
                fill(draft, arguments, now)
        return draft

"""What an examination finds, and how it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import RedisError, RedisUnavailable
from .links import Link

Level = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an examination: what was looked at, how it is, and, unless that is "ok", what to do.

    "warning": it works, and should be looked into. "problem": jobs are lost, stuck or refused, or would be. "unknown":
    the server did not say, mostly because the user may not ask.
    """

    check: str
    level: Level
    text: str


async def ask(link: Link, *command: Any) -> Any:
    """The reply to a question that the user may be forbidden to ask, or the server too old to answer: None then.

    Raises RedisUnavailable.
    """
    try:
        return await link.call(*command)
    except RedisUnavailable:
        raise
    except RedisError:
        return None


async def facts(link: Link, section: str = "") -> dict[str, str] | None:
    """What INFO says; None when it may not be asked."""
    text: bytes | None = await ask(link, b"INFO", *([section] if section else []))
    if text is None:
        return None
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def some(number: int, one: str, many: str = "") -> str:
    """ "1 job", "3 jobs"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"

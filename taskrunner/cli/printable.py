"""What users and jobs have written, as it may be shown: no escape sequences, no markup, nothing that JSON lacks."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from ..errors import JobFailed


def printable(text: str, lines: bool = False) -> str:
    """The text with what controls a terminal written out, as in ``\\x1b``. Line breaks stay if ``lines``."""
    kept = "\n\t" if lines else ""
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode("ascii") for one in text
    )


def shortened(text: str, most: int) -> str:
    """The first line, in at most so many characters."""
    line, *more = text.strip().splitlines() or [""]
    return line if len(line) <= most and not more else line[: most - 1] + "…"


def to_json(**fields: Any) -> str:
    """One JSON object in one line."""
    return json.dumps(plain(fields), allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON can carry it: instants as ISO 8601, bytes as text, infinity as null, strangers as their repr."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, JobFailed):
        names = ("error_type", "message", "traceback", "attempts", "reason")
        return {name: plain(getattr(value, name)) for name in names}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return repr(value)

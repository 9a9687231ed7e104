"""Instants as people read them."""

from __future__ import annotations

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .durations import show_duration


def show_instant(when: datetime | None, zone: tzinfo | None = None) -> str:
    """In a zone, else in this machine's with its offset; nothing for None."""
    if when is None:
        return ""
    text = when.astimezone(zone).isoformat(" ", "seconds")
    return text if zone is None else text[: len("2026-11-23 01:40:05")]


def show_distance(when: datetime | None, now: datetime) -> str:
    """How far away: ``3 min ago``, ``in 8 h``, ``now``."""
    if when is None:
        return ""
    seconds = (when - now).total_seconds()
    if abs(seconds) < 0.5:
        return "now"
    return f"in {show_duration(seconds)}" if seconds > 0 else f"{show_duration(-seconds)} ago"


def zone_of(name: str) -> tzinfo | None:
    """The time zone of this name; None when this machine doesn't know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None

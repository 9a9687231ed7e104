"""Durations as people type and read them."""

from __future__ import annotations

import math
import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds from ``30s``, ``500ms``, ``1.5m``, ``2h``, ``1d`` or a plain number. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration: write 30s, 500ms, 1.5m, 2h, or seconds as a plain number")
    return float(found[1]) * UNITS[found[2] or "s"]


def show_duration(seconds: float) -> str:
    """A duration in two or three digits and a unit; ``never`` for infinity."""
    if math.isinf(seconds):
        return "never"
    if seconds <= 0:
        return "0 s"
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def show_rate(per_second: float) -> str:
    """A rate per second, as short as it can be read."""
    return f"{per_second:,.0f}/s" if per_second >= 99.5 else f"{per_second:.3g}/s"

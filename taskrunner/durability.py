"""Durability: what must be true of a job before its dispatch returns."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from .errors import TaskOptionError

DurabilityName = Literal["memory", "replicated", "fsynced"]
"""As users say it."""


class Durability(IntEnum):
    """Each is more than MEMORY; neither of the other two contains the other."""

    MEMORY = 0  # the server has it
    REPLICATED = 1  # and so has a replica
    FSYNCED = 2  # and so has the server's disk


_NAMES = {one.name.lower(): one for one in Durability}


def durability(value: DurabilityName, what: str) -> Durability:
    """The durability of that name. Raises TaskOptionError."""
    found = _NAMES.get(value) if isinstance(value, str) else None
    if found is None:
        raise TaskOptionError(f"{what} must be 'memory', 'replicated' or 'fsynced', not {value!r}")
    return found

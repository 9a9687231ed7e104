"""A mutant: one guard that is broken, and the tests that hold it."""

from __future__ import annotations

from dataclasses import dataclass

SCRIPTS = "taskrunner/store/scripts/"


@dataclass(frozen=True)
class Mutant:
    """One broken guard: in ``file``, ``text`` (which stands there exactly once) becomes ``becomes``.

    ``tests`` are what is run, as pytest is told it; ``story`` says what would happen to somebody's jobs.
    """

    name: str
    story: str
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]

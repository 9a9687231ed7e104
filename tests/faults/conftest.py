"""The fixtures of ``fixtures.py``."""

from tests.faults.fixtures import (
    clock,
    clocked_server,
    fleet,
    make_fleet,
    own_server,
    persistent_server,
    proxy,
    short_timeouts,
)

__all__ = [
    "clock",
    "clocked_server",
    "fleet",
    "make_fleet",
    "own_server",
    "persistent_server",
    "proxy",
    "short_timeouts",
]

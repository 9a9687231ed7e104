"""The fixtures of ``fixtures.py``."""

from tests.faults.fixtures import fleet, make_fleet, own_server, persistent_server

__all__ = ["fleet", "make_fleet", "own_server", "persistent_server"]

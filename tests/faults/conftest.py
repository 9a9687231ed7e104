"""What tests of faults get: servers of their own, and worker processes that may be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrunner import TaskRunner
from tests.faults.servers import Server, own_server, persistent_server
from tests.faults.workshop import Fleet
from tests.programs import Program

__all__ = ["own_server", "persistent_server"]


@pytest.fixture
def make_fleet(
    own_server: Server, namespace: str, tmp_path: Path, program: Callable[..., Program], make_runner: Callable[..., TaskRunner]
) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets on the test's own server, with a reservation of one second."""
    made: list[Fleet] = []

    def make(url: str = "", **options: Any) -> Fleet:
        made.append(Fleet(url or own_server.url, namespace, tmp_path, program, make_runner, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.journal.close()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()

"""What tests that kill things get: servers of their own, and worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrunner import TaskRunner
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server

__all__ = ["fleet", "make_fleet", "own_server", "persistent_server"]


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that only this test uses. Its data end with it."""
    async with Server(tmp_path / "server") as server:
        yield server


@pytest.fixture
async def persistent_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that only this test uses, with an append-only file."""
    async with Server(tmp_path / "server", persistent=True) as server:
        yield server


@pytest.fixture
def make_fleet(
    namespace: str, tmp_path: Path, program: Callable[..., Program], make_runner: Callable[..., TaskRunner]
) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets on the server of a URL, with a reservation of one second."""
    made: list[Fleet] = []

    def make(url: str, **options: Any) -> Fleet:
        made.append(Fleet(url, namespace, tmp_path, program, make_runner, **options))
        return made[-1]

    yield make
    for one in made:
        one.journal.close()


@pytest.fixture
def fleet(own_server: Server, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet on the test's own server."""
    return make_fleet(own_server.url)

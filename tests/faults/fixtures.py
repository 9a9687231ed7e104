"""What tests that kill things get: servers of their own, and worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrunner import TaskRunner
from tests.faults.clock import Clock
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server

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
async def proxy(own_server: Server) -> AsyncIterator[Proxy]:
    """A proxy in front of the test's own server."""
    async with Proxy(own_server.port) as proxy:
        yield proxy


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens what is otherwise waited for an answer that doesn't come: 10 s."""
    monkeypatch.setattr("taskrunner.store.links.Link.call.__kwdefaults__", {"timeout": 1.0})
    monkeypatch.setattr("taskrunner.store.links.Link.run.__defaults__", (1.0,))


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """A wall clock for processes of this test, which it sets."""
    clock = Clock(tmp_path)
    yield clock
    clock.close()


@pytest.fixture
async def clocked_server(clock: Clock, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that only this test uses, and whose clock it sets."""
    async with Server(tmp_path / "server", environment=clock.environment) as server:
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

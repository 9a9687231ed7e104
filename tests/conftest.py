"""What every test gets: a real server, a namespace of its own, and a look at what it left behind.

The server is the embedded Valkey, one per test process; ``TASKRUNNER_TEST_SERVER`` names another kind of server, and
``TASKRUNNER_TEST_URL`` one that runs already. Tests that kill or empty a server start their own (``own_server``), of
the same kind.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from tests.cleanliness import leftovers
from tests.programs import Program
from tests.servers import KINDS, Unavailable, chosen_kind, missing, obtain, shared_server


def pytest_sessionstart() -> None:
    # Here and not in the first test that needs it, since a test has a minute and a download may take longer.
    try:
        with suppress(Unavailable):
            obtain(chosen_kind())
    except ValueError as error:
        raise pytest.UsageError(f"TASKRUNNER_TEST_SERVER: {error}, testcontainers") from error


@pytest.fixture(scope="session", autouse=True)
def chosen_server() -> None:
    """Skips everything when the kind of server that was asked for can't be had; under ``CI=true`` everything fails."""
    if os.environ.get("TASKRUNNER_TEST_SERVER") in KINDS:
        with missing():
            obtain(chosen_kind())


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The server that the tests share; each uses a namespace of its own on it."""
    with missing(), shared_server() as url:
        yield url


@pytest.fixture
def namespace() -> str:
    return "test-" + secrets.token_hex(6)


@pytest.fixture
async def redis_client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client, for looking at what stands in the server."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    yield client
    await client.aclose()


@pytest.fixture
async def make_runner(url: str, namespace: str) -> AsyncIterator[Callable[..., TaskRunner]]:
    """Makes runners of the test's namespace, with a short reservation, and closes them at the end."""
    made: list[TaskRunner] = []

    def make(redis: Any = None, **options: Any) -> TaskRunner:
        options = {"namespace": namespace, "reservation_timeout": 4, "shutdown_timeout": 5} | options
        runner = TaskRunner(url if redis is None else redis, **options)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        await runner.aclose()


@pytest.fixture
def runner(make_runner: Callable[..., TaskRunner]) -> TaskRunner:
    return make_runner()


@pytest.fixture(autouse=True)
async def nothing_left_behind(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """After every test that used the shared server: no pending entry, no consumer, no key outside the permanent set.

    A test that leaves jobs or dead letters on purpose says so: ``@pytest.mark.leaves("dead")``.
    """
    if "namespace" not in request.fixturenames:
        yield
        return
    namespace, url = request.getfixturevalue("namespace"), request.getfixturevalue("url")
    yield
    marker = request.node.get_closest_marker("leaves")
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    try:
        found = await leftovers(client, namespace, tuple(marker.args) if marker else ())
        keys = [key async for key in client.scan_iter(match=f"*{{{namespace}.*}}:*", count=1000)]
        if keys:
            await client.unlink(*keys)
    finally:
        await client.aclose()
    assert not found, "left behind: " + "; ".join(found)


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Starts programs and makes sure that none outlives the test. Programs read ``URL`` and ``NAMESPACE`` from the
    environment when the test passes them."""
    programs: list[Program] = []

    def start(source: str, **environment: str) -> Program:
        programs.append(Program(source, **environment))
        return programs[-1]

    yield start
    for one in programs:
        one.close()

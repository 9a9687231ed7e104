"""Limiters of one name in the test's namespace, and a look at what stands in the server of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import Limiter, TaskRunner
from tests.faults.fixtures import own_server, proxy, short_timeouts
from tests.limiter.books import Books

__all__ = ["own_server", "proxy", "short_timeouts"]

MakeLimiter = Callable[..., Limiter]


@pytest.fixture
def make_limiter(make_runner: Callable[..., TaskRunner]) -> MakeLimiter:
    """Makes limiters of the name ``places``, each of a runner of its own, as if it were another process."""

    def make(limit: int = 3, timeout: float = 60, name: str = "places", **options: object) -> Limiter:
        return make_runner(**options).limiter(name, limit=limit, timeout=timeout)

    return make


@pytest.fixture
def limiter(make_limiter: MakeLimiter) -> Limiter:
    return make_limiter()


@pytest.fixture
def books(redis_client: redis.asyncio.Redis, namespace: str) -> Books:
    return Books(redis_client, namespace)

"""The fixtures of the tests of faults, and workers that are moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from tests.faults.fixtures import fleet, make_fleet, own_server, persistent_server
from tests.worker.hand import Hand, end_grace, hand

__all__ = ["fleet", "make_fleet", "own_server", "persistent_server"]


@pytest.fixture
async def make_hand(url: str, namespace: str, redis_client: redis.asyncio.Redis) -> AsyncIterator[Any]:
    """``await make_hand("name")``: a worker moved by hand."""
    made: list[Hand] = []

    async def make(name: str) -> Hand:
        made.append(await hand(url, namespace, name))
        await end_grace(redis_client, made[-1].keys)
        return made[-1]

    yield make
    for one in made:
        await one.store.leave(one.keys, ["default"])
        await one.store.close()
        one.heart.close()


@pytest.fixture
def noop(runner: TaskRunner) -> Any:
    """A task whose jobs are run by hand."""

    @runner.task
    async def noop() -> None: ...

    return noop

"""What tests of the examination share: the interface that the command uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.durability import Durability
from taskrunner.store.examine import Subject, examine
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.repair import Repaired, repair

MakeRunner = Callable[..., TaskRunner]
LEFT = pytest.mark.leaves("stream:default", "live", "due:", "letters:", "retrying:", "tallies:", "dead", "unique:")


async def findings(runner: TaskRunner, **subject: Any) -> dict[str, tuple[str, str]]:
    """Check → (level, text), by the interface that the command uses."""
    values: dict[str, Any] = {"durability": Durability.MEMORY, "certain": True}
    store = (await runner.opened()).store
    return {one.check: (one.level, one.text) for one in await examine(Subject(store, **(values | subject)))}


async def mend(runner: TaskRunner, certain: bool = True) -> Repaired:
    return await repair(Subject((await runner.opened()).store, Durability.MEMORY, certain))


async def everything(client: redis.asyncio.Redis, keys: PartitionKeys) -> dict[bytes, bytes]:
    """All keys of the namespace, and what they hold, to compare."""
    found = {key: await client.dump(key) async for key in client.scan_iter(match=keys.prefix + "*", count=1000)}
    return {key: value for key, value in found.items() if b"}:batch:" not in key}

"""What the server remembers of a task's run times."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from taskrunner import TaskRunner


async def remembered(runner: TaskRunner, client: Any, times: list[float], copies: int) -> float:
    """How many runs are remembered after one more, when ``copies`` of these had been before. Times in seconds."""

    @runner.task
    async def work() -> None: ...

    key = f"taskrunner:{{{runner.settings.namespace}.0}}:runs:{runner.settings.queue}"
    before = {
        "ok": copies * len(times),
        "failed": 0,
        "retried": 0,
        "n": copies * len(times),
        "sum": copies * sum(times),
        "squares": copies * sum(time**2 for time in times),
        "buckets": {},
    }
    await client.hset(key, "work", orjson.dumps(before))
    async with runner.start():
        await (await work.dispatch()).result(timeout=20)
    return float(orjson.loads(await client.hget(key, "work"))["n"])


async def test_a_thousand_runs_are_remembered_when_they_are_alike(runner: TaskRunner, redis_client: Any) -> None:
    assert await remembered(runner, redis_client, [0.01], 5000) == pytest.approx(1000, abs=2)


async def test_more_are_remembered_when_a_few_are_long(runner: TaskRunner, redis_client: Any) -> None:
    """With nine of 10 ms in ten and one of 1 s, the squared coefficient of variation is 7.5."""
    assert await remembered(runner, redis_client, [0.01] * 9 + [1.0], 500) == pytest.approx(3000, rel=0.05)


async def test_never_more_than_ten_thousand_are_remembered(runner: TaskRunner, redis_client: Any) -> None:
    assert await remembered(runner, redis_client, [0.001] * 99 + [100.0], 500) == pytest.approx(10_000, abs=2)

"""What operators can't ask for is refused with the name of what was wrong, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, NotFound, TaskOptionError, TaskRunner
from tests.features.test_bad_input import DURATIONS, NO_DURATIONS, NO_NAMES
from tests.features.untouched import refused, untouched

pytestmark = pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live", "stream:default", "unique:")

NO_STATES: list[Any] = ["", "Queued", "pending", "done", "dead", "queued ", "*", None, 5, True, b"queued"]
NO_LIMITS: list[Any] = [0, -1, 1.5, math.nan, math.inf, "10", True, None, 2**53 + 1]
NO_TASKS: list[Any] = [5, b"work", True, ["work"]]

Ask = Callable[[TaskRunner, Any], Awaitable[Any]]


def asks(call: Ask, option: str, values: list[Any], id: str) -> list[Any]:
    return [pytest.param(call, option, value, id=f"{id}-{n}-{ascii(value)[:20]}") for n, value in enumerate(values)]


@pytest.fixture(autouse=True)
async def something_waits(runner: TaskRunner) -> None:
    task = runner.declare("work", unique=True)
    await task.dispatch(1)
    await task.with_options(delay=1000).dispatch(2)


@pytest.mark.parametrize(
    ("call", "option", "value"),
    [
        *asks(lambda runner, value: runner.pause(value), "queue", NO_NAMES, "pause"),
        *asks(lambda runner, value: runner.resume(value), "queue", NO_NAMES, "resume"),
        *asks(lambda runner, value: runner.purge(value), "queue", [*NO_NAMES, None], "purge"),
        *asks(lambda runner, value: runner.stats(value), "queue", NO_NAMES, "stats"),
        *asks(lambda runner, value: runner.count(value), "queue", NO_NAMES, "count"),
        *asks(lambda runner, value: runner.count(task=value), "task", NO_TASKS, "count task"),
        *asks(lambda runner, value: runner.count(state=value), "state", NO_STATES, "count state"),
        *asks(lambda runner, value: runner.jobs(value), "state", NO_STATES, "jobs"),
        *asks(lambda runner, value: runner.jobs("queued", value), "queue", NO_NAMES, "jobs queue"),
        *asks(lambda runner, value: runner.jobs("queued", limit=value), "limit", NO_LIMITS, "jobs limit"),
        *asks(lambda runner, value: runner.dead_letters.count(value), "task", NO_TASKS, "dead count"),
        *asks(lambda runner, value: runner.dead_letters.list(value), "task", NO_TASKS, "dead list"),
        *asks(lambda runner, value: runner.dead_letters.list(limit=value), "limit", NO_LIMITS, "dead limit"),
        *asks(lambda runner, value: runner.dead_letters.retry_all(value), "task", NO_TASKS, "dead retry"),
        *asks(
            lambda runner, value: runner.dead_letters.purge(value),
            "older_than", [*DURATIONS, *NO_DURATIONS], "dead purge",
        ),
        *asks(
            lambda runner, value: runner.job("x").wait(value),
            "timeout", [-1, math.nan, timedelta(-1), "5", True], "wait",
        ),
    ],
)  # fmt: skip
async def test_a_question_or_an_order_that_can_not_be_is_refused_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, call: Ask, option: str, value: Any
) -> None:
    async with untouched(redis_client, namespace):
        text = await refused(lambda: call(runner, value), TaskOptionError, option)
        assert "must be" in text


@pytest.mark.parametrize(
    "call",
    [
        lambda runner, id: runner.dead_letters.retry(id),
        lambda runner, id: runner.dead_letters.list(after=id),
    ],
    ids=["retry", "after"],
)
@pytest.mark.parametrize("id", ["nobody", "", "{x}", "a\nb", "\x00", "é", "x" * 300], ids=ascii)
async def test_what_is_not_there_is_not_found_whatever_its_name(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, call: Ask, id: str
) -> None:
    async with untouched(redis_client, namespace):
        await refused(lambda: call(runner, id), NotFound, repr(id))


@pytest.mark.parametrize("id", ["nobody", "", "{x}", "a\nb", "\x00", "é", "x" * 300], ids=ascii)
async def test_removing_or_cancelling_what_is_not_there_does_nothing_and_says_so(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, id: str
) -> None:
    async with untouched(redis_client, namespace):
        assert await runner.delete(id) is False
        assert await runner.dead_letters.delete(id) is False
        assert await runner.dead_letters.get(id) is None
        assert await runner.job(id).cancel() is False


@pytest.mark.parametrize("queues", [[], "default", ["a b"], ["default", "{x}"], [7], ["a/high"]], ids=repr)
async def test_a_start_with_queues_that_can_not_be_is_refused(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, queues: Any
) -> None:
    async def started() -> None:
        async with runner.start(queues=queues):
            pass

    async with untouched(redis_client, namespace):
        await refused(started, TaskOptionError, "queues must be")


@pytest.mark.parametrize("state", list(JobStatus))
async def test_every_state_can_be_asked_for_by_its_name_and_by_its_status(runner: TaskRunner, state: JobStatus) -> None:
    expected = {JobStatus.QUEUED: 1, JobStatus.SCHEDULED: 1}.get(state, 0)
    assert await runner.count(state=state) == await runner.count(state=str(state)) == expected
    assert len(await runner.jobs(state)) == len(await runner.jobs(str(state))) == expected


async def test_looking_changes_nothing(runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str) -> None:
    async with untouched(redis_client, namespace):
        await runner.stats()
        await runner.stats("nowhere")
        assert await runner.schedules() == []
        for state in JobStatus:
            assert await runner.count("nowhere", "nobody", state) == 0
            await runner.jobs(state)
        assert await runner.dead_letters.list() == []
        assert await runner.dead_letters.count("nobody") == 0

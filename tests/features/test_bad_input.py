"""What a job or a task can't be is refused with the option's name and what to do, and nothing is written.

The namespace is not empty: a job waits in it, another for its time, and a unique key is held.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    Limit,
    PayloadError,
    QueueBusy,
    QueueConflict,
    Rate,
    Task,
    TaskOptionError,
    TaskRunner,
    UnknownTask,
)
from tests.features.untouched import refused, untouched

pytestmark = pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live", "stream:default", "unique:")

MakeRunner = Callable[..., TaskRunner]

DURATIONS: list[Any] = [-0.001, -1, -math.inf, math.nan, math.inf, 1e12, timedelta(seconds=-1), timedelta.max]
NO_DURATIONS: list[Any] = ["5", b"5", True, False, 5j, [5], datetime(2030, 1, 1)]
NO_NAMES: list[Any] = [
    "", " ", "a b", "a\tb", "a\nb", "a\x00b", "\x7f", "{x}", "a{b", "a}b", "a:b", "a/high", "*", "?", "[a]", "a\\b",
    "é", "漢", "\u202e", "\ud800", "x" * 65, b"default", 7, True, ["default"],
]  # fmt: skip

DISPATCH: dict[str, list[Any]] = {
    "delay": [*DURATIONS, *NO_DURATIONS, None],
    "at": [datetime(2030, 1, 1), datetime.max, 5, 5.0, "2030-01-01", True, None, timedelta(1)],
    "queue": [*NO_NAMES, None],
    "expires": [*DURATIONS, *NO_DURATIONS, 0],
    "max_retry": [-1, 1.0, math.nan, math.inf, 2**53 + 1, "3", True, None],
    "backoff": [1, "quadratic", None, lambda attempt: 1],
    "timeout": [*DURATIONS, *NO_DURATIONS, 0],
    "result_ttl": [*DURATIONS, *NO_DURATIONS, 0],
    "ignore_result": [1, 0, "yes", None],
    "unique": [1, 0, "yes", "Latest", "", None, b"latest"],
    "unique_for": [*DURATIONS, *NO_DURATIONS, 0],
    "unique_key": [5, b"key", ["key"], True],
    "id": ["", "x" * 201, "a\nb", "\x00", "\ud800", 7, b"id", True, None],
    "headers": [5, "a=b", ["a"], {"a": 1}, {1: "a"}, {"a": None}, {"a": "x" * 9000}, None],
    "priority": ["urgent", "", "HIGH", "high ", 1, None, True, b"high", ["high"]],
    "max_wait": [*DURATIONS, *NO_DURATIONS],
    "lock_key": [
        *("", "x" * 1001, "x" * 1_000_000, "\ud800", 5, b"key", ["key"], True),
        *("{", "}", "{}", "{0}", "{n", "{n}}", "{n.__class__}", "{n._x}", "{n:{n}}", "{n!x}", "{n m}"),
    ],
    "durability": ["disk", "", "MEMORY", 1, True, None],
}
"""Option of a dispatch → what it can't be."""

TASK: dict[str, list[Any]] = {
    "queue": NO_NAMES,
    "retry_on": ["ValueError", ValueError(), 5, (ValueError, 5), object],
    "give_up_on": ["ValueError", 5, [ValueError], (ValueError, None)],
    "reservation_timeout": [*DURATIONS, *NO_DURATIONS, 0],
    "unique_key": [5, b"key", True],
    "concurrency": [0, -1, 1.5, math.nan, math.inf, 2**53 + 1, "2", True],
    "mode": ["both", "", "Locked", None, True, 5, b"locked", ["any"]],
    "limit": [3, 0, "3", True, (3, "key"), {"count": 3}, Rate(3, per=1)],
    "rate_limit": [3, 0.5, "100/60", True, (100, 60), {"count": 3}, Limit(3)],
    "pool": ["gevent", "", "Process", None, True, 5, b"thread"],
    "on_start": [5, "hook", [print]],
    "on_success": [5, "hook"],
    "on_failure": [5, "hook"],
    "on_retry": [5, "hook"],
    **{
        option: DISPATCH[option]
        for option in (
            "expires",
            "max_retry",
            "timeout",
            "result_ttl",
            "ignore_result",
            "unique",
            "unique_for",
            "priority",
            "max_wait",
            "lock_key",
        )
    },
}
"""Option of a task → what it can't be."""

UNKNOWN = ["max_retries", "Delay", "", "lock", "dealy", "countdown", "eta", "locked", "rate", "limits"]


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(option, value, id=f"{option}-{n}-{ascii(value)[:20]}")
        for option, values in table.items()
        for n, value in enumerate(values)
    ]


@pytest.fixture
async def task(runner: TaskRunner) -> Task[..., Any]:
    """A task of a namespace in which something waits already."""
    task = runner.declare("work", unique=True)
    await task.dispatch(1)
    await task.with_options(delay=1000).dispatch(2)
    return task


@pytest.mark.parametrize(("option", "value"), cases(DISPATCH))
async def test_an_option_of_a_dispatch_that_can_not_be_is_refused_and_nothing_is_written(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, option: str, value: Any
) -> None:
    given: dict[str, Any] = {option: value}

    async def of_a_task() -> None:
        await task.with_options(**given).dispatch(3)

    async def by_name() -> None:
        await runner.with_options(**given).dispatch("work", 3)

    async def of_many() -> None:
        await runner.dispatch_many([task.job(4), task.with_options(**given).job(3), task.job(5)])

    ways: list[Callable[[], Awaitable[None]]] = [of_a_task, by_name, of_many]
    async with untouched(redis_client, namespace):
        for way in ways:
            text = await refused(way, TaskOptionError, option)
            assert says_what_to_do(text)


@pytest.mark.parametrize(("option", "value"), cases(TASK))
async def test_an_option_of_a_task_that_can_not_be_is_refused_and_there_is_no_such_task(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, option: str, value: Any
) -> None:
    given: dict[str, Any] = {option: value}

    async def registered() -> None:
        runner.task(name="other", **given)(other)

    async def declared() -> None:
        runner.declare("other", **given)

    async with untouched(redis_client, namespace):
        for way in (registered, declared):
            text = await refused(way, TaskOptionError, "task 'other'", option)
            assert says_what_to_do(text)
        assert set(runner.tasks) == {"work"}
        runner.declare("other")  # the name is free


def says_what_to_do(text: str) -> bool:
    return any(word in text for word in ("must be", "must map", "needs", "use ", "give ", "set it"))


async def other() -> None: ...


@pytest.mark.parametrize("option", UNKNOWN)
async def test_an_option_that_there_is_not_is_refused_with_those_that_there_are(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, option: str
) -> None:
    given: Any = {option: 1}

    async def dispatched() -> None:
        await task.with_options(**given).dispatch(3)

    async def registered() -> None:
        runner.task(name="other", **given)(other)

    async with untouched(redis_client, namespace):
        for way in (dispatched, registered):
            await refused(way, TaskOptionError, f"there is no option {option!r} here; there are ", "max_retry")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delay": 1, "at": datetime.fromisoformat("2100-01-01T00:00:00+00:00")}, "give delay or at, not both"),
        ({"unique": "debounce", "unique_for": None}, "unique_for"),
        ({"unique": "debounce", "unique_for": 5, "delay": 5}, "delay"),
        ({"unique": "latest", "at": datetime.fromisoformat("2100-01-01T00:00:00+00:00")}, "at"),
    ],
    ids=["delay and at", "debounce without a period", "debounce with a delay", "latest with a time"],
)
async def test_options_that_do_not_go_together_are_refused(
    task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, options: dict[str, Any], words: str
) -> None:
    async with untouched(redis_client, namespace):
        await refused(lambda: task.with_options(**options).dispatch(3), TaskOptionError, "task 'work'", words)


@pytest.mark.parametrize("key", [5, None, b"key", ["key"]], ids=repr)
async def test_a_unique_key_that_is_no_string_is_refused_when_it_is_made(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, key: Any
) -> None:
    keyed = task.with_options(unique_key=lambda n: key)

    async def many() -> None:
        await runner.dispatch_many([task.job(4), keyed.job(3)])

    async with untouched(redis_client, namespace):
        for way in (lambda: keyed.dispatch(3), many):
            await refused(way, PayloadError, "unique_key of task 'work' must return a string")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff.constant(-1),
        lambda: Backoff.constant(math.nan),
        lambda: Backoff.constant(math.inf),
        lambda: Backoff.quadratic(base=-1),
        lambda: Backoff.exponential(factor=-1),
        lambda: Backoff.exponential(factor=math.nan),
        lambda: Backoff.linear(cap=-1),
        lambda: Backoff.linear(jitter=1.5),
        lambda: Backoff.linear(jitter=-0.1),
        lambda: Backoff.linear(jitter=math.nan),
    ],
)
def test_a_backoff_that_can_not_be_is_refused_when_it_is_made(make: Callable[[], Backoff]) -> None:
    with pytest.raises(TaskOptionError, match="must be"):
        make()


@pytest.mark.parametrize("name", ["nobody", "", "{x}", "a\nb", "\x00", "x" * 300, "é", "\ud800"], ids=ascii)
async def test_a_task_that_nobody_knows_is_refused_whatever_its_name(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, name: str
) -> None:
    async with untouched(redis_client, namespace):
        await refused(lambda: runner.dispatch(name, 1), UnknownTask, "registered or declared here")


@pytest.mark.parametrize("concurrency", [3, 1])
async def test_a_queue_with_two_concurrencies_is_refused_and_there_is_no_such_task(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, concurrency: int
) -> None:
    runner.task(name="first", queue="shared", concurrency=2)(other)

    async def registered() -> None:
        runner.task(name="second", queue="shared", concurrency=concurrency)(other)

    async with untouched(redis_client, namespace):
        await refused(registered, QueueConflict, "'shared'", "concurrency=2", str(concurrency), "name the same number")
    assert "second" not in runner.tasks


async def test_what_can_not_run_in_a_process_is_refused_and_there_is_no_such_task(runner: TaskRunner) -> None:
    def inside() -> None: ...

    for function, words in ((other, "plain functions"), (inside, "module")):

        async def registered(function: Any = function) -> None:
            runner.task(name="work", pool="process")(function)

        await refused(registered, TaskOptionError, "task 'work'", "pool='process'", words)
    assert runner.tasks == {}


@pytest.mark.parametrize("alone", [True, False])
async def test_a_job_that_would_wait_too_long_is_refused_and_nothing_of_its_batch_is_written(
    runner: TaskRunner, task: Task[..., Any], redis_client: redis.asyncio.Redis, namespace: str, alone: bool
) -> None:
    hurried = task.with_options(max_wait=1)
    async with untouched(redis_client, namespace):
        with pytest.raises(QueueBusy) as busy:
            await (hurried.dispatch(3) if alone else runner.dispatch_many([task.job(4), hurried.job(3), task.job(5)]))
    assert busy.value.eta == math.inf, "jobs wait, and nobody consumes"

"""A lock key, a limit or a rate that can't be is refused as early as that can be known, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Limit, PayloadError, Rate, ScheduleError, TaskOptionError, TaskRunner
from tests.features.untouched import refused, untouched

MakeRunner = Callable[..., TaskRunner]

WAYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "lock_key": lambda key: {"lock_key": key},
    "limit": lambda key: {"limit": Limit(1, key)},
    "rate": lambda key: {"rate_limit": Rate(1, 1, key)},
}
way = pytest.mark.parametrize("way", WAYS)


async def work(user_id: int, region: str = "eu") -> None: ...


@way
async def test_a_template_that_names_no_argument_is_refused_and_there_is_no_such_task(
    runner: TaskRunner, way: str
) -> None:
    async def registered() -> None:
        runner.task(name="charge", **WAYS[way]("user:{user}"))(work)

    await refused(registered, TaskOptionError, way, "task 'charge'", "'user'", "use one of user_id, region")
    assert runner.tasks == {}


async def test_so_is_one_that_a_dispatch_gives(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    task = runner.task(name="charge")(work)
    async with untouched(redis_client, namespace):
        with pytest.raises(TaskOptionError, match=r"lock_key of task 'charge': .* use one of user_id, region"):
            task.with_options(lock_key="user:{user}")
        with pytest.raises(TaskOptionError, match=r"there is no option 'limit' here"):
            task.with_options(limit=Limit(1))  # type: ignore[call-arg]


@way
@pytest.mark.parametrize("key", ["", "x" * 1001, "x" * 100_000, "\ud800"], ids=lambda key: ascii(key)[:10])
async def test_a_key_that_can_not_be_is_refused_whether_a_template_or_a_function_made_it(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, way: str, key: str
) -> None:
    unique: dict[str, Any] = {"unique": True, "unique_key": lambda name: "k"}
    template = runner.declare("template", **unique, **WAYS[way]("{name}"))
    function = runner.declare("function", **unique, **WAYS[way](lambda name: key))
    fine = runner.declare("fine")
    jobs = [function.job(name="x")]
    if key != "\ud800":  # which is no argument either
        jobs.append(template.job(name=key))

    async with untouched(redis_client, namespace):
        for job in jobs:

            async def many(job: Any = job) -> None:
                await runner.dispatch_many([fine.job(name="y"), job])

            for call in (lambda job=job: runner.tasks[job.plan.task].dispatch(**job.kwargs), many):
                await refused(call, PayloadError, way.partition("_")[0], "must be 1 to 1,000 characters")


@way
@pytest.mark.parametrize("key", [5, b"key", ["key"], True], ids=repr)
async def test_a_function_that_makes_no_string_is_refused(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, way: str, key: Any
) -> None:
    task = runner.task(name="charge", unique=True, **WAYS[way](lambda user_id: key))(work)
    async with untouched(redis_client, namespace):
        await refused(lambda: task.dispatch(7), PayloadError, "task 'charge' must return a string")


@pytest.mark.parametrize("way", ["limit", "rate"])
async def test_only_a_lock_key_may_be_none(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, way: str
) -> None:
    task = runner.task(name="charge", **WAYS[way](lambda user_id: None))(work)
    async with untouched(redis_client, namespace):
        await refused(lambda: task.dispatch(7), PayloadError, "task 'charge' must return a string, not None")


@way
async def test_an_error_of_the_function_is_the_callers(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, way: str
) -> None:
    task = runner.task(name="charge", unique=True, **WAYS[way](lambda user_id: str(1 // user_id)))(work)
    async with untouched(redis_client, namespace):
        await refused(lambda: task.dispatch(0), ZeroDivisionError)


@way
async def test_a_declared_task_tells_which_argument_is_to_be_given_by_name(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, way: str
) -> None:
    task = runner.declare("charge", unique=True, **WAYS[way]("user:{user_id}"))
    async with untouched(redis_client, namespace):
        await refused(lambda: task.dispatch(7), PayloadError, "task 'charge'", "'user_id'; give it by name")


# -- several partitions --------------------------------------------------------------------------------------------

TOGETHER: dict[str, dict[str, Any]] = {
    "lock_key and limit": {"lock_key": "k", "limit": Limit(1)},
    "lock_key and rate_limit": {"lock_key": "k", "rate_limit": Rate(1, 1)},
    "limit and rate_limit": {"limit": Limit(1), "rate_limit": Rate(1, 1)},
    "unique and lock_key": {"unique": True, "lock_key": "k"},
    "unique_for and limit": {"unique_for": 5, "limit": Limit(1)},
    "unique and lock_key and limit and rate_limit": {
        **{"unique": "debounce", "unique_for": 5, "lock_key": "k"},
        **{"limit": Limit(1), "rate_limit": Rate(1, 1)},
    },
}


@pytest.mark.parametrize("names", TOGETHER)
async def test_a_job_has_one_key_where_there_are_several_partitions(make_runner: MakeRunner, names: str) -> None:
    split, whole = make_runner(partitions=3), make_runner()

    async def registered() -> None:
        split.task(name="charge", **TOGETHER[names])(work)

    await refused(registered, TaskOptionError, "task 'charge': ", f"{names} can't go together", "partitions=1")
    assert split.tasks == {}
    whole.task(name="charge", **TOGETHER[names])(work)


async def test_that_holds_for_the_options_of_a_dispatch_and_of_a_schedule(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner = make_runner(partitions=3)
    unique = runner.task(name="unique", unique=True, unique_for=5)(work)
    limited = runner.declare("limited", limit=Limit(3))
    async with untouched(redis_client, namespace):
        for task in (unique, limited):
            with pytest.raises(TaskOptionError, match=r"^dispatch of task .* can't go together"):
                task.with_options(lock_key="k")
            await refused(
                lambda task=task: runner.schedule("often", task.job(7), every=60, lock_key="k"),
                ScheduleError, "lock_key can't go together with partitions > 1", "partitions=1",
            )  # fmt: skip
    runner.task(name="locked", lock_key="k")(work).with_options(lock_key="other")
    unique.with_options(unique=False, unique_for=None, lock_key="k")

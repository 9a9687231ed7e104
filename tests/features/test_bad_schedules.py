"""What a schedule can't be is refused with what was wrong and what to do, and nothing is written."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
import redis.asyncio

from taskrunner import NotFound, PayloadError, ScheduleError, TaskOptionError, TaskRunner
from tests.features.untouched import refused, untouched

CRON: list[Any] = [
    "", " ", "*", "* * * *", "* * * * * *", "60 * * * *", "-1 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
    "* * * 0 *", "* * * 13 *", "* * * * 7", "* * * * 8", "* * * foo *", "* * * * monday", "*/0 * * * *", "5-1 * * * *",
    "1,, * * * *", "a b c d e", "@reboot", "@never", "@", "@every", "@every -5s", "@every x", "@every 0s", "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *", "\x00 * * * *", "\uff11 * * * *", "TZ= * * * * *", "TZ=Mars/Base * * * * *",
    "TZ=Europe/Berlin", 5, None, b"* * * * *", True, ["* * * * *"],
]  # fmt: skip
EVERY: list[Any] = [
    0, -1, -0.001, math.nan, math.inf, -math.inf, 1e12, True, False, "60", b"60", None, timedelta(0), timedelta(-1),
    timedelta.max, [60],
]  # fmt: skip
ZONES: list[Any] = [
    "Mars/Base", "", " ", "../../etc/passwd", "/etc/localtime", "Europe/Berlin\x00", "a" * 300, "{x}", 5, b"UTC", True,
    timezone(timedelta(hours=2)),
]  # fmt: skip
POLICIES: list[Any] = ["sometimes", "", "LATEST", None, True, 5, ["all"]]
STARTS: list[Any] = [datetime(2030, 1, 1), "2030-01-01", 5, True]
NAMES: list[Any] = ["", "x" * 201, "a\nb", "\x00", "\ud800", 7, None, True, b"name"]


def cases(option: str, values: list[Any], **rest: Any) -> list[Any]:
    return [
        pytest.param({option: value, **rest}, option, id=f"{option}-{n}-{ascii(value)[:20]}")
        for n, value in enumerate(values)
    ]


WRONG = [
    *cases("cron", CRON),
    *cases("every", EVERY),
    *cases("tz", ZONES, cron="0 9 * * *"),
    *cases("catch_up", POLICIES, every=60),
    *cases("start", STARTS, every=60),
    pytest.param({"cron": "* * * * *", "every": 60}, "every=", id="both"),
    pytest.param({}, "every=", id="neither"),
    pytest.param({"every": 60, "tz": "Europe/Berlin"}, "tz=", id="a zone without a cron text"),
    pytest.param({"cron": "TZ=UTC 0 9 * * *", "tz": "Europe/Berlin"}, "TZ=UTC", id="two zones"),
]


@pytest.mark.parametrize(("timing", "word"), WRONG)
async def test_a_schedule_that_can_not_be_is_refused_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, timing: dict[str, Any], word: str
) -> None:
    task = runner.declare("work")
    async with untouched(redis_client, namespace):
        text = await refused(lambda: runner.schedule("mine", task.job(), **timing), ScheduleError)
        assert says_what_to_do(text)
        assert word in text or word in ("cron", "tz")
        assert await runner.schedules() == []


def belongs_to_one_decorator(timing: dict[str, Any]) -> bool:
    return ("cron" in timing) != ("every" in timing) and not {"every", "tz"} <= set(timing)


def says_what_to_do(text: str) -> bool:
    """Whether it tells what would do, or that no text of this kind can."""
    words = (
        "must be",
        "may be",
        "use ",
        "give ",
        "write ",
        "there are",
        "has five fields",
        "never comes true",
        "is for",
    )
    return any(word in text for word in words)


@pytest.mark.parametrize(
    "timing", [case.values[0] for case in WRONG if belongs_to_one_decorator(case.values[0])], ids=ascii
)
async def test_a_decorator_that_can_not_be_is_refused_and_there_is_no_such_task(
    runner: TaskRunner, timing: dict[str, Any]
) -> None:
    async def decorated() -> None:
        rest = dict(timing)
        decorator = runner.cron(rest.pop("cron"), **rest) if "cron" in rest else runner.every(rest.pop("every"), **rest)
        decorator(work)

    async def work() -> None: ...

    await refused(decorated, ScheduleError)
    assert runner.tasks == {}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_name_that_can_not_be_is_refused(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, name: Any
) -> None:
    async with untouched(redis_client, namespace):
        await refused(lambda: runner.schedule(name, runner.declare("work").job(), every=60), ScheduleError, "name")


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "\x00", 7, True, b"key"], ids=ascii)
async def test_a_lock_key_that_can_not_be_is_refused(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, key: Any
) -> None:
    async with untouched(redis_client, namespace):
        await refused(
            lambda: runner.schedule("mine", runner.declare("work").job(), every=60, lock_key=key),
            ScheduleError, "lock_key",
        )  # fmt: skip
        await refused(lambda: runner.delete_schedule(lock_key=key), ScheduleError, "lock_key")


@pytest.mark.parametrize("spec", ["work", None, 5, print, {"task": "work"}], ids=ascii)
async def test_what_is_no_job_is_refused_with_how_to_make_one(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, spec: Any
) -> None:
    async with untouched(redis_client, namespace):
        with pytest.raises((ScheduleError, TaskOptionError), match="job"):
            await runner.schedule("mine", spec, every=60)


@pytest.mark.parametrize("option", [{"at": datetime(2100, 1, 1, tzinfo=UTC)}, {"id": "mine"}], ids=str)
async def test_options_that_say_when_or_which_are_refused_in_a_schedule(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, option: dict[str, Any]
) -> None:
    spec = runner.declare("work").with_options(**option).job()
    async with untouched(redis_client, namespace):
        await refused(lambda: runner.schedule("mine", spec, every=60), ScheduleError, next(iter(option)))


async def test_arguments_that_can_not_travel_are_refused_when_it_is_scheduled(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    async with untouched(redis_client, namespace):
        await refused(lambda: runner.schedule("mine", runner.declare("work").job(object()), every=60), PayloadError)


@pytest.mark.parametrize("value", [1, "yes", None, 0], ids=repr)
def test_whether_schedules_are_pruned_must_be_true_or_false(value: Any) -> None:
    with pytest.raises(TaskOptionError, match="prune_schedules must be True or False"):
        TaskRunner("redis://127.0.0.1:1", prune_schedules=value)


@pytest.mark.parametrize("name", ["nobody", "{x}", "é"], ids=ascii)
async def test_a_schedule_that_is_not_there_can_not_be_paused_or_resumed_and_none_is_removed(
    runner: TaskRunner, name: str
) -> None:
    for call in (runner.pause_schedule, runner.resume_schedule):
        await refused(partial(call, name), NotFound, repr(name))
    assert not await runner.unschedule(name)
    assert await runner.schedules() == []

"""Schedules as a user meets them: by decorator and by hand, listed, paused, replaced, removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    DuplicateTask,
    JobContext,
    JobStatus,
    NotFound,
    PayloadError,
    ScheduleError,
    TaskOptionError,
    TaskRunner,
    current_job,
)
from taskrunner.store.keys import PartitionKeys
from tests.features.scheduling import LEFT, ended, fired, make_due, only
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves(*LEFT)


# -- decorators ------------------------------------------------------------------------------------------------------


async def test_a_function_that_is_due_every_so_often_runs_so_often_without_arguments(runner: TaskRunner) -> None:
    ran = list[str]()

    @runner.every(0.05)
    async def beat(ctx: JobContext, times: int = 1) -> None:
        ran.append(ctx.job_id)

    async with runner.start():
        await eventually(lambda: len(ran) >= 4)
    assert len(set(ran)) == len(ran)
    instants = [int(id.removeprefix("beat@")) for id in sorted(ran)]
    assert all((later - earlier) % 50 == 0 for earlier, later in pairwise(instants))


async def test_a_plain_function_may_be_scheduled_and_dispatched_too(runner: TaskRunner) -> None:
    @runner.cron("0 0 1 1 *", max_retry=2, queue="slow")
    def yearly() -> str:
        return current_job().queue

    async with runner.start():
        assert await (await yearly.dispatch()).result(timeout=10) == "slow"
        schedule = await eventually(runner.schedules) and await only(runner)
    assert (schedule.name, schedule.task, schedule.queue, schedule.cron) == ("yearly", "yearly", "slow", "0 0 1 1 *")
    assert (schedule.every, schedule.tz, schedule.catch_up, schedule.lock_key) == (None, "UTC", "latest", None)
    assert (schedule.paused, schedule.declared, schedule.last_fire) == (False, True, None)
    assert schedule.next_fire is not None
    assert schedule.next_fire.tzinfo is UTC
    assert (schedule.next_fire.month, schedule.next_fire.day) == (1, 1)


async def test_a_task_may_have_several_schedules_above_it(runner: TaskRunner) -> None:
    @runner.cron("@daily", name="nightly", tz="Asia/Tokyo")
    @runner.every(timedelta(hours=1))
    @runner.task(max_retry=7)
    async def clean() -> None: ...

    assert clean.options["max_retry"] == 7
    async with runner.start():
        schedules = await eventually(runner.schedules)
    assert [(one.name, one.task, one.cron, one.every, one.tz) for one in schedules] == [
        ("clean", "clean", None, 3600.0, "UTC"),
        ("nightly", "clean", "@daily", None, "Asia/Tokyo"),
    ]


async def test_nothing_is_scheduled_by_a_runner_that_only_dispatches(runner: TaskRunner) -> None:
    @runner.every(60)
    async def beat() -> None: ...

    async with runner.start(consume=False):
        await beat.dispatch()
        assert await runner.schedules() == []
    async with runner.start():
        await eventually(runner.schedules)


def test_a_function_that_needs_arguments_can_not_be_scheduled_by_decorator(runner: TaskRunner) -> None:
    for decorate in (runner.cron("@daily"), runner.every(5), runner.cron("@daily", name="other")):
        with pytest.raises(ScheduleError, match=r"'account'.*task\.job"):

            @decorate
            async def bill(ctx: JobContext, account: int) -> None: ...

    assert runner.tasks == {}


def test_a_bad_declaration_is_refused_where_it_stands(runner: TaskRunner) -> None:
    async def work() -> None: ...

    with pytest.raises(ScheduleError, match="five fields"):
        runner.cron("tomorrow")
    with pytest.raises(ScheduleError, match="time zone"):
        runner.cron("@daily", tz="Europe/Atlantis")
    with pytest.raises(ScheduleError, match="every must be"):
        runner.every(0)
    with pytest.raises(ScheduleError, match="catch_up must be"):
        runner.every(5, catch_up="some")  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="name"):
        runner.every(5, name="a\nb")(work)
    with pytest.raises(TaskOptionError, match="no option 'retries'"):
        runner.every(5, retries=3)(work)  # type: ignore[call-arg]
    with pytest.raises(ScheduleError, match="a function"):
        runner.every(5, name="x")(5)  # type: ignore[arg-type]
    runner.every(5)(work)
    with pytest.raises(ScheduleError, match="already"):
        runner.every(6)(work)
    with pytest.raises(ScheduleError, match=r"@runner\.task"):
        runner.every(6, name="y", max_retry=2)(runner.tasks["work"])
    runner.task(name="taken")(work)
    with pytest.raises(DuplicateTask):
        runner.cron("@daily", name="taken")(work)


# -- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.leaves(*LEFT, "dead")
async def test_a_job_with_arguments_and_options_can_be_scheduled(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    seen = list[Any]()

    @runner.task
    async def bill(ctx: JobContext, account: int, currency: str = "EUR") -> None:
        seen.append((account, currency, ctx.headers, ctx.queue, ctx.max_retry))
        raise ValueError("for the dead letters")

    spec = bill.with_options(headers={"by": "clock"}, max_retry=0, priority="high", queue="money").job(
        7, currency="CHF"
    )
    made = await runner.schedule("bill-7", spec, cron="TZ=Europe/Berlin 30 9 * * mon-fri", lock_key="7")
    assert (made.cron, made.tz, made.lock_key, made.declared) == ("30 9 * * mon-fri", "Europe/Berlin", "7", False)
    assert made.queue == "money"
    assert await only(runner) == made
    async with runner.start(queues=["default", "money"]):
        tick = await make_due(redis_client, keys, "bill-7")
        await eventually(lambda: seen)
        job = runner.job(f"bill-7@{tick}")
        info = await eventually(job.info)
        await eventually(lambda: ended(runner, job.id))
        assert (info.task, info.queue) == ("bill", "money")
    assert seen == [(7, "CHF", {"by": "clock"}, "money", 0)]
    after = await only(runner)
    assert after.last_fire == datetime.fromtimestamp(tick / 1000, UTC)
    assert after.next_fire is not None
    assert after.next_fire > after.last_fire, "a failure ends nothing"


@pytest.mark.leaves(*LEFT, "due", "letters", "tallies", "live")
async def test_delay_and_expires_count_from_each_firing(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    ran = list[str]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    await runner.schedule("late", work.with_options(delay=3600).job(), every=60)
    await runner.schedule("short", work.with_options(expires=5).job(), every=60)
    await runner.schedule("over", work.with_options(expires=datetime(2001, 1, 1, tzinfo=UTC)).job(), every=60)
    await asyncio.sleep(0.01)
    async with runner.start():
        ticks = {name: await make_due(redis_client, keys, name, ago=1) for name in ("late", "short", "over")}
        await eventually(lambda: ran == [f"short@{ticks['short']}"])
        late = await (await eventually(lambda: _found(runner, f"late@{ticks['late']}"))).info()
        assert late.status is JobStatus.SCHEDULED
        assert late.due_at is not None
        assert late.due_at >= datetime.fromtimestamp(ticks["late"] / 1000, UTC) + timedelta(seconds=3600)
        over = await eventually(lambda: _found(runner, f"over@{ticks['over']}"))
        await eventually(lambda: ended(runner, over.id))
        assert await over.status() is JobStatus.EXPIRED


async def _found(runner: TaskRunner, id: str) -> Any:
    job = runner.job(id)
    try:
        await job.info()
    except LookupError:
        return None
    return job


async def test_a_unique_job_that_still_runs_is_not_fired_again(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    go, ran = asyncio.Event(), list[str]()

    @runner.every(3600, unique=True)
    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)
        await go.wait()

    async with runner.start():
        await eventually(runner.schedules)
        first = await make_due(redis_client, keys, "work", ago=1)
        await eventually(lambda: ran)
        second = await make_due(redis_client, keys, "work")
        await eventually(lambda: fired(runner, second))
        go.set()
        await eventually(lambda: ended(runner, f"work@{first}"))
        third = await make_due(redis_client, keys, "work")
        await eventually(lambda: len(ran) == 2)
    assert ran == [f"work@{first}", f"work@{third}"]


async def test_a_runner_without_the_task_fires_it_for_those_who_have_it(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    elsewhere, ran = make_runner(), asyncio.Event()
    async with make_runner().start():
        await elsewhere.schedule("s", elsewhere.declare("work", queue="other").job(1), every=3600)
        tick = await make_due(redis_client, keys, "s")
        await eventually(lambda: fired(elsewhere, tick))
    owner = make_runner()

    @owner.task(queue="other")
    async def work(n: int) -> None:
        ran.set()

    async with owner.start():
        await asyncio.wait_for(ran.wait(), 20)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "either cron= or every="),
        ({"every": 5, "cron": "@daily"}, "not both"),
        ({"every": -5}, "every must be"),
        ({"cron": "0 0 30 2 *"}, "never"),
        ({"every": 5, "catch_up": "none"}, "catch_up"),
        ({"every": 5, "lock_key": 7}, "lock_key"),
        ({"every": 5, "name": ""}, "name of a schedule"),
        ({"every": 5, "name": "a" * 201}, "name of a schedule"),
        ({"every": 5, "start": datetime(2030, 1, 1)}, "time zone"),
    ],
)
async def test_what_can_not_be_is_refused_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, asked: dict[str, Any], says: str
) -> None:
    spec = runner.declare("work").job()
    with pytest.raises(ScheduleError, match=says):
        await runner.schedule(asked.pop("name", "s"), spec, **asked)
    assert await runner.schedules() == []


async def test_an_id_or_an_instant_of_its_own_can_not_be_scheduled(runner: TaskRunner) -> None:
    work = runner.declare("work")
    with pytest.raises(ScheduleError, match="leave out id="):
        await runner.schedule("s", work.with_options(id="mine").job(), every=5)
    with pytest.raises(ScheduleError, match="start="):
        await runner.schedule("s", work.with_options(at=datetime(2100, 1, 1, tzinfo=UTC)).job(), every=5)
    with pytest.raises(ScheduleError, match=r"task\.job"):
        await runner.schedule("s", work, every=5)  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        await runner.schedule("s", work.job(object()), every=5)
    assert await runner.schedules() == []


async def test_pause_and_resume_fire_nothing_of_the_pause(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    ran = list[str]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    await runner.schedule("s", work.job(), every=0.05, catch_up="all")
    async with runner.start():
        await eventually(lambda: len(ran) > 1)
        await runner.pause_schedule("s")
        paused = await only(runner)
        assert (paused.paused, paused.next_fire) == (True, None)
        await asyncio.sleep(0.3)
        count = len(ran)
        before = datetime.now(UTC)
        await runner.resume_schedule("s")
        await eventually(lambda: len(ran) > count)
        assert await only(runner) != paused
    assert paused.last_fire is not None
    late = paused.last_fire + timedelta(seconds=0.2)
    assert all(not late < _tick(id) < before - timedelta(seconds=0.1) for id in ran)


def _tick(id: str) -> datetime:
    return datetime.fromtimestamp(int(id.rpartition("@")[2]) / 1000, UTC)


async def test_who_is_not_there_can_not_be_paused_or_removed(runner: TaskRunner) -> None:
    with pytest.raises(NotFound, match="'s'"):
        await runner.pause_schedule("s")
    with pytest.raises(NotFound, match=r"runner\.schedules\(\)"):
        await runner.resume_schedule("s")
    assert await runner.unschedule("s") is False


async def test_a_new_schedule_wakes_a_worker_that_sleeps(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.worker.scheduler.LONGEST_SLEEP", 3600.0)
    runner, other, ran = make_runner(), make_runner(), asyncio.Event()

    @runner.task
    async def work() -> None:
        ran.set()

    async with runner.start():
        await (await work.dispatch()).wait(timeout=20)
        ran.clear()
        await other.schedule("s", other.declare("work").job(), every=0.2)
        await asyncio.wait_for(ran.wait(), 20)


async def test_a_schedule_that_can_not_be_read_stops_no_other_one(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, caplog: pytest.LogCaptureFixture
) -> None:
    ran = asyncio.Event()

    @runner.task
    async def work() -> None:
        ran.set()

    await runner.schedule("a-bad", work.job(), every=0.05)
    await runner.schedule("b-unknown-zone", work.job(), cron="* * * * *", tz="Europe/Berlin")
    text = await redis_client.hget(keys.schedules, "b-unknown-zone")
    await redis_client.hset(keys.schedules, "b-unknown-zone", text.replace(b"Europe/Berlin", b"Europe/Atlantis"))
    await redis_client.hset(keys.schedules, "a-bad", "rubbish")
    with caplog.at_level(logging.ERROR):
        async with runner.start():
            await make_due(redis_client, keys, "b-unknown-zone")
            await eventually(lambda: "Atlantis" in caplog.text and "'a-bad'" in caplog.text)
            assert not ran.is_set()
            await runner.schedule("good", work.job(), every=0.05)
            await asyncio.wait_for(ran.wait(), 20)
    assert caplog.text.count("Atlantis") == 1, "it is told once"

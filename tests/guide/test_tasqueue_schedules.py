"""Tasqueue's schedules; the table is in ``test_tasqueue_checklist.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from taskrunner import Backoff, JobContext, JobEvent, JobStatus, TaskRunner
from tests.guide.states import quiet
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
stays = pytest.mark.leaves("schedules", "ticks")
BERLIN = ZoneInfo("Europe/Berlin")


async def next_fire(runner: TaskRunner, **timing: Any) -> datetime:
    task = runner.tasks.get("work") or runner.declare("work")
    await runner.schedule("mine", task.job(), **timing)
    [schedule] = await runner.schedules()
    assert schedule.next_fire is not None
    return schedule.next_fire


def minutes_from_now(matches: Callable[[datetime], bool]) -> datetime:
    """The next full minute, in UTC, that matches."""
    moment = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(366 * 24 * 60 * 9):
        if matches(moment):
            return moment
        moment += timedelta(minutes=1)
    raise AssertionError("no minute matches")


@stays
@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("* * * * *", lambda t: True),
        ("30 9 * * *", lambda t: (t.hour, t.minute) == (9, 30)),
        ("5,35 8-10 * * *", lambda t: t.minute in (5, 35) and 8 <= t.hour <= 10),
        ("*/20 */6 * * *", lambda t: t.minute % 20 == 0 and t.hour % 6 == 0),
        ("10-40/15 * * * *", lambda t: t.minute in (10, 25, 40)),
        ("0 0 1 JAN *", lambda t: (t.month, t.day, t.hour, t.minute) == (1, 1, 0, 0)),
        ("0 0 * jan-feb MON", lambda t: t.month < 3 and t.isoweekday() == 1 and (t.hour, t.minute) == (0, 0)),
        ("0 12 * * Mon-Fri", lambda t: t.isoweekday() < 6 and (t.hour, t.minute) == (12, 0)),
        ("0 12 * * 0", lambda t: t.isoweekday() == 7 and (t.hour, t.minute) == (12, 0)),
        ("0 12 ? * sun", lambda t: t.isoweekday() == 7 and (t.hour, t.minute) == (12, 0)),
        ("0 12 13 ? ?", lambda t: t.day == 13 and (t.hour, t.minute) == (12, 0)),
        ("@hourly", lambda t: t.minute == 0),
        ("@daily", lambda t: (t.hour, t.minute) == (0, 0)),
        ("@midnight", lambda t: (t.hour, t.minute) == (0, 0)),
        ("@weekly", lambda t: t.isoweekday() == 7 and (t.hour, t.minute) == (0, 0)),
        ("@monthly", lambda t: (t.day, t.hour, t.minute) == (1, 0, 0)),
        ("@yearly", lambda t: (t.month, t.day, t.hour, t.minute) == (1, 1, 0, 0)),
        ("@annually", lambda t: (t.month, t.day, t.hour, t.minute) == (1, 1, 0, 0)),
    ],
)
async def test_a_cron_text_fires_when_it_says(runner: TaskRunner, text: str, matches: Any) -> None:
    expected = minutes_from_now(matches)
    assert await next_fire(runner, cron=text) in (expected, minutes_from_now(matches))


@stays
@pytest.mark.parametrize(
    ("text", "seconds"), [("@every 90s", 90), ("@every 1h30m", 5400), ("@every 2s", 2), ("@every 1m", 60)]
)
async def test_every_so_long_is_a_cron_text_too(runner: TaskRunner, text: str, seconds: int) -> None:
    before = datetime.now(UTC)
    fire = await next_fire(runner, cron=text)
    assert timedelta(seconds=seconds - 1) < fire - before < timedelta(seconds=seconds + 20)


@stays
@pytest.mark.parametrize("timing", [
    {"cron": "30 9 * * *", "tz": "Europe/Berlin"}, {"cron": "30 9 * * *", "tz": BERLIN},
    {"cron": "TZ=Europe/Berlin 30 9 * * *"}, {"cron": "CRON_TZ=Europe/Berlin 30 9 * * *"},
], ids=str)  # fmt: skip
async def test_a_zone_is_that_of_the_text_or_of_tz_and_else_utc(runner: TaskRunner, timing: dict[str, Any]) -> None:
    """Tasqueue takes the local time of whatever machine it runs on when nothing is said; here that is UTC."""
    fire = await next_fire(runner, **timing)
    local = fire.astimezone(BERLIN)
    assert (local.hour, local.minute) == (9, 30)
    fire = await next_fire(runner, cron="30 9 * * *")
    assert (fire.hour, fire.minute, fire.utcoffset()) == (9, 30, timedelta(0))


@stays
@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("0 0 13 * fri", lambda t: t.day == 13 or t.isoweekday() == 5),
        ("0 0 */2 * sun", lambda t: t.day % 2 == 1 or t.isoweekday() == 7),
        ("0 0 * * sun", lambda t: t.isoweekday() == 7),
        ("0 0 13 * *", lambda t: t.day == 13),
    ],
)
async def test_either_of_two_days_will_do_and_a_step_counts_as_restricted(
    runner: TaskRunner, text: str, matches: Any
) -> None:
    def at_midnight(t: datetime) -> bool:
        return (t.hour, t.minute) == (0, 0) and bool(matches(t))

    expected = minutes_from_now(at_midnight)
    assert await next_fire(runner, cron=text) in (expected, minutes_from_now(at_midnight))


@stays
async def test_the_first_tick_is_the_next_match_or_the_start(runner: TaskRunner) -> None:
    begin = datetime(2100, 5, 4, 12, 0, 30, tzinfo=UTC)
    assert await next_fire(runner, cron="0 * * * *", start=begin) == datetime(2100, 5, 4, 13, tzinfo=UTC)
    assert await next_fire(runner, every=3600, start=begin) == begin
    before = datetime.now(UTC)
    fire = await next_fire(runner, every=3600)
    assert timedelta(seconds=3599) < fire - before < timedelta(seconds=3620)


async def test_every_tick_is_a_job_with_an_id_of_its_own(runner: TaskRunner) -> None:
    ids = list[str]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        ids.append(ctx.job_id)

    await runner.schedule("mine", work.job(), every=0.1)
    async with runner.start():
        await eventually(lambda: len(ids) >= 4)
        await runner.unschedule("mine")
        await eventually(lambda: quiet(runner))
        assert [await runner.job(id).status() for id in ids] == [JobStatus.SUCCEEDED] * len(ids)
    assert len(set(ids)) == len(ids)
    assert all(id.startswith("mine@") for id in ids)


async def test_a_time_alone_is_one_run(runner: TaskRunner) -> None:
    ran = list[int]()

    @runner.task
    async def work() -> None:
        ran.append(1)

    async with runner.start():
        job = await work.with_options(at=datetime.now(UTC) + timedelta(seconds=0.2)).dispatch()
        assert await job.status() is JobStatus.SCHEDULED
        await job.wait(timeout=20)
        assert await runner.schedules() == []
    assert ran == [1]


@pytest.mark.leaves("dead")
async def test_a_schedule_goes_on_whatever_its_jobs_return_or_raise(runner: TaskRunner) -> None:
    runs = list[int]()

    @runner.task(max_retry=0, ignore_result=True)
    async def work() -> None:
        runs.append(1)
        if len(runs) % 2:
            raise ValueError

    await runner.schedule("mine", work.job(), every=0.1)
    async with runner.start():
        await eventually(lambda: len(runs) >= 5)
        await runner.unschedule("mine")
        await eventually(lambda: quiet(runner))
    assert await runner.dead_letters.count("work") == (len(runs) + 1) // 2


async def test_a_schedule_of_two_processes_is_one_schedule(make_runner: MakeRunner) -> None:
    runners, ids = [make_runner(), make_runner()], list[str]()

    async def work(ctx: JobContext) -> None:
        ids.append(ctx.job_id)

    for runner in runners:
        runner.every(0.1, catch_up="all")(work)
    async with runners[0].start(), runners[1].start():
        [schedule] = await eventually(runners[0].schedules)
        await eventually(lambda: len(ids) >= 6)
        await runners[1].unschedule(schedule.name)
        await eventually(lambda: quiet(runners[0]))
    assert len(ids) == len(set(ids))
    ticks = sorted(int(id.rpartition("@")[2]) for id in ids)
    assert ticks == list(range(ticks[0], ticks[-1] + 1, 100))


async def test_schedules_are_listed_and_removed(runner: TaskRunner) -> None:
    work = runner.declare("work")
    await runner.schedule("hourly", work.job(1), cron="@hourly")
    await runner.schedule("often", work.job(2), every=timedelta(minutes=5))
    await runner.schedule("often", work.job(3), every=600)
    found = {one.name: one for one in await runner.schedules()}
    assert {name: (one.task, one.cron, one.every, one.paused, one.last_fire) for name, one in found.items()} == {
        "hourly": ("work", "@hourly", None, False, None),
        "often": ("work", None, 600.0, False, None),
    }
    for name in ("hourly", "often"):
        assert await runner.unschedule(name)
        assert not await runner.unschedule(name)
    assert await runner.schedules() == []


@pytest.mark.leaves("dead")
async def test_callbacks_are_there_for_every_tick(runner: TaskRunner) -> None:
    told, followed = list[tuple[str, str]](), list[Any]()

    @runner.task
    async def after(ctx: JobContext) -> None:
        followed.append(ctx.previous)

    def failed(event: JobEvent) -> None:
        told.append(("failure", event.job_id))

    @runner.task(max_retry=1, backoff=Backoff.constant(0), on_success=after.job(), on_failure=failed)
    async def work(ctx: JobContext) -> int:
        if int(ctx.job_id.rpartition("@")[2]) // 200 % 2:
            raise ValueError
        return 7

    await runner.schedule("mine", work.job(), every=0.2)
    async with runner.start():
        await eventually(lambda: len(told) >= 2 and len(followed) >= 2)
        await runner.unschedule("mine")
        await eventually(lambda: quiet(runner))
        await asyncio.sleep(0)
    assert set(followed) == {7}
    assert len({id for _, id in told}) == len(told)

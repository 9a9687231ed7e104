"""lockq's repeats; the table is in ``test_lockq_checklist.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from taskrunner import (
    Backoff,
    JobContext,
    ScheduleError,
    ScheduleExists,
    TaskRunner,
)
from taskrunner.worker import executor
from tests.guide.states import dead, failing, quiet, tick
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_a_repeat_counts_from_its_ticks_and_stays_while_its_job_runs(make_runner: MakeRunner) -> None:
    runner, ticks, listed = make_runner(), list[int](), list[int]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        ticks.append(tick(ctx.job_id))
        listed.append(len(await runner.schedules()))
        await asyncio.sleep(0.07)  # which moves no tick

    begin = datetime.now(UTC)
    await runner.schedule("repeat", work.job(), every=0.25)
    async with runner.start():
        await eventually(lambda: len(ticks) >= 4)
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
    assert {(at - ticks[0]) % 250 for at in ticks} == {0}
    assert len(set(ticks)) == len(ticks)
    assert ticks[0] >= begin.timestamp() * 1000 + 249, "the first is one interval from now"
    assert set(listed) <= {0, 1}
    assert listed[:4] == [1] * 4


@pytest.mark.parametrize("interval", [0, -1])
async def test_a_repeat_without_a_positive_interval_is_refused(runner: TaskRunner, interval: int) -> None:
    with pytest.raises(ScheduleError, match="every must be"):
        await runner.schedule("repeat", runner.declare("work").job(), every=interval)


async def test_missed_ticks_are_one(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.schedule.LATE", 100)
    runner, ticks = make_runner(), list[int]()

    @runner.task
    async def work(ctx: JobContext) -> None:
        ticks.append(tick(ctx.job_id))

    await runner.schedule("repeat", work.job(), every=0.3)
    [schedule] = await runner.schedules()
    assert schedule.next_fire is not None
    first = round(schedule.next_fire.timestamp() * 1000)
    await asyncio.sleep(1.6)  # five ticks
    async with runner.start():
        await eventually(lambda: len(ticks) >= 3)
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
    assert ticks[0] >= first + 3 * 300, "of those that were missed the latest"
    assert {(at - first) % 300 for at in ticks} == {0}


async def test_there_is_one_schedule_per_task_and_lock_key(runner: TaskRunner) -> None:
    """lockq compares the key over all types, though it promises otherwise; here it is one per task and key."""
    work, other = runner.declare("work"), runner.declare("other")
    await runner.schedule("first", work.job(), every=1000, lock_key="customer")
    with pytest.raises(ScheduleExists, match="first"):
        await runner.schedule("second", work.job(), every=1000, lock_key="customer")
    await runner.schedule("first", work.job(), every=2000, lock_key="customer")
    await runner.schedule("of another task", other.job(), every=1000, lock_key="customer")
    await runner.schedule("of another key", work.job(), every=1000, lock_key="another")
    for name in ("one", "two"):
        await runner.schedule(name, work.job(), every=1000)
    assert len(await runner.schedules()) == 5
    await runner.unschedule("first")
    await runner.schedule("second", work.job(), every=1000, lock_key="customer")
    for schedule in await runner.schedules():
        assert await runner.unschedule(schedule.name)


async def test_a_tick_that_fails_is_retried_and_the_next_one_begins_anew(make_runner: MakeRunner) -> None:
    """lockq puts the retry in the place of the next tick; here the ticks go on as they are."""
    runner, runs = make_runner(), list[tuple[int, int]]()

    @runner.task(max_retry=3, backoff=Backoff.constant(0.25))
    async def work(ctx: JobContext) -> None:
        runs.append((tick(ctx.job_id), ctx.attempt))
        if ctx.attempt < 3:
            raise ValueError

    await runner.schedule("repeat", work.job(), every=0.2)
    async with runner.start():
        await eventually(lambda: len({at for at, _ in runs}) >= 4)
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
    for at in {at for at, _ in runs}:
        assert [attempt for one, attempt in runs if one == at] == [1, 2, 3]
    first_runs = [at for at, attempt in runs if attempt == 1]
    assert {(at - first_runs[0]) % 200 for at in first_runs} == {0}
    assert len(set(first_runs)) == len(first_runs)
    assert await runner.dead_letters.count() == 0


@pytest.mark.leaves("dead")
async def test_a_tick_that_fails_for_good_is_a_dead_letter_and_the_schedule_goes_on(runner: TaskRunner) -> None:
    """lockq ends the repeat with its first dead letter."""
    bad = failing(runner)
    await runner.schedule("repeat", bad.job(1), every=0.1)
    async with runner.start():
        await eventually(lambda: dead(runner, 3))
        [schedule] = await runner.schedules()
        assert schedule.next_fire is not None
        await runner.unschedule("repeat")
        await runner.schedule("repeat", bad.job(2), every=1000)
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
    letters = await runner.dead_letters.list("bad")
    assert len({letter.id for letter in letters}) == len(letters)
    assert all(letter.id.startswith("repeat@") for letter in letters)


async def test_a_schedule_that_was_removed_fires_no_more_and_its_name_is_free(runner: TaskRunner) -> None:
    ran = list[int]()

    @runner.task
    async def work(n: int) -> None:
        ran.append(n)

    assert not await runner.unschedule("repeat")
    with pytest.raises(ScheduleError, match="name"):
        await runner.unschedule("")
    async with runner.start():
        await runner.schedule("repeat", work.job(1), every=0.05)
        await eventually(lambda: len(ran) >= 2)
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
        done = len(ran)
        await runner.schedule("repeat", work.job(2), every=0.1)
        await eventually(lambda: ran[done:])
        await runner.unschedule("repeat")
        await eventually(lambda: quiet(runner))
    assert set(ran[done:]) == {2}
    assert await runner.schedules() == []


async def test_the_schedules_of_a_lock_key_are_deleted_by_it_and_none_is_no_error(runner: TaskRunner) -> None:
    work, other = runner.declare("work"), runner.declare("other")
    with pytest.raises(ScheduleError, match="lock_key must be"):
        await runner.delete_schedule(lock_key="")
    assert await runner.delete_schedule(lock_key="customer") == 0
    await runner.schedule("one", work.job(), every=1000, lock_key="customer")
    await runner.schedule("two", other.job(), every=1000, lock_key="customer")
    await runner.schedule("three", work.job(), every=1000, lock_key="another")
    assert await runner.delete_schedule(lock_key="customer") == 2
    assert [schedule.name for schedule in await runner.schedules()] == ["three"]
    await runner.schedule("four", work.job(), every=1000, lock_key="customer")
    assert await runner.delete_schedule(lock_key="customer") + await runner.delete_schedule(lock_key="another") == 2


# -- beside jobs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker doesn't know comes back at once."""
    monkeypatch.setattr(executor, "UNKNOWN_WAIT", (0.05, 0.1))


async def test_a_worker_without_handlers_discards_neither_jobs_nor_schedules(
    make_runner: MakeRunner, soon_again: None
) -> None:
    idle, knowing, ran = make_runner(), make_runner(), list[str]()
    work = idle.declare("work")
    await idle.schedule("repeat", work.job("tick"), every=0.2)
    async with idle.start():
        job = await work.dispatch("job")
        await eventually(lambda: put_aside(idle))
        assert [one.name for one in await idle.schedules()] == ["repeat"]
    assert await idle.dead_letters.count() == 0

    @knowing.task(name="work")
    async def handle(what: str) -> str:
        ran.append(what)
        return what

    async with knowing.start():
        assert await knowing.job(job.id).result(timeout=20) == "job"
        await eventually(lambda: "tick" in ran)
        await knowing.unschedule("repeat")
        await eventually(lambda: quiet(knowing))


async def put_aside(runner: TaskRunner) -> bool:
    return (await runner.stats()).scheduled >= 2


async def test_with_healthy_workers_every_job_and_every_tick_runs_exactly_once(make_runner: MakeRunner) -> None:
    runners, ran = [make_runner() for _ in range(3)], list[str]()

    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    tasks = [runner.task(work) for runner in runners]
    jobs = await runners[0].dispatch_many([tasks[0].job() for _ in range(300)])
    for n in range(8):
        await runners[n % 3].schedule(f"repeat {n}", tasks[0].job(), every=0.1, catch_up="all")
    async with runners[0].start(), runners[1].start(), runners[2].start():
        await eventually(lambda: min_ticks(ran) >= 5)
        for n in range(8):
            await runners[0].unschedule(f"repeat {n}")
        for job in jobs:
            await job.wait(timeout=20)
        await eventually(lambda: quiet(runners[0]))
    assert len(ran) == len(set(ran))
    assert {job.id for job in jobs} <= set(ran)
    for n in range(8):
        ticks = sorted(tick(id) for id in ran if id.startswith(f"repeat {n}@"))
        assert ticks == list(range(ticks[0], ticks[-1] + 1, 100))


def min_ticks(ran: list[str]) -> int:
    return min(sum(id.startswith(f"repeat {n}@") for id in ran) for n in range(8))

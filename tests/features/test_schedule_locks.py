"""Lock keys of schedules: at most one schedule of a task has a key, and all of a key are deleted by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import JobContext, ScheduleExists, TaskRunner
from taskrunner.store.schedules import Schedules
from tests.features.scheduling import LEFT
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves(*LEFT)


async def test_one_schedule_per_task_and_lock_key(runner: TaskRunner) -> None:
    work, other = runner.declare("work"), runner.declare("other")
    await runner.schedule("a", work.job(1), every=60, lock_key="k")
    with pytest.raises(ScheduleExists, match="'a' has the lock key 'k'"):
        await runner.schedule("b", work.job(2), every=60, lock_key="k")
    await runner.schedule("b", other.job(2), every=60, lock_key="k")
    await runner.schedule("a", work.job(3), every=61, lock_key="k")
    assert await runner.unschedule("a")
    await runner.schedule("c", work.job(2), every=60, lock_key="k")
    assert [one.name for one in await runner.schedules()] == ["b", "c"]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_schedules_of_a_lock_key_are_deleted_whatever_their_tasks_and_their_key_is_free(
    make_runner: MakeRunner, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)
    one, two, three = [runner.declare(name) for name in ("one", "two", "three")]
    for task in (one, two, three):
        await runner.schedule(task.name, task.job(), every=60, lock_key="k")
    await runner.pause_schedule("three")
    await runner.schedule("of another key", one.job(), every=60, lock_key="kk")
    await runner.schedule("k", one.job(), every=60)
    assert await runner.delete_schedule(lock_key="k") == 3
    assert [one.name for one in await runner.schedules()] == ["k", "of another key"]
    assert await runner.delete_schedule(lock_key="k") == 0, "none is left, and that is no error"
    await runner.schedule("another", one.job(), every=60, lock_key="k")


async def test_a_schedule_that_is_replaced_while_its_key_is_deleted_goes_unless_it_has_another_one(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, replaced = runner.declare("work"), [("a", 61, "k"), ("b", 61, "other")]
    await runner.schedule("a", work.job(), every=60, lock_key="k")
    await runner.schedule("b", runner.declare("more").job(), every=60, lock_key="k")
    remove = Schedules.remove

    async def late(self: Schedules, *names: str, revisions: Any = ()) -> list[bool]:
        while replaced:
            name, every, key = replaced.pop()
            await runner.schedule(name, work.job(), every=every, lock_key=key)
        return await remove(self, *names, revisions=revisions)

    monkeypatch.setattr(Schedules, "remove", late)
    assert await runner.delete_schedule(lock_key="k") == 1
    assert [(one.name, one.lock_key) for one in await runner.schedules()] == [("b", "other")]


async def test_jobs_that_a_deleted_schedule_has_fired_go_on(runner: TaskRunner) -> None:
    @runner.task
    async def work(ctx: JobContext) -> str | None:
        return ctx.lock_key

    await runner.schedule("s", work.job(), every=0.05, lock_key="k")
    async with runner.start():
        await runner.pause("default")
        await eventually(lambda: runner.count())
        assert await runner.delete_schedule(lock_key="k") == 1
        jobs = [job.id for job in await runner.jobs("queued")]
        await runner.resume("default")
        for id in jobs:
            assert await runner.job(id).result(timeout=20) == "k"
        await eventually(lambda: _drained(runner))
    assert jobs


async def _drained(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running == 0

"""After everything that jobs, schedules and operators can do, a namespace holds what it holds after its first job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import redis.asyncio

from taskrunner import Backoff, Job, JobContext, JobStatus, QueueBusy, Retry, Snooze, TaskRunner
from taskrunner.store.keys import PERMANENT
from tests.features.untouched import remains
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
PRIORITIES: tuple[Literal["high", "normal", "low"], ...] = ("high", "normal", "low")
AT_ONCE, NEVER = Backoff.constant(0), Backoff.constant(1000)


class Everything:
    """Tasks of all kinds, in two queues, and what is done with their jobs."""

    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner
        self.go = asyncio.Event()
        self.task = runner.task(name="any", max_retry=2, backoff=AT_ONCE)(self._any)
        self.mail = runner.task(name="mail", queue="mail", concurrency=2, max_retry=0)(self._any)
        self.stuck = runner.task(name="stuck", backoff=NEVER, unique=True)(self._any)
        self.after = runner.task(name="after", priority="low")(self._after)
        self.first = runner.task(
            name="first", backoff=AT_ONCE, on_success=self.after.job(), on_failure=self.after.job()
        )(self._any)

    async def _any(self, ctx: JobContext, what: str) -> str:
        await ctx.save(what)
        if what == "hold":
            await self.go.wait()
        elif what == "fail" or (what == "fail once" and ctx.attempt == 1):
            raise ValueError(what)
        elif what == "retry" and ctx.attempt == 1:
            raise Retry(0)
        elif what == "snooze" and not self.go.is_set():
            raise Snooze(0.02)
        return what

    async def _after(self, ctx: JobContext) -> Any:
        return ctx.previous

    async def ends(self) -> None:
        """Jobs that end by themselves, in every way, and with every priority."""
        for priority in PRIORITIES:
            for task in (self.task, self.mail, self.first):
                bound = task.with_options(priority=priority)
                for what in ("", "fail", "fail once", "retry", "snooze"):
                    await bound.dispatch(what)
                await task.with_options(priority=priority, delay=0.05).dispatch("fail")
                await task.with_options(priority=priority, delay=0.05, expires=0.001).dispatch("")
                await task.with_options(priority=priority, ignore_result=True).dispatch("fail")
        await self.task.with_options(id="mine", timeout=0.01, max_retry=0).dispatch("hold")
        self.go.set()
        await eventually(lambda: quiet(self.runner))
        self.go.clear()

    async def schedules(self) -> None:
        runner, fired = self.runner, self.task.with_options(priority="high")
        for n, key in enumerate((None, "one", "two")):
            await runner.schedule(f"tick {n}", fired.job("fail once"), every=0.05, lock_key=key)
        await runner.schedule("never", fired.job(""), cron="0 0 1 1 *", tz="Europe/Berlin")
        await eventually(self._all_fired)
        await runner.pause_schedule("tick 1")
        for schedule in await runner.schedules():
            assert await runner.unschedule(schedule.name)

    async def _all_fired(self) -> bool:
        return all(one.last_fire is not None for one in await self.runner.schedules() if one.name != "never")

    async def uniques(self) -> None:
        def bound(mode: Any, **options: Any) -> Any:
            return self.task.with_options(unique=mode, unique_key=str(mode), **options)

        held = await bound("latest").dispatch("hold")
        await eventually(lambda: is_in(held, JobStatus.RUNNING))
        blocked = [await bound("latest").dispatch(what) for what in ("fail", "")]
        assert await blocked[0].status() is JobStatus.BLOCKED
        for what in ("fail", "fail", ""):
            await bound("debounce", unique_for=0.1).dispatch(what)
            await bound(True, unique_for=0.2).dispatch("")
        self.go.set()
        await eventually(lambda: quiet(self.runner))
        self.go.clear()

    async def cancels_and_deletes(self, end: Callable[[Job[Any]], Any]) -> None:
        """Ends jobs in every state in which one can be."""
        runner, task = self.runner, self.task
        running = [await one.dispatch("hold") for one in (task, self.stuck)]
        await eventually(lambda: are_in(running, JobStatus.RUNNING))
        retrying = await self.stuck.dispatch("fail")
        await eventually(lambda: is_in(retrying, JobStatus.RETRYING))
        latest = [await task.with_options(unique="latest", unique_key="c").dispatch(what) for what in ("hold", "", "")]
        scheduled = await task.with_options(priority="low", delay=1000, unique=True).dispatch("")
        waiting = await task.with_options(unique="debounce", unique_for=1000).dispatch("")
        await runner.pause("mail")
        queued = await self.mail.with_options(priority="high", unique=True).dispatch("")
        for job in (*running, retrying, *latest[1:], latest[0], scheduled, waiting, queued):
            await end(job)
        await runner.resume("mail")

    async def dead_letters(self) -> None:
        letters = self.runner.dead_letters
        failed = await self.mail.with_options(priority="low", unique=True).dispatch("fail")
        await eventually(lambda: quiet(self.runner))
        await letters.retry(failed.id)
        await eventually(lambda: quiet(self.runner))
        assert await letters.retry_all("mail")
        await eventually(lambda: quiet(self.runner))
        assert await letters.delete(failed.id)
        assert await letters.purge()
        assert await letters.count() == 0

    async def purges(self) -> None:
        runner = self.runner
        await runner.pause()
        for n, priority in enumerate(PRIORITIES):
            bound = self.mail.with_options(priority=priority, unique=True)
            later = self.mail.with_options(priority=priority, delay=1000)
            await bound.dispatch(priority)
            await later.dispatch(priority)
            assert await runner.count("mail") == n + 1
        with pytest.raises(QueueBusy):
            await self.mail.with_options(max_wait=0).dispatch("")
        assert await runner.purge("mail") == 6
        await runner.resume()


async def is_in(job: Job[Any], status: JobStatus) -> bool:
    return await job.status() is status


async def are_in(jobs: Sequence[Job[Any]], status: JobStatus) -> bool:
    return {await job.status() for job in jobs} == {status}


async def quiet(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting + stats.running + stats.scheduled + stats.blocked == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_after_everything_only_the_permanent_keys_are_there(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, partitions: int
) -> None:
    runner = make_runner(partitions=partitions, result_ttl=1)
    everything = Everything(runner)
    async with runner.start():
        await everything.ends()
        await everything.schedules()
        await everything.uniques()
        await everything.cancels_and_deletes(lambda job: job.cancel())
        await everything.cancels_and_deletes(lambda job: runner.delete(job.id))
        await everything.purges()
        await eventually(lambda: quiet(runner))
        await everything.dead_letters()
        await eventually(lambda: quiet(runner))
        stats = await runner.stats()
        assert (stats.waiting, stats.running, stats.scheduled, stats.blocked, stats.dead) == (0, 0, 0, 0, 0)
        assert {name: one.waiting for name, one in stats.per_task.items() if one.waiting} == {}
        assert [await runner.count(state=state) for state in ("queued", "scheduled", "retrying", "running")] == [0] * 4
    await runner.aclose()
    assert await remains(redis_client, namespace) == {}


async def test_a_hundred_rounds_leave_as_many_keys_as_one(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner = make_runner(result_ttl=0.2)

    @runner.task(max_retry=0)
    async def work(n: int) -> None:
        if n % 2:
            raise ValueError

    async def one_round(n: int) -> None:
        for priority in PRIORITIES:
            bound = work.with_options(unique=True, unique_key=priority, priority=priority)
            await bound.dispatch(n)
        await (await work.with_options(delay=1000).dispatch(n)).cancel()
        await runner.schedule(f"name {n}", work.job(n), every=1000, lock_key=str(n))
        await runner.unschedule(f"name {n}")
        await eventually(lambda: quiet(runner))
        await runner.dead_letters.purge()

    async def sizes() -> dict[str, int]:
        found = dict[str, int]()
        async for key in redis_client.scan_iter(match=f"*{namespace}*", count=1000):
            name, kind = key.decode().partition("}:")[2], await redis_client.type(key)
            if name.startswith(PERMANENT) and kind == b"hash":
                found[name] = await redis_client.hlen(key)
            elif await redis_client.pttl(key) == -1:
                found[name] = 0
        return found

    async with runner.start():
        for n in range(4):
            await one_round(n)
        before = await sizes()
        for n in range(4, 104):
            await one_round(n)
        after = await sizes()
    assert after.pop("janitor") <= before.pop("janitor") + 20, "cursors and turns of queues, and none of jobs"
    assert after == before

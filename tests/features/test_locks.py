"""Lock keys: one job of a key at a time, in the order of their dispatches, over all tasks and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from taskrunner import Backoff, Job, JobContext, JobFailed, JobStatus, Limit, Rate, Snooze, TaskRunner, current_job
from taskrunner.features import locks
from tests.features import process_tasks
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")


class Log:
    """What runs, and what ran: never two at once of one key."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.fences: list[int] = []
        self.holders: dict[str | None, Any] = {}

    async def work(self, n: int, key: str = "k") -> int:
        ctx = current_job()
        self.began.append(n)
        self.fences.append(ctx.fence)
        assert ctx.lock_key not in self.holders, f"{n} began while {self.holders[ctx.lock_key]} ran"
        self.holders[ctx.lock_key] = n
        await asyncio.sleep(0.001)
        del self.holders[ctx.lock_key]
        self.ended.append(n)
        return n


@pytest.fixture
def log() -> Log:
    return Log()


def fleet(make_runner: MakeRunner, register: Callable[[TaskRunner], Any], **settings: Any) -> list[Any]:
    """Two runners with the same tasks, and what each registered."""
    return [(runner, register(runner)) for runner in (make_runner(**settings), make_runner(**settings))]


async def started(stack: AsyncExitStack, *runners: TaskRunner) -> None:
    for runner in runners:
        await stack.enter_async_context(runner.start())


def is_in(job: Job[Any], status: JobStatus) -> Callable[[], Any]:
    async def look() -> bool:
        return await job.status() is status

    return look


async def test_jobs_of_one_key_run_one_at_a_time_in_their_order_over_two_tasks_and_runners(
    make_runner: MakeRunner, log: Log
) -> None:
    def register(runner: TaskRunner) -> Any:
        return [runner.task(name=name, lock_key="{key}", max_retry=0)(log.work) for name in ("one", "two")]

    (here, tasks), (there, _) = fleet(make_runner, register)
    async with AsyncExitStack() as stack:
        jobs = [await tasks[n % 2].dispatch(n) for n in range(20)]
        await started(stack, here, there)
        jobs += [await tasks[n % 2].dispatch(n) for n in range(20, 40)]
        assert [await job.result(timeout=30) for job in jobs] == list(range(40))
    assert log.began == log.ended == list(range(40))
    assert log.fences == sorted(set(log.fences)), "the fence grows with every hand-over"


async def test_jobs_of_different_keys_run_beside_each_other(runner: TaskRunner) -> None:
    together = asyncio.Barrier(3)

    @runner.task(lock_key="{key}")
    async def meet(key: str | None) -> None:
        await together.wait()

    @runner.task
    async def unlocked() -> None:
        await together.wait()

    async with runner.start():
        jobs: list[Job[Any]] = [await meet.dispatch("a"), await meet.dispatch("b"), await unlocked.dispatch()]
        for job in jobs:
            await job.result(timeout=20)


async def test_a_job_waits_as_blocked_takes_no_slot_and_shows_its_key(make_runner: MakeRunner) -> None:
    runner, go = make_runner(num_workers=2), asyncio.Event()

    @runner.task(lock_key="user:{n}")
    async def held(n: int) -> None:
        await go.wait()

    @runner.task
    async def plain() -> str:
        return "there was a slot"

    async with runner.start():
        first = await held.dispatch(7)
        await eventually(is_in(first, JobStatus.RUNNING))
        waiting = [await held.dispatch(7) for _ in range(5)]
        for job in waiting:
            info = await job.info()
            assert (info.status, info.lock_key) == (JobStatus.BLOCKED, "user:7")
        assert (await first.info()).lock_key == "user:7"
        assert await (await plain.dispatch()).result(timeout=20) == "there was a slot"
        go.set()
        for job in (first, *waiting):
            await job.result(timeout=20)
        assert (await first.info()).lock_key is None, "it has ended"


@pytest.mark.parametrize("way", ["a retry", "a snooze"])
async def test_the_key_is_free_while_a_job_waits_for_its_next_run(runner: TaskRunner, way: str) -> None:
    order = list[str]()
    statuses = list[JobStatus]()
    jobs = dict[str, Job[Any]]()

    @runner.task(lock_key="k", backoff=Backoff.constant(1))
    async def work(ctx: JobContext, name: str) -> None:
        order.append(name)
        if name == "first" and len(order) == 1:
            raise ValueError if way == "a retry" else Snooze(1)
        if name == "second":
            statuses.append(await jobs["first"].status())

    jobs["first"] = await work.dispatch("first")
    jobs["second"] = await work.dispatch("second")
    async with runner.start():
        for job in jobs.values():
            await job.result(timeout=20)
    assert order == ["first", "second", "first"], "the other one overtakes"
    assert statuses == [JobStatus.RETRYING if way == "a retry" else JobStatus.SCHEDULED]


@end_in_dead_letters
async def test_a_job_that_fails_for_good_lets_the_next_one_go(runner: TaskRunner) -> None:
    @runner.task(lock_key="k", max_retry=0)
    async def work(n: int) -> int:
        if n == 0:
            raise ValueError
        return n

    jobs = [await work.dispatch(n) for n in range(2)]
    async with runner.start():
        with pytest.raises(JobFailed):
            await jobs[0].result(timeout=20)
        assert await jobs[1].result(timeout=20) == 1


async def test_results_may_be_ignored(runner: TaskRunner, log: Log) -> None:
    task = runner.task(lock_key="{key}", ignore_result=True, max_retry=0)(log.work)
    async with runner.start():
        await runner.dispatch_many([task.job(n) for n in range(10)])
        await eventually(lambda: len(log.ended) == 10)
    assert log.began == list(range(10))


async def test_a_job_without_a_lock_key_waits_for_nobody(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task(lock_key=lambda n: "k" if n else None)
    async def work(n: int) -> int:
        if n == 1:
            await go.wait()
        return n

    async with runner.start():
        held = await work.dispatch(1)
        await eventually(is_in(held, JobStatus.RUNNING))
        assert await (await work.dispatch(0)).result(timeout=20) == 0
        assert await (await work.with_options(lock_key="other").dispatch(2)).result(timeout=20) == 2
        assert await (await work.with_options(lock_key=None).dispatch(3)).result(timeout=20) == 3
        blocked = await work.dispatch(4)
        assert await blocked.status() is JobStatus.BLOCKED
        go.set()
        assert await blocked.result(timeout=20) == 4


async def test_a_job_that_waits_for_its_time_or_in_a_paused_queue_holds_no_key(runner: TaskRunner) -> None:
    @runner.task(lock_key="k")
    async def work(n: int) -> int:
        return n

    async with runner.start():
        await runner.pause("other")
        later = await work.with_options(delay=1000).dispatch(1)
        paused = await work.with_options(queue="other").dispatch(2)
        assert await (await work.dispatch(3)).result(timeout=20) == 3
        await later.cancel()
        await paused.cancel()
        await runner.resume("other")


@pytest.mark.parametrize("partitions", [1, 3])
async def test_many_keys_over_two_runners_and_any_number_of_partitions(
    make_runner: MakeRunner, log: Log, partitions: int
) -> None:
    def register(runner: TaskRunner) -> Any:
        return runner.task(lock_key="user:{key}", max_retry=0)(log.work)

    (here, task), (there, _) = fleet(make_runner, register, partitions=partitions)
    async with AsyncExitStack() as stack:
        await started(stack, here, there)
        jobs = await here.dispatch_many([task.job(n, str(n % 7)) for n in range(100)])
        assert [await job.result(timeout=30) for job in jobs] == list(range(100))
    for key in range(7):
        own = [n for n in log.began if n % 7 == key]
        assert own == sorted(own), "first in, first out"


async def test_a_job_of_a_process_knows_its_key_and_its_fence(runner: TaskRunner) -> None:
    task = runner.task(name="lock", pool="process", lock_key="user:{n}")(process_tasks.lock)
    async with runner.start():
        first = await (await task.dispatch(7)).result(timeout=30)
        second = await (await task.dispatch(7)).result(timeout=30)
    assert first[0] == second[0] == "user:7"
    assert 0 < first[1] < second[1]


# -- handlers that serve only some jobs ----------------------------------------------------------------------------


async def test_each_handler_serves_the_jobs_of_its_mode(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "AWAY", (0.005, 0.05))  # it is a draw who gets what was handed back
    served: dict[str, list[str | None]] = {"locked": [], "unlocked": []}

    def register(runner: TaskRunner, mode: Any) -> Any:
        @runner.task(name="work", mode=mode, lock_key=lambda n: f"user:{n}" if n % 2 else None)
        async def work(ctx: JobContext, n: int) -> int:
            assert ctx.attempt == 1, "a hand-back is no attempt"
            served[mode].append(ctx.lock_key)
            return n

        return work

    ones = [(make_runner(), mode) for mode in served]
    tasks = [register(runner, mode) for runner, mode in ones]
    async with AsyncExitStack() as stack:
        await started(stack, *(runner for runner, _ in ones))
        jobs = [await tasks[n % 2].dispatch(n) for n in range(20)]
        assert [await job.result(timeout=60) for job in jobs] == list(range(20))
    assert sorted(str(one) for one in served["locked"]) == sorted(f"user:{n}" for n in range(1, 20, 2))
    assert served["unlocked"] == [None] * 10


async def test_a_job_that_no_handler_serves_waits_and_holds_no_key(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "AWAY", (0.005, 0.05))
    runner = make_runner()

    @runner.task(mode="unlocked")
    async def picky() -> None: ...

    @runner.task
    async def other() -> str:
        return "ran"

    async with runner.start():
        job = await picky.with_options(lock_key="k").dispatch()
        await eventually(is_in(job, JobStatus.SCHEDULED))
        assert await (await other.with_options(lock_key="k").dispatch()).result(timeout=20) == "ran"
        assert await job.cancel()


# -- with the rest -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_lock_key_of_a_schedule_is_that_of_its_jobs(make_runner: MakeRunner, partitions: int) -> None:
    runner = make_runner(partitions=partitions)
    keys, fired, go = set[str | None](), asyncio.Event(), asyncio.Event()

    @runner.task
    async def tick(ctx: JobContext) -> None:
        keys.add(ctx.lock_key)
        fired.set()

    @runner.task(lock_key="own")
    async def own(ctx: JobContext) -> None:
        keys.add(ctx.lock_key)

    @runner.task(lock_key="{{braces}}")
    async def hold() -> None:
        await go.wait()

    async with runner.start():
        holder = await hold.dispatch()
        await eventually(is_in(holder, JobStatus.RUNNING))
        await runner.schedule("ticks", tick.job(), every=0.05, lock_key="{braces}")
        await runner.schedule("owner", own.job(), every=0.05, lock_key="of the schedule")
        await eventually(lambda: runner.count(state=JobStatus.BLOCKED))
        await eventually(lambda: "own" in keys)
        assert not fired.is_set(), "its jobs wait for the other task's"
        go.set()
        await asyncio.wait_for(fired.wait(), 20)
        assert await runner.unschedule("ticks")
        assert await runner.unschedule("owner")
        await eventually(drained(runner))
    assert keys == {"{braces}", "own"}


def drained(runner: TaskRunner) -> Callable[[], Any]:
    async def look() -> bool:
        return sum([await runner.count(state=state) for state in ("queued", "blocked", "running", "scheduled")]) == 0

    return look


@end_in_dead_letters
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_dead_letter_that_runs_again_waits_for_its_key(make_runner: MakeRunner, partitions: int) -> None:
    runner, fails, go, order = make_runner(partitions=partitions), [True], asyncio.Event(), list[str]()

    @runner.task(lock_key="k", max_retry=0)
    async def fragile(ctx: JobContext) -> str | None:
        if fails:
            raise ValueError
        order.append("again")
        return ctx.lock_key

    @runner.task(lock_key="k")
    async def hold() -> None:
        await go.wait()
        order.append("holder")

    async with runner.start():
        jobs = [await fragile.with_options(priority=name).dispatch() for name in ("high", "low", "low")]
        for job in jobs:
            with pytest.raises(JobFailed):
                await job.result(timeout=20)
        dead = jobs[2]  # one that has waited for the others
        holder = await hold.dispatch()
        await eventually(is_in(holder, JobStatus.RUNNING))
        fails.clear()
        again = await runner.dead_letters.retry(dead.id)
        await eventually(is_in(again, JobStatus.BLOCKED))
        go.set()
        assert await again.result(timeout=20) == "k"
    assert order == ["holder", "again"]


async def test_a_job_may_be_unique_and_have_a_lock_a_limit_and_a_rate(runner: TaskRunner, log: Log) -> None:
    everything: Any = {"limit": Limit(3), "rate_limit": Rate(1000, per=1), "unique": True, "max_retry": 0}
    task = runner.task(lock_key="{key}", **everything)(log.work)
    async with runner.start():
        jobs = [await task.dispatch(n) for n in range(10)]
        assert [await job.result(timeout=20) for job in jobs] == list(range(10))
    assert log.began == list(range(10))

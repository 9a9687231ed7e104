"""Pause and resume: no worker starts a job of a paused queue, and everything else goes on."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, TaskRunner
from tests.features.remembered import alone
from tests.programs import Program
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


def counting(runner: TaskRunner, **options: Any) -> tuple[Any, list[int]]:
    """A task that notes what ran."""
    ran: list[int] = []

    @runner.task(**options)
    async def work(n: int) -> None:
        ran.append(n)

    return work, ran


async def know_of_it(runner: TaskRunner, *, paused: bool = True, lane: str = "default") -> None:
    """Waits until the worker has heard: that is when it stops, or goes on."""
    assert runner._consumer is not None
    lanes = runner._consumer._worker.lanes.values()
    await eventually(lambda: all(one.paused(lane) == paused for one in lanes))


@pytest.mark.parametrize("name", [None, "default"])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_nothing_starts_in_a_pause_and_all_of_it_after_it(
    make_runner: MakeRunner, name: str | None, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)
    work, ran = counting(runner)
    async with runner.start():
        await (await work.dispatch(0)).wait(timeout=20)
        await runner.pause(name)
        jobs = await runner.dispatch_many([work.with_options(priority=p).job(1) for p in ("high", "normal", "low")])
        later = await work.with_options(delay=0.01).dispatch(2)
        await eventually(lambda: _waiting(runner, 4))  # promotion goes on
        assert ran == [0]
        assert {await job.status() for job in (*jobs, later)} == {JobStatus.QUEUED}
        stats = await runner.stats("default")
        assert (stats.paused, stats.drain_time, stats.waiting, stats.running) == (True, math.inf, 4, 0)
        assert runner.ready, "it is paused and not away"
        await runner.resume(name)
        for job in (*jobs, later):
            await job.wait(timeout=20)
        assert sorted(ran) == [0, 1, 1, 1, 2]
        assert not (await runner.stats("default")).paused


async def _waiting(runner: TaskRunner, number: int) -> bool:
    return (await runner.stats("default")).waiting == number


async def test_a_pause_ends_a_fetch_that_waits_on_the_server(runner: TaskRunner) -> None:
    work, ran = counting(runner)
    async with runner.start():
        await eventually(lambda: runner.ready)
        [fetcher] = _worker(runner).fetchers
        for _ in range(5):
            await runner.pause()
            await eventually(lambda: not fetcher._waits_for)
            job = await work.dispatch(1)
            assert await job.status() is JobStatus.QUEUED
            count = len(ran)
            await runner.resume()
            await job.wait(timeout=20)
            assert len(ran) == count + 1


def _worker(runner: TaskRunner) -> Any:
    assert runner._consumer is not None
    return runner._consumer._worker


async def test_what_a_fetch_still_brings_in_a_pause_goes_back_unrun(runner: TaskRunner) -> None:
    work, ran = counting(runner)
    async with runner.start():
        await eventually(lambda: runner.ready)
        [fetcher] = _worker(runner).fetchers
        fetcher._reader.unblock = _nothing  # its fetch waits on, as if the word to end it came too late
        await eventually(lambda: fetcher._waits_for)
        store = runner.session().store  # runner.pause() would wait for the end of that fetch
        await store.pause(store.partitions[0], "*", paused=True)
        await know_of_it(runner)
        job = await work.dispatch(1)
        await eventually(lambda: not fetcher._waits_for)
        info = await eventually(lambda: _queued(job))
        assert (info.attempts, info.deliveries, ran) == (1, 0, [])
        del fetcher._reader.unblock
        await runner.resume()
        await job.wait(timeout=20)
        assert ran == [1]


async def _nothing() -> None: ...


async def _queued(job: Any) -> Any:
    info = await job.info()
    return info if info.status is JobStatus.QUEUED else None


async def test_what_runs_goes_on_and_its_retries_wait_for_the_end_of_the_pause(runner: TaskRunner) -> None:
    go, attempts = asyncio.Event(), list[int]()

    @runner.task(backoff=lambda attempt: 0.01)
    async def work() -> str:
        attempts.append(1)
        await go.wait()
        if len(attempts) == 1:
            raise ValueError
        return "done"

    async with runner.start():
        job = await work.dispatch()
        await eventually(lambda: attempts)
        await runner.pause()
        assert await job.status() is JobStatus.RUNNING
        go.set()
        info = await eventually(lambda: _queued(job))
        assert (info.attempts, len(attempts)) == (2, 1)
        await runner.resume()
        assert await job.result(timeout=20) == "done"


async def test_what_was_fetched_and_has_not_started_goes_back(make_runner: MakeRunner) -> None:
    runner, release, ran = make_runner(num_workers=1), asyncio.Event(), list[int]()

    @runner.task
    async def work(n: int) -> None:
        ran.append(n)
        await release.wait()

    async with runner.start():
        jobs = [await work.dispatch(n) for n in range(3)]
        await eventually(lambda: ran == [0])
        store, inventory = runner.session().store, _worker(runner).inventory
        inventory.take(await store.reader(store.partitions[0]).fetch(["default"], 2, None))  # more than it has slots
        assert [await job.status() for job in jobs] == [JobStatus.RUNNING] * 3
        await runner.pause()
        await eventually(lambda: _waiting(runner, 2))
        release.set()
        await jobs[0].wait(timeout=20)
        assert (ran, inventory.in_hand) == ([0], 0)
        await runner.resume()
        for job in jobs:
            await job.wait(timeout=20)
        assert sorted(ran) == [0, 1, 2]


async def test_other_queues_go_on(make_runner: MakeRunner) -> None:
    runner = make_runner()

    @runner.task(queue="mail")
    async def mail() -> str:
        return "sent"

    @runner.task(queue="images")
    async def image() -> str:
        return "drawn"

    async with runner.start():
        await eventually(lambda: runner.ready)
        await runner.pause("mail")
        letter = await mail.dispatch()
        assert await (await image.dispatch()).result(timeout=20) == "drawn"
        assert await letter.status() is JobStatus.QUEUED
        assert [(await runner.stats(one)).paused for one in ("mail", "images")] == [True, False]
        all_ = await runner.stats()
        assert (all_.paused, all_.drain_time) == (False, math.inf)
        await runner.resume("mail")
        assert await letter.result(timeout=20) == "sent"


async def test_to_resume_a_queue_does_not_end_the_pause_of_all_and_to_resume_all_ends_every_pause(
    runner: TaskRunner,
) -> None:
    work, ran = counting(runner)
    await runner.pause()
    await runner.pause("default")
    await runner.resume("default")
    assert (await runner.stats("default")).paused
    await runner.pause("default")
    await runner.resume()
    assert not (await runner.stats("default")).paused
    async with runner.start():
        await (await work.dispatch(1)).wait(timeout=20)
    assert ran == [1]


@pytest.mark.leaves("paused", "stream:default", "live")
async def test_a_worker_that_starts_in_a_pause_fetches_nothing(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    runner, operator = make_runner(), make_runner()
    work, ran = counting(runner)

    @runner.task(queue="other")
    async def other(n: int) -> int:
        return n

    await operator.pause("default")
    await runner.dispatch_many([work.job(n) for n in range(10)])
    async with runner.start():
        await eventually(lambda: runner.ready)
        for n in range(3):  # it does work, for another queue
            assert await (await other.dispatch(n)).result(timeout=20) == n
        stream = runner.session().store.partitions[0].queue("default").stream
        assert (await redis_client.xpending(stream, "taskrunner"))["pending"] == 0
        assert (await operator.stats("default")).waiting == 10
    assert ran == []


async def test_jobs_of_a_dead_worker_are_not_started_in_a_pause(
    make_runner: MakeRunner,
    program: Callable[..., Program],
    url: str,
    namespace: str,
    redis_client: redis.asyncio.Redis,
) -> None:
    dying = program(
        """
        import asyncio, os
        from taskrunner import TaskRunner
        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=0.5)
        @runner.task
        async def work(n):
            print("running")
            await asyncio.sleep(1000)
        async def main():
            await work.dispatch(1)
            await runner.run()
        asyncio.run(main())
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    assert await dying.line() == "running"
    runner = make_runner(reservation_timeout=0.5)
    _, ran = counting(runner)

    @runner.task(queue="other")
    async def other() -> None: ...

    async with runner.start():
        await runner.pause("default")
        dying.signal(signal.SIGKILL)
        # Longer than the grace after which a living queue's jobs would have been taken over: several reservations.
        for _ in range(6):
            await (await other.with_options(delay=0.5).dispatch()).wait(timeout=20)
        assert ran == []
        await runner.resume()
        await eventually(lambda: ran == [1])
        await eventually(lambda: alone(redis_client, runner))


async def test_a_stop_in_a_pause_is_prompt(runner: TaskRunner) -> None:
    async with runner.start():
        await eventually(lambda: runner.ready)
        await runner.pause()
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 4
    await runner.resume()


async def test_a_pause_survives_the_loss_of_its_notice(runner: TaskRunner) -> None:
    work, ran = counting(runner)
    async with runner.start():
        await eventually(lambda: runner.ready)
        session = runner.session()
        session.on_notice = None
        await runner.pause()
        await know_of_it(runner)  # by the look that comes in any case
        job = await work.dispatch(1)
        assert await job.status() is JobStatus.QUEUED
        await runner.resume()
        await job.wait(timeout=20)
        assert ran == [1]

"""Several queues in one runner, and what is known of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from taskrunner import JobContext, TaskRunner
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def test_a_runner_consumes_its_own_queue_and_those_of_its_tasks(runner: TaskRunner) -> None:
    async def where(ctx: JobContext) -> str:
        return ctx.queue

    for queue in ("mail", "images", "default"):
        runner.task(name=queue, queue=queue)(where)
    async with runner.start():
        jobs = {queue: await runner.dispatch(queue) for queue in ("mail", "images", "default")}
        assert {queue: await job.result(timeout=10) for queue, job in jobs.items()} == {q: q for q in jobs}


@pytest.mark.parametrize("slots", [1, 2, 10])
async def test_a_long_queue_does_not_keep_the_others_waiting(make_runner: MakeRunner, slots: int) -> None:
    runner, order = make_runner(num_workers=slots), list[str]()

    async def work(ctx: JobContext) -> None:
        order.append(ctx.queue)
        await asyncio.sleep(0)

    tasks = [runner.task(name=queue, queue=queue)(work) for queue in ("long", "short", "third")]
    await runner.dispatch_many([tasks[0].job() for _ in range(300)])
    last = [await task.dispatch() for task in tasks[1:]]
    async with runner.start():
        for job in last:
            await job.result(timeout=10)
        assert order.count("long") < 300, "both others were served while the long queue still had jobs"
        await eventually(lambda: len(order) == 302)


async def test_a_job_can_be_sent_to_another_queue_than_its_tasks(make_runner: MakeRunner) -> None:
    async def where(ctx: JobContext) -> tuple[str, str]:
        return ctx.queue, ctx.state

    here, there = make_runner(state="here"), make_runner(queue="special", state="there")
    here.task(where)
    there.task(where)
    async with here.start(), there.start():
        job = await here.tasks["where"].with_options(queue="special").dispatch()
        assert await job.result(timeout=10) == ["special", "there"]


async def test_namespaces_and_prefixes_do_not_see_each_other(url: str, namespace: str) -> None:
    runners = [
        TaskRunner(url, namespace=namespace, reservation_timeout=4),
        TaskRunner(url, namespace=namespace, key_prefix=f"p-{namespace}", reservation_timeout=4),
        TaskRunner(url, namespace=namespace, consumer_group="others", queue="q2", reservation_timeout=4),
    ]
    for n, runner in enumerate(runners):
        # The last one shares its namespace with the first, and so would share unique keys.
        runner.task(name="who", unique=n < 2)(_who(n))
    async with runners[0].start(), runners[1].start(), runners[2].start():
        for _ in range(3):
            jobs = [await runner.dispatch("who") for runner in runners]
            assert [await job.result(timeout=10) for job in jobs] == [0, 1, 2]


def _who(n: int) -> Callable[[], object]:
    async def who() -> int:
        return n

    return who


# -- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live", "stream:default", "stream:mail", "dead")
async def test_the_figures_count_what_waits_what_runs_and_what_is_dead(make_runner: MakeRunner) -> None:
    runner, go, started = make_runner(num_workers=2), asyncio.Event(), list[int]()

    async def has_aged(before: float) -> bool:
        return before < (await runner.stats("default")).oldest_wait < 60

    @runner.task
    async def work(n: int) -> None:
        started.append(n)
        await go.wait()

    @runner.task(max_retry=0, queue="mail")
    async def bad() -> None:
        raise ValueError

    async with runner.start():
        await (await bad.dispatch()).wait(timeout=10)
        await runner.dispatch_many([work.job(n) for n in range(5)])
        await work.with_options(delay=1000).dispatch(5)
        await eventually(lambda: len(started) == 2)
        figures, mail, all_ = await runner.stats("default"), await runner.stats("mail"), await runner.stats()
        assert (figures.queue, figures.waiting, figures.running, figures.scheduled) == ("default", 3, 2, 1)
        assert (figures.dead, figures.blocked, figures.replicas, figures.workers) == (0, 0, 1, 2)
        assert (mail.waiting, mail.dead) == (0, 1)
        assert (all_.queue, all_.waiting, all_.running, all_.scheduled, all_.dead) == ("*", 3, 2, 1, 1)
        assert mail.per_task["bad"].failed == 1
        assert figures.per_task["work"].waiting == 3
        assert 0 <= figures.oldest_wait < 60
        await eventually(lambda: has_aged(figures.oldest_wait))
        go.set()
        await eventually(lambda: len(started) == 5)
    assert (await runner.stats("default")).waiting == 0


@pytest.mark.leaves("stream:default", "live")
async def test_a_queue_that_nobody_consumes_never_drains_and_an_empty_one_takes_no_time(runner: TaskRunner) -> None:
    assert (await runner.stats()).drain_time == 0.0
    await runner.declare("work").dispatch()
    figures = await runner.stats()
    assert (figures.drain_time, figures.replicas) == (math.inf, 0)


async def test_the_figures_of_all_queues_are_those_of_all_partitions(make_runner: MakeRunner) -> None:
    runner = make_runner(partitions=3)

    @runner.task
    async def work(n: int) -> None: ...

    await runner.dispatch_many([work.job(n) for n in range(50)])
    assert (await runner.stats()).waiting == 50
    async with runner.start():
        await eventually(lambda: succeeded(runner, 50))
        assert (await runner.stats()).replicas == 1


async def succeeded(runner: TaskRunner, count: int) -> bool:
    stats = await runner.stats()
    return stats.per_task["work"].succeeded == count and stats.waiting + stats.running == 0

"""Priorities: high jobs first, and low ones all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis.asyncio

from taskrunner import FailedJob, JobContext, JobEvent, JobStatus, QueueStats, Snooze, TaskOptionError, TaskRunner
from taskrunner.priority import PRIORITIES, Turns, lanes
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def fill(runner: TaskRunner, task: Any, number: int) -> None:
    """So many jobs of each priority, the low ones first."""
    specs = [task.with_options(priority=one).job(one) for one in reversed(PRIORITIES) for _ in range(number)]
    await runner.dispatch_many(specs)


async def taken(runner: TaskRunner, jobs: int, priorities: Sequence[str]) -> list[Counter[str]]:
    """What a worker takes, batch by batch and by lane, when so many jobs of each of these priorities wait for it."""

    @runner.task
    async def work(priority: str) -> None:
        await asyncio.sleep(0.001)

    batches: list[Counter[str]] = []
    async with runner.start():
        await eventually(lambda: runner.ready)
        await runner.pause()
        worker = runner._consumer._worker  # type: ignore[union-attr]
        [lanes] = worker.lanes.values()
        await eventually(lambda: lanes.paused("default"))
        await runner.dispatch_many([work.with_options(priority=p).job(p) for p in priorities for _ in range(jobs)])
        take = worker.inventory.take

        def note(arrivals: list[Any]) -> None:
            if arrivals:
                batches.append(Counter(one.queue for one in arrivals))
            take(arrivals)

        worker.inventory.take = note  # type: ignore[method-assign]
        await runner.resume()
        await eventually(lambda: drained(runner))
    return batches


@pytest.mark.parametrize("slots", [1, 5, 10, 30])
async def test_of_ten_jobs_that_a_worker_takes_seven_are_high_two_normal_and_one_is_low(
    make_runner: MakeRunner, slots: int
) -> None:
    batches = await taken(make_runner(num_workers=slots), 70, ("low", "normal", "high"))
    so_far, compared = Counter[str](), 0
    for batch in batches:
        so_far += batch
        if so_far["default/high"] < 70:  # all three wait, whatever the sizes of the batches
            assert so_far == Turns(lanes("default")).share_out(so_far.total())
            compared += 1
    assert compared
    assert so_far == {"default/high": 70, "default": 70, "default/low": 70}


async def test_the_highest_priority_takes_the_place_of_those_that_have_no_jobs(make_runner: MakeRunner) -> None:
    batches = await taken(make_runner(num_workers=10), 45, ("low", "normal"))
    assert batches[0] == {"default": 9, "default/low": 1}


async def test_in_one_batch_the_high_ones_start_first(make_runner: MakeRunner) -> None:
    runner, started = make_runner(num_workers=9), list[str]()

    @runner.task
    async def work(priority: str) -> None:
        started.append(priority)

    await fill(runner, work, 3)
    async with runner.start():
        await eventually(lambda: len(started) == 9)
    assert started == sorted(started, key=PRIORITIES.index)


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_a_task_has_a_priority_and_a_dispatch_may_choose_another(
    runner: TaskRunner, priority: Any, redis_client: redis.asyncio.Redis
) -> None:
    @runner.task(priority="low")
    async def work() -> str:
        return "done"

    chosen = await work.with_options(priority=priority).dispatch()
    own = await work.dispatch()
    [keys] = (await runner.opened()).store.partitions
    lane = {"high": "default/high", "normal": "default", "low": "default/low"}[priority]
    entries = {name: await redis_client.xlen(keys.queue(name).stream) for name in {lane, "default/low"}}
    assert entries == {lane: 1, "default/low": 2 if priority == "low" else 1}
    async with runner.start():
        assert [await job.result(timeout=20) for job in (own, chosen)] == ["done", "done"]


async def test_a_lane_that_comes_into_being_is_read_at_once(make_runner: MakeRunner) -> None:
    producer, consumer = make_runner(), make_runner()

    @consumer.task
    async def work(n: int) -> int:
        return n

    remote = producer.declare("work")
    async with consumer.start():
        assert await (await remote.dispatch(0)).result(timeout=20) == 0
        for n, priority in enumerate(("high", "low"), 1):
            begun = asyncio.get_running_loop().time()
            job = await remote.with_options(priority=priority).dispatch(n)
            assert await job.result(timeout=20) == n
            # By the notice: without it, it would be found with the next look, 5 s after the last.
            assert asyncio.get_running_loop().time() - begun < 4


async def test_a_delayed_job_of_a_new_lane_is_promoted(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> str:
        return "done"

    async with runner.start():
        await eventually(lambda: runner.ready)
        job = await work.with_options(priority="high", delay=0.05).dispatch()
        assert await job.result(timeout=20) == "done"


async def test_retries_and_snoozes_keep_their_priority(make_runner: MakeRunner) -> None:
    runner, seen = make_runner(), list[tuple[str, int]]()

    @runner.task(priority="high", backoff=lambda attempt: 0.01)
    async def work(ctx: JobContext) -> str:
        seen.append((ctx._delivery.queue, ctx.attempt))
        if len(seen) == 1:
            raise Snooze(0.01)
        if len(seen) == 2:
            raise ValueError
        return "done"

    async with runner.start():
        assert await (await work.dispatch()).result(timeout=20) == "done"
    assert seen == [("default/high", 1), ("default/high", 1), ("default/high", 2)]


@pytest.mark.leaves("dead", "due:", "letters:", "tallies:", "live")
async def test_people_see_the_name_of_the_queue_everywhere(make_runner: MakeRunner) -> None:
    buried, events, contexts = list[FailedJob](), list[JobEvent](), list[str]()
    runner = make_runner(failed_task_handler=buried.append)
    runner.on_failure(events.append)

    @runner.task(queue="mail", priority="high", max_retry=0)
    async def work(ctx: JobContext, fail: bool) -> None:
        contexts.append(ctx.queue)
        if fail:
            raise ValueError

    waiting = await work.with_options(delay=1000).dispatch(False)
    assert (await waiting.info()).queue == "mail"
    queued = await work.dispatch(False)
    assert (await queued.info()).queue == "mail"
    failing = await work.dispatch(True)
    async with runner.start():
        await failing.wait(timeout=20)
        await queued.wait(timeout=20)
    infos = [await job.info() for job in (queued, failing)]
    assert [info.queue for info in infos] == ["mail", "mail"]
    assert [info.status for info in infos] == [JobStatus.SUCCEEDED, JobStatus.FAILED]
    assert contexts == ["mail", "mail"]
    assert [one.queue for one in (*buried, *events)] == ["mail", "mail"]
    letters = [await runner.dead_letters.get(failing.id), *await runner.dead_letters.list()]
    assert [letter.queue for letter in letters if letter is not None] == ["mail", "mail"]
    assert await runner.session().store.inspection.queues() == ["default", "mail"]


@pytest.mark.leaves("live", "due:", "letters:", "tallies:")
async def test_the_figures_of_a_queue_are_the_sum_of_its_priorities(make_runner: MakeRunner) -> None:
    runner = make_runner()

    @runner.task
    async def work(priority: str) -> None: ...

    await fill(runner, work, 10)
    await work.with_options(priority="low", delay=1000).dispatch("low")
    stats, all_ = await runner.stats("default"), await runner.stats()
    assert (stats.queue, stats.waiting, stats.scheduled, stats.per_task["work"].waiting) == ("default", 30, 1, 30)
    assert (all_.waiting, all_.scheduled) == (30, 1)
    async with runner.start():
        await eventually(lambda: drained(runner))
    done = (await runner.stats("default")).per_task["work"]
    assert done.succeeded == 30


async def drained(runner: TaskRunner) -> bool:
    stats = await runner.stats("default")
    return stats.waiting + stats.running == 0


@pytest.mark.leaves("stream:default", "stream:default/high", "stream:default/low", "live")
async def test_a_long_queue_is_reported_once_for_all_its_priorities(make_runner: MakeRunner) -> None:
    runner, heard, go = make_runner(num_workers=1), list[QueueStats](), asyncio.Event()

    @runner.on_long_queue(threshold=0.1)
    def long(stats: QueueStats) -> None:
        heard.append(stats)

    @runner.task
    async def work(priority: str) -> None:
        if len(heard):
            await go.wait()
        await asyncio.sleep(0.02)

    await fill(runner, work, 30)
    async with runner.start():
        await eventually(lambda: heard)
        go.set()
    assert {stats.queue for stats in heard} == {"default"}
    assert heard[0].waiting > 30, "those of more than one priority"


@pytest.mark.parametrize("value", ["urgent", "HIGH", "", None, 1, True, ["high"], "high ", "hígh"])
async def test_an_unknown_priority_is_refused_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, value: Any
) -> None:
    with pytest.raises(TaskOptionError, match="priority must be one of 'high', 'normal', 'low'"):
        runner.task(name="work", priority=value)(fill)
    declared = runner.declare("work")
    with pytest.raises(TaskOptionError, match="priority must be one of 'high', 'normal', 'low'"):
        await declared.with_options(priority=value).dispatch()
    assert [key async for key in redis_client.scan_iter(match=f"*{namespace}*")] == []


@pytest.mark.parametrize("name", ["mail/high", "a{b}", "a b", "a\nb", "a\x00b", "", "x" * 65, "größe", 7, "*"])
async def test_a_wrong_name_of_a_queue_is_refused_and_nothing_is_written(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str, name: Any
) -> None:
    declared = runner.declare("work")
    with pytest.raises(TaskOptionError, match="queue must be 1 to 64 letters"):
        runner.task(name="other", queue=name)(fill)
    with pytest.raises(TaskOptionError, match="queue must be 1 to 64 letters"):
        await declared.with_options(queue=name).dispatch()
    for call in (runner.pause, runner.resume, runner.stats):
        with pytest.raises(TaskOptionError, match="queue must be 1 to 64 letters"):
            await call(name)
    for wrong in ([name], ["fine", name]):
        with pytest.raises(TaskOptionError, match="queues must be"):
            runner.start(queues=wrong)
    assert [key async for key in redis_client.scan_iter(match=f"*{namespace}*")] == []


# -- which queues -----------------------------------------------------------------------------------------------------


@pytest.mark.leaves("stream:images", "live")
async def test_a_runner_consumes_the_queues_that_it_is_told(make_runner: MakeRunner) -> None:
    runner = make_runner()

    async def where(ctx: JobContext) -> str:
        return ctx.queue

    tasks = {queue: runner.task(name=queue, queue=queue)(where) for queue in ("mail", "images", "default")}
    jobs = {queue: await task.dispatch() for queue, task in tasks.items()}
    extra = await tasks["mail"].with_options(queue="extra").dispatch()
    async with runner.start(queues=["mail", "default", "extra"]):
        for job in (jobs["mail"], jobs["default"], extra):
            await job.wait(timeout=20)
        assert await jobs["images"].status() is JobStatus.QUEUED
        facts = (await runner.session().store.inspection.counts(_first(runner), "mail")).workers
        assert [one["queues"] for one in facts] == [["mail", "default", "extra"]]


def _first(runner: TaskRunner) -> Any:
    return runner.session().store.partitions[0]


@pytest.mark.parametrize("queues", [[], (), "mail"])
async def test_a_list_of_queues_has_at_least_one_name(runner: TaskRunner, queues: Any) -> None:
    with pytest.raises(TaskOptionError, match="at least one queue"):
        runner.start(queues=queues)
    with pytest.raises(TaskOptionError, match="at least one queue"):
        await runner.run(queues=queues)

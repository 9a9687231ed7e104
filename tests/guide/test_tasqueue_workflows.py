"""Tasqueue's groups and chains, and its jobs that follow jobs; the table is in ``test_tasqueue_checklist.py``.

Its ``EnqueueGroup`` and ``EnqueueChain`` are our ``dispatch``, ``GetGroup`` and ``GetChain`` are ``info()``, and
``PrevJobResult`` is ``ctx.previous``. Its ``processing`` is our running, ``successful`` succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    GiveUp,
    JobContext,
    JobFailed,
    JobNotFound,
    JobStatus,
    PayloadError,
    TaskRunner,
    WorkflowError,
    chain,
    group,
)
from taskrunner.store.keys import PartitionKeys
from tests.guide.states import is_in, quiet
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]
SUCCEEDED, FAILED, RUNNING = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.RUNNING


@pytest.fixture
def tasks(runner: TaskRunner) -> Tasks:
    return Tasks(runner)


# -- groups (21 to 23) -------------------------------------------------------------------------------------------


async def test_a_group_has_its_id_or_gets_one_and_all_of_its_jobs_are_there_at_once(tasks: Tasks) -> None:
    mine = await tasks.runner.dispatch(group.map(tasks.give, range(5), id="mine"))
    other = await tasks.runner.dispatch(group.map(tasks.give, range(5)))
    assert mine.id == "mine"
    assert other.id not in ("", "mine")
    for job in (mine, other):
        assert set((await job.info()).jobs.values()) == {JobStatus.QUEUED}
    assert await tasks.runner.count(state="queued") == 10
    for job in (mine, other):
        assert await job.cancel()


async def test_what_is_known_of_a_group_is_its_id_its_status_and_that_of_each_job(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.give.job(1), tasks.give.job(2)))
        await job.wait(DEADLINE)
        info = await (await tasks.runner.workflow(job.id)).info()  # by its id alone, as GetGroup
    assert (info.id, info.status) == (job.id, SUCCEEDED)
    assert list(info.jobs.values()) == [SUCCEEDED, SUCCEEDED]
    with pytest.raises(JobNotFound):
        await tasks.runner.workflow("unknown")


@pytest.mark.leaves("dead")
async def test_a_group_fails_at_once_cancels_nobody_and_goes_on_telling_how_the_others_stand(tasks: Tasks) -> None:
    """In Tasqueue the table of a group that failed early is frozen, and its other jobs are running for ever (W8)."""
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.fail.job(), tasks.hold.job("a"), tasks.give.job("b")))
        await eventually(lambda: is_in(job, FAILED))
        await eventually(lambda: stands(job, [FAILED, RUNNING, SUCCEEDED]))
        tasks.go.set()
        await job.wait(DEADLINE)
        assert await stands(job, [FAILED, SUCCEEDED, SUCCEEDED])
        assert await job.status() is FAILED, "what it came to is final"


async def stands(job: Any, statuses: list[JobStatus]) -> bool:
    return list((await job.info()).jobs.values()) == statuses


@pytest.mark.leaves("dead")
async def test_the_retries_of_a_job_come_first(tasks: Tasks) -> None:
    attempts = list[int]()

    @tasks.runner.task(max_retry=3, backoff=Backoff.constant(0))
    async def flaky(ctx: JobContext, good_at: int) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < good_at:
            raise OSError
        return ctx.attempt

    async with tasks.runner.start():
        good = await tasks.runner.dispatch(group(flaky.job(4), tasks.give.job(1)))
        assert await good.results(DEADLINE) == [4, 1]
        bad = await tasks.runner.dispatch(chain(flaky.job(5), tasks.nothing.job()))
        with pytest.raises(JobFailed) as failed:
            await bad.result(DEADLINE)
    assert failed.value.attempts == 4
    assert attempts == [1, 2, 3, 4] * 2


async def test_a_group_without_jobs_has_succeeded(tasks: Tasks) -> None:
    job = await tasks.runner.dispatch(group())
    info = await job.info()
    assert (info.status, info.jobs) == (SUCCEEDED, {})
    assert await job.results(DEADLINE) == []


async def test_a_group_that_can_not_be_dispatched_as_a_whole_is_not_dispatched(tasks: Tasks) -> None:
    """In Tasqueue what was pushed before the error runs, and nobody knows of the group (W8)."""
    with pytest.raises(PayloadError):
        await tasks.runner.dispatch(group(tasks.give.job(1), tasks.give.job(object()), id="half"))
    with pytest.raises(JobNotFound):
        await tasks.runner.workflow("half")
    async with tasks.runner.start():
        await eventually(lambda: quiet(tasks.runner))
    assert tasks.calls == []


# -- chains (24 to 26) -------------------------------------------------------------------------------------------


async def test_a_chain_has_its_id_or_gets_one_and_two_steps_at_least(tasks: Tasks) -> None:
    for steps in ((), (tasks.give.job(1),)):
        with pytest.raises(WorkflowError, match="at least two steps"):
            chain(*steps)
    mine = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2), id="mine"))
    other = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2)))
    assert mine.id == "mine"
    assert other.id not in ("", "mine")
    for job in (mine, other):
        assert await job.cancel()


async def test_what_is_known_of_a_chain_moves_on_with_it_however_often_one_asks(tasks: Tasks) -> None:
    """In Tasqueue the current job never moves on, and those that finished are listed again at each look (W8)."""
    gates = [asyncio.Event() for _ in range(3)]

    @tasks.runner.task
    async def step(n: int) -> None:
        await gates[n].wait()

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(*(step.job(n) for n in range(3))))
        ids = [one.id for one in job.steps]
        for n, gate in enumerate(gates):
            await eventually(lambda at=ids[n]: is_at(job, at))
            for _ in range(3):
                info = await job.info()
                assert (info.status, info.current, info.finished) == (RUNNING, ids[n], ids[:n])
            gate.set()
        await job.wait(DEADLINE)
        for _ in range(3):
            info = await (await tasks.runner.workflow(job.id)).info()
            assert (info.id, info.status, info.current, info.finished) == (job.id, SUCCEEDED, None, ids)


async def is_at(job: Any, id: str) -> bool:
    return (await job.info()).current == id


async def test_a_step_exists_only_when_the_one_before_has_succeeded_and_sees_its_result(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job({"rows": 7}), tasks.show.job(), tasks.show.job()))
        await eventually(lambda: tasks.started)
        later = job.steps[1]
        assert await later.status() is JobStatus.BLOCKED
        with pytest.raises(JobNotFound):
            await tasks.runner.job(later.id).status()
        tasks.go.set()
        assert await job.result(DEADLINE) == {"rows": 7}


async def test_steps_that_save_nothing_hand_on_nothing_and_the_chain_goes_on_to_its_end(tasks: Tasks) -> None:
    """In Tasqueue the missing result ends all, and the chain is processing for ever (W3)."""
    silent = tasks.nothing.with_options(ignore_result=True)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            chain(tasks.nothing.job(), silent.job(), tasks.show.job(), tasks.nothing.job())
        )
        assert await job.result(DEADLINE) is None
        assert await job.steps[2].result(DEADLINE) is None
        assert await job.status() is SUCCEEDED
    assert tasks.calls == ["nothing", "nothing", "show", "nothing"]


@pytest.mark.leaves("dead")
async def test_a_step_that_fails_for_good_is_the_last_that_finished_and_no_later_one_ever_exists(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.fail.job(), tasks.nothing.job()))
        await job.wait(DEADLINE)
        await eventually(lambda: quiet(tasks.runner))
        info, ids = await job.info(), [one.id for one in job.steps]
        assert (info.status, info.current, info.finished) == (FAILED, None, ids[:2])
        with pytest.raises(JobNotFound):
            await tasks.runner.job(ids[2]).status()
        with pytest.raises(JobFailed, match="no") as failed:
            await job.result(DEADLINE)
        assert failed.value.job_id == ids[1]
    assert tasks.calls == [1, "fail"]


async def test_the_steps_of_a_chain_may_be_on_different_queues_with_their_own_concurrency(
    make_runner: MakeRunner,
) -> None:
    first, second = make_runner(queue="one"), make_runner(queue="two")
    where = list[str]()
    for runner in (first, second):

        @runner.task(concurrency=1)
        async def step(ctx: JobContext) -> str:
            where.append(ctx.queue)
            return ctx.queue

    one, two = first.tasks["step"].with_options(queue="one"), first.tasks["step"].with_options(queue="two")
    async with first.start(), second.start():
        job = await first.dispatch(chain(one.job(), two.job(), one.job()))
        assert await job.result(DEADLINE) == "one"
    assert where == ["one", "two", "one"]


# -- jobs that follow jobs (20) ----------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
async def test_several_jobs_follow_a_success_and_others_the_final_failure(runner: TaskRunner) -> None:
    told = asyncio.Queue[tuple[str, Any]]()

    @runner.task
    async def tell(ctx: JobContext, what: str) -> str:
        told.put_nowait((what, ctx.previous))
        return what

    @runner.task(
        max_retry=1,
        backoff=Backoff.constant(0),
        on_success=group(tell.job("mail"), tell.job("invoice")),
        on_failure=chain(tell.job("undo"), tell.job("complain")),
    )
    async def work(good: bool) -> str | None:
        if not good:
            raise ValueError
        return "the result"

    async with runner.start():
        await (await work.dispatch(True)).wait(DEADLINE)
        found = [await asyncio.wait_for(told.get(), DEADLINE) for _ in range(2)]
        assert sorted(found) == [("invoice", "the result"), ("mail", "the result")]
        await (await work.dispatch(False)).wait(DEADLINE)
        found = [await asyncio.wait_for(told.get(), DEADLINE) for _ in range(2)]
        assert found == [("undo", None), ("complain", "undo")]
        await eventually(lambda: quiet(runner))
    assert told.empty()


# -- weaknesses --------------------------------------------------------------------------------------------------


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("error", [asyncio.CancelledError, GiveUp], ids=lambda error: error.__name__)
async def test_a_step_whose_handler_is_cancelled_or_gives_up_starts_nothing_after_it(
    tasks: Tasks, error: type[BaseException]
) -> None:
    """In Tasqueue a cancelled handler is a success, and the next link is started (W6)."""

    @tasks.runner.task(max_retry=0)
    async def ends() -> None:
        raise error

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(ends.job(), tasks.nothing.job()))
        joined = await tasks.runner.dispatch(group(ends.job(), then=tasks.nothing.job()))
        for one in (job, joined):
            await one.wait(DEADLINE)
            assert await one.status() is FAILED
        await eventually(lambda: quiet(tasks.runner))
    assert tasks.calls == []


async def test_a_stop_in_the_middle_of_a_step_starts_nothing_after_it_before_the_step_has_run_to_its_end(
    make_runner: MakeRunner,
) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    seen = list[Any]()

    def registered(runner: TaskRunner) -> TaskRunner:
        @runner.task
        async def step() -> str:
            started.set()
            await release.wait()
            return "whole"

        @runner.task
        async def after(ctx: JobContext) -> None:
            seen.append(ctx.previous)

        return runner

    runner = registered(make_runner(shutdown_timeout=0.05))
    async with runner.start():
        job = await runner.dispatch(chain(runner.tasks["step"].job(), runner.tasks["after"].job()))
        await started.wait()
    assert (await job.info()).current == job.steps[0].id, "it was cut off and handed back, which is no success"
    assert seen == []
    release.set()
    other = registered(make_runner())
    async with other.start():
        await job.result(DEADLINE)
    assert seen == ["whole"]


async def steal(client: redis.asyncio.Redis, namespace: str, entries: set[bytes]) -> None:
    """Takes all that its worker holds away from it, as if that one had been silent; each entry once."""
    stream = PartitionKeys("taskrunner", namespace, 0).queue("default").stream
    for pending in await client.xpending_range(stream, "taskrunner", "-", "+", 1000):
        if pending["message_id"] not in entries:
            entries.add(pending["message_id"])
            await client.xclaim(stream, "taskrunner", "thief", 0, [pending["message_id"]])


async def tidy(client: redis.asyncio.Redis, namespace: str) -> bool:
    stream = PartitionKeys("taskrunner", namespace, 0).queue("default").stream
    return len(await client.xinfo_consumers(stream, "taskrunner")) == 1


async def test_a_late_end_of_a_step_lets_nobody_go(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner, seen, taken = make_runner(reservation_timeout=0.6), list[Any](), set[bytes]()

    @runner.task
    async def step(ctx: JobContext) -> int:
        if ctx.deliveries == 1:
            await steal(redis_client, namespace, taken)
        return ctx.deliveries

    @runner.task
    async def after(ctx: JobContext) -> None:
        seen.append(ctx.previous)

    async with runner.start():
        job = await runner.dispatch(chain(step.job(), after.job()))
        await job.wait(DEADLINE)
        await eventually(lambda: tidy(redis_client, namespace))
    assert len(taken) == 1
    assert len(seen) == 1
    assert seen[0] > 1, "it is the end of the run that had the job"


async def test_what_follows_a_group_starts_once_though_its_members_run_twice(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    """When every third member runs, all that its worker holds is taken from it, and so runs once more."""
    runner = make_runner(reservation_timeout=0.6, num_workers=20)
    runs, followed, taken = list[int](), list[Any](), set[bytes]()

    @runner.task
    async def member(ctx: JobContext, n: int) -> int:
        runs.append(n)
        if ctx.deliveries == 1 and n % 3 == 0:
            await steal(redis_client, namespace, taken)
        return n

    @runner.task
    async def after(ctx: JobContext, what: str) -> None:
        followed.append((what, ctx.previous))

    async with runner.start():
        asides = {"then": after.job("then"), "on_failure": after.job("failure")}
        job = await runner.dispatch(group.map(member, range(60), **asides))
        assert await job.results(DEADLINE) == list(range(60))
        assert job.then is not None
        await job.then.wait(DEADLINE)
        await eventually(lambda: tidy(redis_client, namespace))
        await eventually(lambda: quiet(runner))
    assert len(runs) > 60
    assert followed == [("then", list(range(60)))]

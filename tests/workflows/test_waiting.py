"""Waiting for a workflow is notified and not polled, and survives a notice that was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import Graph, JobFailed, JobStatus, TaskRunner, chain, group, session, workflow_reach
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]
NEVER = (3600.0, 3600.0)


@pytest.fixture
def asker(make_runner: MakeRunner) -> TaskRunner:
    """A runner of another process, which only asks."""
    return make_runner()


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again without a notice."""
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    monkeypatch.setattr(session, "NEWS", NEVER)


async def is_watched(runner: TaskRunner, id: str) -> bool:
    store = runner.session().store
    keys = store.partitions[0]
    return bool(await store.control(keys).call(b"HEXISTS", keys.watchers, id))


async def asking(asker: TaskRunner, id: str, question: Any) -> asyncio.Task[Any]:
    """Somebody who waits, and is known to the server to do so."""
    task = asyncio.create_task(question)
    await eventually(lambda: is_watched(asker, id))
    return task


@pytest.mark.usefixtures("only_told")
async def test_the_end_of_a_chain_is_told(tasks: Tasks, asker: TaskRunner) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        there: Any = await asker.workflow(job.id)
        waiting = await asking(asker, job.id, there.result(DEADLINE))
        tasks.go.set()
        assert await waiting == 2


@pytest.mark.leaves("dead")
@pytest.mark.usefixtures("only_told")
async def test_the_first_failure_of_a_group_is_told_and_the_end_of_its_last_member_too(
    tasks: Tasks, asker: TaskRunner
) -> None:
    failing = asyncio.Event()

    @tasks.runner.task(max_retry=0)
    async def fail_later() -> None:
        await failing.wait()
        raise ValueError("no")

    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.hold.job(), fail_later.job()))
        there: Any = await asker.workflow(job.id)
        results = await asking(asker, job.id, there.results(DEADLINE))
        end = asyncio.create_task(there.wait(DEADLINE))
        failing.set()
        with pytest.raises(JobFailed):
            await results
        assert not end.done()
        await eventually(lambda: is_watched(asker, job.id))
        tasks.go.set()
        await end


@pytest.mark.usefixtures("only_told")
async def test_a_cancel_is_told(tasks: Tasks, asker: TaskRunner) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.hold.job(), tasks.hold.job()))
        there: Any = await asker.workflow(job.id)
        waiting = await asking(asker, job.id, there.wait(DEADLINE))
        assert await job.cancel()
        await waiting


@pytest.mark.usefixtures("only_told")
async def test_the_turn_of_a_job_is_told_and_its_end_too(tasks: Tasks) -> None:
    graph = Graph()
    first = graph.add(tasks.hold.job(1))
    second = graph.add(tasks.add_up.job(1), after=[first])
    third = graph.add(tasks.hold.job(9), after=[second])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        await eventually(lambda: tasks.started)
        waiting = await asking(tasks.runner, job.id, job.job(second).result(DEADLINE))
        tasks.go.set()
        assert await waiting == 2
        await job.job(third).wait(DEADLINE)


@pytest.mark.leaves("dead")
@pytest.mark.usefixtures("only_told")
async def test_that_the_turn_of_a_job_never_comes_is_told(tasks: Tasks) -> None:
    failing = asyncio.Event()

    @tasks.runner.task(max_retry=0)
    async def fail_later() -> None:
        await failing.wait()
        raise ValueError("no")

    graph = Graph()
    broken, others = graph.add(fail_later.job()), [graph.add(tasks.hold.job(n)) for n in range(2)]
    never = graph.add(tasks.give.job(1), after=[broken, *others])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        waiting = await asking(tasks.runner, job.id, job.job(never).wait(DEADLINE))
        failing.set()
        await waiting
        assert await job.job(never).status() is JobStatus.CANCELLED
        tasks.go.set()
        await job.wait(DEADLINE)


async def test_in_a_large_workflow_the_turn_of_a_job_is_found_by_looking(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    monkeypatch.setattr(session, "NEWS", (0.05, 0.1))
    monkeypatch.setattr(workflow_reach, "FEW", 1)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(1), tasks.add_up.job(1), tasks.hold.job()))
        waiting = await asking(tasks.runner, job.id, job.steps[1].result(DEADLINE))
        tasks.go.set()
        assert await waiting == 2
        await job.wait(DEADLINE)


async def test_a_notice_that_never_comes_is_made_up_for_by_looking(
    tasks: Tasks, asker: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", (0.05, 0.1))
    monkeypatch.setattr(session.Session, "_heard", lambda *_: None)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        there: Any = await asker.workflow(job.id)
        waiting = await asking(asker, job.id, there.result(DEADLINE))
        tasks.go.set()
        assert await waiting == 2


@pytest.mark.usefixtures("only_told")
async def test_a_notice_that_is_lost_with_its_connection_is_made_up_for_when_it_is_back(
    tasks: Tasks, asker: TaskRunner, redis_client: Any
) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        there: Any = await asker.workflow(job.id)
        waiting = await asking(asker, job.id, there.result(DEADLINE))
        assert await redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        tasks.go.set()
        assert await waiting == 2


async def test_whoever_stops_waiting_leaves_nothing_behind_in_its_process(tasks: Tasks, asker: TaskRunner) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.hold.job(), tasks.give.job(2)))
        there: Any = await asker.workflow(job.id)
        waiting = await asking(asker, job.id, there.result())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asker.session()._waiters == {}
        tasks.go.set()
        await job.wait(DEADLINE)

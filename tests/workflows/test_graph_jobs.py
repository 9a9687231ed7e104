"""The handle of a graph: its results in the order of add, and the job at each of its nodes."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner import Graph, JobCancelled, JobFailed, JobStatus, WorkflowError, chain, group
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks


async def test_a_node_sees_the_values_of_those_before_it_in_the_order_of_after(tasks: Tasks) -> None:
    graph = Graph()
    one, two = graph.add(tasks.give.job(1)), graph.add(tasks.give.job(2))
    both = graph.add(tasks.show.job(), after=[two, one])
    after_one = graph.add(tasks.show.job(), after=[one])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        assert await job.job(both).result(DEADLINE) == [2, 1]
        assert await job.job(after_one).result(DEADLINE) == 1
        assert await job.results(DEADLINE) == [1, 2, [2, 1], 1]
        assert await job.status() is JobStatus.SUCCEEDED


async def test_the_results_stand_in_the_order_of_add_also_when_an_edge_goes_back(tasks: Tasks) -> None:
    graph = Graph()
    last = graph.add(tasks.show.job())
    first = graph.add(tasks.give.job(1))
    graph.connect(first, last)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        assert await job.results(DEADLINE) == [1, 1]
        assert await job.job(last).result(DEADLINE) == 1
    assert tasks.calls == [1, "show"]


async def test_the_info_of_a_graph_goes_with_it(tasks: Tasks) -> None:
    graph = Graph()
    first = graph.add(tasks.hold.job(1))
    second = graph.add(tasks.hold.job(2), after=[first])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        ids = [job.job(first).id, job.job(second).id]
        await eventually(lambda: tasks.started)
        info = await job.info()
        assert (info.id, info.status) == (job.id, JobStatus.RUNNING)
        assert info.jobs == dict(zip(ids, [JobStatus.RUNNING, JobStatus.BLOCKED], strict=True))
        tasks.go.set()
        await job.wait(DEADLINE)
        assert (await job.info()).jobs == dict.fromkeys(ids, JobStatus.SUCCEEDED)


@pytest.mark.leaves("dead")
async def test_what_comes_after_a_failure_is_cancelled_and_the_rest_goes_on(tasks: Tasks) -> None:
    graph = Graph()
    broken, sound = graph.add(tasks.fail.job()), graph.add(tasks.hold.job(1))
    never, later = graph.add(tasks.give.job(2), after=[broken, sound]), graph.add(tasks.give.job(3), after=[sound])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        with pytest.raises(JobFailed, match=job.job(broken).id):
            await job.results(DEADLINE)
        tasks.go.set()
        assert await job.job(later).result(DEADLINE) == 3
        with pytest.raises(JobCancelled, match="never ran"):
            await job.job(never).result(DEADLINE)
        await job.wait(DEADLINE)
        statuses = [JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.CANCELLED, JobStatus.SUCCEEDED]
        assert list((await job.info()).jobs.values()) == statuses


async def test_chains_and_groups_stand_in_a_graph_as_one(tasks: Tasks) -> None:
    graph = Graph()
    line = graph.add(chain(tasks.give.job(1), tasks.add_up.job(1)))
    wide = graph.add(group(tasks.add_up.job(10), tasks.add_up.job(20)), after=[line])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        assert await job.job(wide).result(DEADLINE) == [12, 22]
        assert await job.job(line).result(DEADLINE) == 2
        assert await job.results(DEADLINE) == [2, [12, 22]]


async def test_a_cancelled_graph_cancels_what_has_not_ended(tasks: Tasks) -> None:
    graph = Graph()
    done, held = graph.add(tasks.give.job(1)), graph.add(tasks.hold.job())
    later = graph.add(tasks.give.job(2), after=[done, held])
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        await job.job(done).wait(DEADLINE)
        await eventually(lambda: tasks.started)
        waiting = asyncio.create_task(job.job(later).wait(DEADLINE))
        assert await job.cancel()
        await waiting
        await job.wait(DEADLINE)
        statuses = [JobStatus.SUCCEEDED, JobStatus.CANCELLED, JobStatus.CANCELLED]
        assert list((await job.info()).jobs.values()) == statuses
        with pytest.raises(JobCancelled, match=f"graph {job.id} was cancelled"):
            await job.results(DEADLINE)


async def test_the_node_of_another_graph_has_no_job_here(tasks: Tasks) -> None:
    graph, other = Graph(), Graph()
    graph.add(tasks.give.job(1))
    foreign = other.add(tasks.give.job(1))
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(graph)
        with pytest.raises(WorkflowError, match="of another graph"):
            job.job(foreign)
        await job.wait(DEADLINE)


async def test_an_empty_graph_has_succeeded_at_once(tasks: Tasks) -> None:
    job = await tasks.runner.dispatch(Graph())
    assert await job.results(DEADLINE) == []
    assert (await job.info()).jobs == {}

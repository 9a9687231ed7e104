"""What is looked at before a workflow is dispatched, and what a dispatch gives."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    ChainJob,
    DispatchUncertain,
    Graph,
    GraphJob,
    GroupJob,
    Job,
    JobContext,
    JobNotFound,
    JobStatus,
    PayloadError,
    QueueBusy,
    TaskOptionError,
    TaskRunner,
    UnknownTask,
    WorkflowError,
    chain,
    group,
)
from taskrunner.durability import Durability
from taskrunner.store.workflows import Workflows
from tests.waiting import DEADLINE, eventually
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]


async def nothing_is_written(client: redis.asyncio.Redis, namespace: str) -> bool:
    return not [key async for key in client.scan_iter(match=f"*{{{namespace}.*}}:*", count=1000)]


async def test_a_job_that_is_made_already_can_be_dispatched_as_it_is(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(tasks.give.with_options(id="mine").job(5))
        assert (type(job), job.id) == (Job, "mine")
        assert await job.result(DEADLINE) == 5


async def test_each_kind_of_workflow_has_its_handle_also_by_its_id_alone(tasks: Tasks) -> None:
    graph = Graph()
    graph.add(tasks.give.job(1))
    async with tasks.runner.start():
        for part, kind in (
            (chain(tasks.give.job(1), tasks.give.job(2)), ChainJob),
            (group(tasks.give.job(1), tasks.give.job(2)), GroupJob),
            (graph, GraphJob),
        ):
            job: Any = await tasks.runner.dispatch(part)
            assert type(job) is kind
            found: Any = await tasks.runner.workflow(job.id)
            assert type(found) is kind
            assert found == job
            await found.wait(DEADLINE)
            assert await found.info() == await job.info()
            read = "result" if kind is ChainJob else "results"
            assert await getattr(found, read)(DEADLINE) == await getattr(job, read)(DEADLINE)


async def test_an_unknown_workflow_is_said_to_be_unknown(tasks: Tasks) -> None:
    with pytest.raises(JobNotFound, match="workflow nobody is unknown"):
        await tasks.runner.workflow("nobody")
    with pytest.raises(TaskOptionError):
        await tasks.runner.workflow("")


async def test_a_workflow_is_unknown_when_its_time_is_over(make_runner: MakeRunner) -> None:
    tasks = Tasks(make_runner(result_ttl=0.05))
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2)))
        await eventually(lambda: gone(job))
        with pytest.raises(JobNotFound, match=f"chain {job.id} is unknown"):
            await job.result(DEADLINE)
        for question in (job.status, job.info, job.wait):
            with pytest.raises(JobNotFound):
                await question()
        assert not await job.cancel()


async def gone(job: ChainJob[Any]) -> bool:
    try:
        await job.status()
    except JobNotFound:
        return True
    return False


async def test_a_workflow_lives_as_long_as_the_longest_lived_of_its_jobs(make_runner: MakeRunner) -> None:
    tasks = Tasks(make_runner(result_ttl=0.05))
    long = tasks.give.with_options(result_ttl=3600)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(long.job(1), tasks.give.job(2)))
        await job.wait(DEADLINE)
        last = job.steps[-1].id
        await eventually(lambda: unknown(tasks.runner.job(last)))
        assert await job.result(DEADLINE) == 2, "though the record of that job is gone"
        assert await job.steps[-1].result(DEADLINE) == 2
        assert await job.steps[-1].status() is JobStatus.SUCCEEDED


async def unknown(job: Job[Any]) -> bool:
    try:
        await job.status()
    except JobNotFound:
        return True
    return False


async def test_the_same_id_gives_the_handle_of_the_first(tasks: Tasks) -> None:
    async with tasks.runner.start():
        first = await tasks.runner.dispatch(chain(tasks.give.job(1), tasks.add_up.job(), id="daily"))
        second = await tasks.runner.dispatch(chain(tasks.give.job(100), tasks.add_up.job(), id="daily"))
        assert (first.id, first.deduplicated, second.id, second.deduplicated) == ("daily", False, "daily", True)
        assert await second.result(DEADLINE) == 1
    assert tasks.calls == [1]


async def test_an_id_of_another_kind_of_workflow_is_refused(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(tasks.give.job(1), id="daily"))
        steps = chain(tasks.give.job(1), tasks.give.job(2), id="daily")
        with pytest.raises(WorkflowError, match="'daily': that is the id of a group"):
            await tasks.runner.dispatch(steps)
        await job.wait(DEADLINE)


async def test_jobs_of_a_workflow_may_have_ids_of_their_own(tasks: Tasks) -> None:
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(
            chain(tasks.give.with_options(id="first").job(1), tasks.give.with_options(id="second").job(2))
        )
        assert [step.id for step in job.steps] == ["first", "second"]
        assert await job.result(DEADLINE) == 2
        assert (await job.info()).finished == ["first", "second"]
        found: Any = await tasks.runner.workflow(job.id)
        assert [step.id for step in found.steps] == ["first", "second"]


# -- refusals: nothing is written ----------------------------------------------------------------------------


async def test_a_task_that_the_runner_does_not_know_is_refused(
    tasks: Tasks, make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    stranger = make_runner().declare("gave")
    for part in (
        stranger.job(),
        chain(tasks.give.job(1), stranger.job()),
        group(chain(tasks.give.job(1), group(stranger.job()))),
        group(tasks.give.job(1), then=stranger.job()),
        group.map(stranger, [1]),
    ):
        with pytest.raises(UnknownTask, match="no task 'gave' is registered or declared here; did you mean 'give'"):
            await tasks.runner.dispatch(part)
    assert await nothing_is_written(redis_client, namespace)


async def test_a_workflow_is_dispatched_once(tasks: Tasks) -> None:
    async with tasks.runner.start():
        steps = chain(tasks.give.job(1), tasks.give.job(2))
        job = await tasks.runner.dispatch(steps)
        with pytest.raises(WorkflowError, match="has been dispatched already"):
            await tasks.runner.dispatch(steps)
        await job.wait(DEADLINE)
    assert tasks.calls == [1, 2]


async def test_what_stands_twice_in_a_workflow_is_refused(
    tasks: Tasks, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    twice = tasks.give.job(1)
    with pytest.raises(WorkflowError, match="twice"):
        await tasks.runner.dispatch(group(chain(twice, tasks.give.job(1)), chain(twice, tasks.give.job(2))))
    assert await nothing_is_written(redis_client, namespace)


async def test_arguments_that_can_not_travel_leave_nothing_of_the_workflow(
    tasks: Tasks, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    items = [*range(2_000), object()]
    with pytest.raises(PayloadError):
        await tasks.runner.dispatch(group.map(tasks.give, items))
    assert await nothing_is_written(redis_client, namespace)


async def test_a_workflow_that_was_refused_can_be_dispatched_later(tasks: Tasks) -> None:
    steps = chain(tasks.give.with_options(max_wait=5, queue="unserved").job(1), tasks.give.job(2))
    await tasks.give.with_options(queue="unserved").dispatch(0)
    with pytest.raises(QueueBusy, match="unserved"):
        await tasks.runner.dispatch(steps)
    assert tasks.calls == []
    async with tasks.runner.start(queues=["default", "unserved"]):
        await eventually(lambda: tasks.calls == [0])
        job = await eventually(lambda: accepted(tasks.runner, steps))
        assert await job.result(DEADLINE) == 2


async def accepted(runner: TaskRunner, steps: Any) -> Any:
    try:
        return await runner.dispatch(steps)
    except QueueBusy:
        return None


async def test_arguments_and_options_beside_a_workflow_are_refused(tasks: Tasks) -> None:
    steps: Any = chain(tasks.give.job(1), tasks.give.job(2))
    with pytest.raises(WorkflowError, match="go into task"):
        await tasks.runner.dispatch(steps, 1)
    with pytest.raises(WorkflowError, match="has its arguments already"):
        await tasks.runner.dispatch(tasks.give.job(1), 1)
    with pytest.raises(WorkflowError, match="has its options already"):
        await tasks.runner.with_options(delay=1).dispatch(steps)


@pytest.mark.parametrize("error", [None, asyncio.CancelledError()], ids=["no answer", "the caller was cancelled"])
async def test_after_an_uncertain_dispatch_only_a_workflow_with_an_id_can_be_dispatched_again(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    named, nameless = (chain(tasks.give.job(1), tasks.give.job(2), id=id) for id in ("named", None))

    async def begin(self: Any, partition: int, blueprint: Any, *rest: Any) -> bool:
        raise error if error is not None else DispatchUncertain("the server went away", [blueprint.id])

    async with tasks.runner.start():
        with monkeypatch.context() as patch:
            patch.setattr(Workflows, "begin", begin)
            for steps in (named, nameless):
                with pytest.raises((DispatchUncertain, asyncio.CancelledError)):
                    await tasks.runner.dispatch(steps)
        job = await tasks.runner.dispatch(named)
        assert await job.result(DEADLINE) == 2
        with pytest.raises(WorkflowError, match="has been dispatched already"):
            await tasks.runner.dispatch(nameless)


@pytest.mark.parametrize(
    ("durabilities", "strongest"),
    [
        (["memory", "memory"], Durability.MEMORY),
        (["memory", "replicated"], Durability.REPLICATED),
        (["fsynced", "replicated"], Durability.FSYNCED),
    ],
)
async def test_a_workflow_is_as_durable_as_the_most_durable_of_its_jobs(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, durabilities: list[Any], strongest: Durability
) -> None:
    asked: list[Durability] = []
    original = Workflows.begin

    async def begin(self: Any, partition: int, blueprint: Any, durability: Durability, *rest: Any) -> bool:
        asked.append(durability)
        return await original(self, partition, blueprint, Durability.MEMORY, *rest)

    monkeypatch.setattr(Workflows, "begin", begin)
    async with tasks.runner.start():
        jobs = [tasks.give.with_options(durability=one).job(1) for one in durabilities]
        job = await tasks.runner.dispatch(chain(tasks.give.job(0), group(*jobs)))
        await job.wait(DEADLINE)
    assert asked == [strongest]


async def test_the_items_of_a_map_are_read_while_they_are_sent(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    read, most_ahead, sent = 0, 0, 0
    original: Any = Workflows._stage

    async def stage(self: Any, keys: Any, token: str, part: Any, *rest: Any) -> None:
        nonlocal most_ahead, sent
        most_ahead, sent = max(most_ahead, read - sent), read
        await original(self, keys, token, part, *rest)

    def items() -> Iterator[str]:
        nonlocal read
        for _ in range(3_000):
            read += 1
            yield "x" * 10_000

    monkeypatch.setattr(Workflows, "_stage", stage)
    job = await tasks.runner.dispatch(group.map(tasks.give, items()))
    assert read == 3_000
    assert 0 < most_ahead < 1_000
    assert await job.cancel()
    await job.wait(DEADLINE)


# -- values --------------------------------------------------------------------------------------------------


@dataclass
class Page:
    number: int
    day: date


async def test_results_have_the_types_that_the_tasks_return(tasks: Tasks) -> None:
    runner = tasks.runner

    @runner.task
    async def page(number: int) -> Page:
        return Page(number, date(2026, 11, 23))

    @runner.task
    async def last(context: JobContext) -> Page | None:
        return None

    def made(number: int) -> Page:
        return Page(number, date(2026, 11, 23))

    graph = Graph()
    node = graph.add(page.job(7))
    wide = graph.add(group(page.job(8), chain(page.job(1), group(page.job(9)))), after=[node])
    async with runner.start():
        assert await (await runner.dispatch(chain(last.job(), page.job(2)))).result(DEADLINE) == made(2)
        assert await (await runner.dispatch(chain(page.job(1), last.job()))).result(DEADLINE) is None
        assert await (await runner.dispatch(group.map(page, [1, 2]))).results(DEADLINE) == [made(1), made(2)]
        job = await runner.dispatch(graph)
        assert await job.results(DEADLINE) == [made(7), [made(8), [made(9)]]]
        assert await job.job(node).result(DEADLINE) == made(7)
        assert await job.job(wide).result(DEADLINE) == [made(8), [made(9)]]
        after = await runner.dispatch(group(page.job(1), then=page.job(3)))
        assert after.then is not None
        assert await after.then.result(DEADLINE) == made(3)


class Pickle:
    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


async def test_values_go_through_the_serializer_of_the_runner(make_runner: MakeRunner) -> None:
    tasks = Tasks(make_runner(serializer=Pickle()))
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(tasks.give.job({1, 2}), group(tasks.show.job(), tasks.nothing.job())))
        assert await job.result(DEADLINE) == [{1, 2}, None]


async def test_a_step_whose_result_is_not_kept_hands_it_on_all_the_same(tasks: Tasks) -> None:
    silent = tasks.give.with_options(ignore_result=True)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(chain(silent.job(4), tasks.add_up.job(1)))
        await job.wait(DEADLINE)
        assert await job.status() is JobStatus.SUCCEEDED
        assert (await job.info()).finished == [step.id for step in job.steps]


async def test_a_workflow_over_several_partitions_is_looked_at_as_one(make_runner: MakeRunner) -> None:
    tasks = Tasks(make_runner(partitions=3))
    unique = tasks.hold.with_options(unique=True)
    async with tasks.runner.start():
        job = await tasks.runner.dispatch(group(*(unique.job(n) for n in range(6)), tasks.give.job("x")))
        await eventually(lambda: len(tasks.started) == 6)
        statuses = list((await eventually(lambda: settled(job))).jobs.values())
        assert statuses == [*[JobStatus.RUNNING] * 6, JobStatus.SUCCEEDED]
        tasks.go.set()
        assert await job.results(DEADLINE) == [0, 1, 2, 3, 4, 5, "x"]


async def settled(job: GroupJob[Any]) -> Any:
    info = await job.info()
    return info if JobStatus.SUCCEEDED in info.jobs.values() else None

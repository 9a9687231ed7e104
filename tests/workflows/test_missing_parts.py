"""Workflows of which somebody has deleted a part end nevertheless; the others are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Graph, JobFailed, JobNotFound, JobStatus, TaskRunner, chain, group
from taskrunner.store.workflows import Workflows
from tests.waiting import eventually
from tests.workflows.auditing import audit, everything, keys_of
from tests.workflows.tasks import Tasks

MakeRunner = Callable[..., TaskRunner]
LEFT = pytest.mark.leaves("stream:", "live", "followers", "unique:", "dead", "due:", "letters:", "tallies:")


@pytest.fixture
def runner(make_runner: MakeRunner) -> TaskRunner:
    """Its workers audit nothing while a test goes on."""
    return make_runner(reservation_timeout=60)


async def unfold_nothing(*_: Any) -> None:
    """As if everybody had died behind the first step of a large workflow."""


async def finish(runner: TaskRunner, *jobs: Any) -> list[JobStatus]:
    async with runner.start():
        for job in jobs:
            await job.wait(timeout=20)
    return [await job.status() for job in jobs]


async def lose(client: redis.asyncio.Redis, runner: TaskRunner, id: str, *, link: bool = True) -> None:
    """A job, its entry, and maybe what it knew of its workflow."""
    keys = await keys_of(runner)
    record = await client.hget(keys.live, id)
    await client.xdel(keys.queue("default").stream, record.split()[2])
    await client.hdel(keys.live, id)
    if link:
        await client.hdel(keys.followers, id)
    await client.hincrby(keys.queue("default").waiting, "give", -1)


# -- what is sound ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("how", ["look", "mend"])
async def test_sound_workflows_of_every_kind_are_left_alone(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, partitions: int, how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runner = make_runner(partitions=partitions, reservation_timeout=60)
    tasks = Tasks(runner)

    @runner.task(unique=True)
    async def alone(n: int) -> int:
        return n

    graph = Graph()
    first = graph.add(tasks.hold.job(1))
    graph.add(tasks.add_up.job(), after=[first, graph.add(alone.job(5), after=[first])])
    parts: list[Any] = [
        chain(
            tasks.hold.job(1),
            alone.job(1),
            group(alone.job(2), tasks.hold.job(1), then=tasks.give.job(1)),
            tasks.add_up.job(),
        ),
        chain(*(alone.job(n) for n in (2, 3, 4))),
        group(*(alone.job(n) for n in range(30)), then=tasks.add_up.job()),
        group(tasks.give.with_options(delay=0.5).job(1), alone.with_options(delay=0.5).job(100)),
        graph,
    ]
    large = group(*(tasks.give.job(n) for n in range(450)), then=tasks.add_up.job())
    jobs: list[Any] = [await runner.dispatch(part) for part in parts]
    with monkeypatch.context() as patch:
        patch.setattr((await runner.opened()).store.workflows, "unfold", unfold_nothing)
        jobs.append(await runner.dispatch(large))
    before = await everything(redis_client, namespace)
    assert await audit(runner, how) == []
    after = await everything(redis_client, namespace)
    asked = {key for key in after if b"}:outbox:" in key and how == "mend"}
    assert {key: after[key] for key in after if key not in asked} == {
        key: before[key] for key in before if key not in asked
    }, "it asks other partitions, no more"
    async with runner.start():
        for _ in range(10):
            assert await audit(runner, how) == []
            await asyncio.sleep(0.02)
        tasks.go.set()
        for job in jobs:
            await job.wait(timeout=20)
        assert await audit(runner, how) == []
    assert {await job.status() for job in jobs} == {JobStatus.SUCCEEDED}
    assert await jobs[-1].results(5) == list(range(450))


async def test_what_is_left_over_of_a_large_workflow_is_under_way_when_nothing_of_it_runs(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await keys_of(runner)
    with monkeypatch.context() as patch:
        patch.setattr(Workflows, "unfold", unfold_nothing)
        job = await runner.dispatch(group(*(tasks.give.job(n) for n in range(450))))
        async with runner.start():
            await eventually(lambda: is_without(redis_client, keys.live))
        assert await audit(runner) == []
        assert await job.status() is JobStatus.RUNNING
    async with runner.start():
        assert await job.results(20) == list(range(450))


# -- nodes and their jobs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [True, False])
async def test_a_node_whose_job_is_gone_has_failed_and_what_follows_never_runs(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, link: bool
) -> None:
    job = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2), tasks.give.job(3)))
    await lose(redis_client, runner, f"{job.id}.0", link=link)
    before = await everything(redis_client, runner.settings.namespace)
    found = await audit(runner, "look")
    assert found == ["ended"]
    assert await everything(redis_client, runner.settings.namespace) == before
    assert await audit(runner) == (["ended", "stuck"] if link else ["ended"])
    assert await audit(runner) == []
    assert await job.status() is JobStatus.FAILED
    with pytest.raises(JobFailed, match="Orphaned"):
        await job.result(5)
    assert tasks.calls == []
    keys = await keys_of(runner)
    assert not await redis_client.exists(keys.workflows, keys.followers, keys.live)


async def test_a_node_whose_jobs_outcome_is_known_ends_as_that_says(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(group(tasks.give.job(1), tasks.give.job(2), then=tasks.add_up.job(10)))
    keys = await keys_of(runner)
    async with runner.start():
        await job.wait(timeout=20)
    job = await runner.dispatch(group(tasks.give.job(1), tasks.give.job(2), then=tasks.add_up.job(10)))
    await redis_client.hdel(keys.followers, f"{job.id}.2", f"{job.id}.3")
    async with runner.start():
        await eventually(lambda: redis_client.exists(keys.job(f"{job.id}.2")))
        await eventually(lambda: redis_client.exists(keys.job(f"{job.id}.3")))
        assert await job.status() is JobStatus.RUNNING
        assert await audit(runner) == ["ended", "stuck"]
        assert await job.results(20) == [1, 2]
        assert await job.then.result(20) == 13
    assert await audit(runner) == []


async def test_a_job_that_does_not_know_its_node_any_more_learns_it_again(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(group(tasks.give.job(1), tasks.give.job(2)))
    keys = await keys_of(runner)
    await redis_client.delete(keys.followers)
    assert await audit(runner, "look") == ["linked"]
    assert not await redis_client.exists(keys.followers)
    assert await audit(runner) == ["linked"]
    assert await audit(runner) == []
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.followers))
        assert await audit(runner) == ["stuck"], "whom it should have told stood in its link"
        assert await job.results(20) == [1, 2]


async def is_without(client: redis.asyncio.Redis, key: str) -> bool:
    return not await client.exists(key)


async def test_a_chain_whose_job_has_forgotten_who_follows_fails_when_that_has_ended(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(
        chain(tasks.give.job(1), group(tasks.give.job(2), tasks.give.job(3)), tasks.give.job(4))
    )
    keys = await keys_of(runner)
    await redis_client.delete(keys.followers)
    assert await audit(runner) == ["linked"]
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.followers))
        assert await audit(runner) == ["stuck"]
        with pytest.raises(JobFailed, match="Orphaned"):
            await job.result(20)
    assert await audit(runner) == []
    assert tasks.calls == [1]
    assert not await redis_client.exists(keys.workflows)


@pytest.mark.parametrize("link", [True, False])
async def test_what_follows_a_failure_runs_when_a_job_of_the_group_is_gone(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, link: bool
) -> None:
    job = await runner.dispatch(
        group(tasks.give.job(1), tasks.give.job(2), then=tasks.give.job("then"), on_failure=tasks.give.job("mended"))
    )
    await lose(redis_client, runner, f"{job.id}.3", link=link)
    async with runner.start():
        await eventually(lambda: tasks.calls == [1])
        await audit(runner)
        await eventually(lambda: audit_until(runner, lambda: "mended" in tasks.calls))
        await job.wait(timeout=20)
    assert await job.status() is JobStatus.FAILED
    assert tasks.calls == [1, "mended"]


async def audit_until(runner: TaskRunner, condition: Callable[[], bool]) -> bool:
    await audit(runner)
    return condition()


async def test_hundreds_of_lost_jobs_end_page_by_page(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(group(*(tasks.give.job(n) for n in range(450))))
    keys = await keys_of(runner)
    await redis_client.delete(keys.live, keys.followers, keys.queue("default").stream, keys.queue("default").waiting)
    auditor = (await runner.opened()).store.workflow_auditor(keys)
    sizes = [len(page.damages) async for page in auditor.whole("mend")]
    assert sum(sizes) >= 450
    assert max(sizes) <= 100
    while await audit(runner):
        continue
    assert await job.status() is JobStatus.FAILED
    assert not await redis_client.exists(keys.workflows)


# -- what a workflow is made of -----------------------------------------------------------------------------------


async def test_a_workflow_whose_hash_is_gone_is_unknown_and_the_rest_of_it_expires(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(chain(tasks.give.with_options(id="mine").job(1), tasks.give.job(2)))
    keys = await keys_of(runner)
    hash, nodes, jobs = keys.workflow(job.id)
    waiting = asyncio.create_task(job.result(20))
    await eventually(lambda: redis_client.hexists(keys.watchers, job.id))
    await redis_client.delete(hash)
    assert await audit(runner, "look") == ["removed"]
    assert await redis_client.pttl(nodes) == -1
    assert await audit(runner) == ["removed"]
    with pytest.raises(JobNotFound):
        await waiting
    assert min(await redis_client.pttl(nodes), await redis_client.pttl(jobs)) > 0
    assert not await redis_client.exists(keys.workflows, keys.watchers)
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.live))
    assert tasks.calls == [1], "a job that has begun is a job like others"
    assert not await redis_client.exists(keys.followers)


async def test_a_workflow_that_is_not_among_those_that_run_is_put_there(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    job = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2)))
    keys = await keys_of(runner)
    await redis_client.delete(keys.workflows)
    assert await audit(runner, "look") == ["listed"]
    assert await audit(runner) == ["listed"]
    assert await redis_client.zscore(keys.workflows, job.id)
    assert await finish(runner, job) == [JobStatus.SUCCEEDED]


@pytest.mark.parametrize("how", ["deleted", "cut", "overwritten"])
async def test_a_workflow_whose_letters_are_gone_has_failed(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, how: str
) -> None:
    job = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2), tasks.give.job(3)))
    keys = await keys_of(runner)
    nodes = keys.workflow(job.id)[1]
    await (redis_client.delete(nodes) if how == "deleted" else redis_client.set(nodes, "o" if how == "cut" else "o?w"))
    assert await audit(runner) == ["ruined"]
    assert await job.status() is JobStatus.FAILED
    with pytest.raises(JobFailed, match="Orphaned"):
        await job.result(5)
    assert not await redis_client.exists(keys.workflows)
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.live))
    assert tasks.calls == [1]


async def test_a_large_workflow_goes_on_when_what_was_left_of_it_is_forgotten(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (await runner.opened()).store
    with monkeypatch.context() as patch:
        patch.setattr(store.workflows, "unfold", unfold_nothing)
        job = await runner.dispatch(group(*(tasks.give.job(n) for n in range(450)), then=tasks.add_up.job()))
    keys = await keys_of(runner)
    assert await redis_client.zcard(keys.unfolding)
    await redis_client.delete(keys.unfolding)
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.live))
        assert len(tasks.calls) < 450
        assert await audit(runner) == ["stuck"]
        assert await job.results(20) == list(range(450))
        assert await job.then.result(20) == sum(range(450))


@pytest.mark.parametrize("field", ["i:1", "damaged", "c:2:0", "all"])
async def test_a_workflow_with_a_letter_that_was_deleted_fails_when_its_turn_comes(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis, field: str
) -> None:
    part = chain(tasks.give.job(1), tasks.give.job(2), group(tasks.give.job(3), tasks.give.job(4)), tasks.give.job(5))
    job = await runner.dispatch(part)
    keys = await keys_of(runner)
    hash = keys.workflow(job.id)[0]
    if field == "damaged":
        await redis_client.hset(hash, "i:1", b"\xc1nothing of ours")
    else:
        known = [one for one in await redis_client.hkeys(hash) if one[:2] in (b"i:", b"c:")]
        await redis_client.hdel(hash, *(known if field == "all" else [field]))
    async with runner.start():
        await eventually(lambda: 1 in tasks.calls)
        await eventually(lambda: is_without(redis_client, keys.live))
        while await audit(runner):
            continue
        with pytest.raises(JobFailed):
            await job.result(20)
    assert tasks.calls == ([1, 2] if field == "c:2:0" else [1])
    assert not await redis_client.exists(keys.workflows, keys.followers, keys.unfolding)


@LEFT
async def test_a_join_whose_count_is_off_ends_when_all_before_it_have(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    inner = group(tasks.give.job(2), chain(tasks.give.job(3), tasks.give.job(4)), then=tasks.fail.job())
    job = await runner.dispatch(group(tasks.give.job(1), inner, then=tasks.give.job("then")))
    keys = await keys_of(runner)
    hash = keys.workflow(job.id)[0]
    await redis_client.hset(hash, "b:1", 7)
    await redis_client.hset(hash, "b:4", "many")
    async with runner.start():
        await eventually(lambda: set(tasks.calls) >= {1, 2, 4})
        await eventually(lambda: is_without(redis_client, keys.live))
        await eventually(lambda: audit_until(runner, lambda: "then" in tasks.calls))
        assert await job.results(20) == [1, [2, 4]]
        while await audit(runner):
            continue
    assert not await redis_client.exists(keys.workflows, keys.followers)


# -- who does it --------------------------------------------------------------------------------------------------


async def test_workers_do_it_by_themselves(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(reservation_timeout=0.4)
    tasks = Tasks(runner)
    lost = await runner.dispatch(chain(tasks.give.job(1), tasks.give.job(2)))
    await lose(redis_client, runner, f"{lost.id}.0")
    async with runner.start():
        with pytest.raises(JobFailed, match="Orphaned"):
            await lost.result(20)
        told = f"what can't go on has ended ({lost.id})"
        await eventually(lambda: told in caplog.text)
    assert tasks.calls == []


async def test_one_worker_at_a_time_goes_on_where_the_fleet_has_come_to(
    runner: TaskRunner, tasks: Tasks, redis_client: redis.asyncio.Redis
) -> None:
    for n in range(3):
        await runner.dispatch(chain(tasks.give.job(n), tasks.give.job(n)))
    keys = await keys_of(runner)
    auditor = (await runner.opened()).store.workflow_auditor(keys)
    assert await auditor.turn() == ("", 0.0)
    pages = auditor.whole("mend")
    page = await anext(pages)
    while page.cursor != "links 0":
        page = await anext(pages)
    await auditor.keep(page.cursor)
    cursor, wait = await auditor.turn()
    assert cursor == "links 0"
    assert 0 < wait <= auditor.rest
    await redis_client.hset(keys.janitor, "workflows-next", 1)
    assert await auditor.turn() == ("links 0", 0.0), "whoever did it has died"
    assert [one.cursor async for one in auditor.whole("mend", "links 0")] == ["links 0", ""]
    await redis_client.hset(keys.janitor, mapping={"workflows-next": "soon", "workflows-audit": b"\xff of nobody"})
    cursor, wait = await auditor.turn()
    assert wait == 0.0
    assert [one.damages async for one in auditor.whole("mend", cursor) if one.damages] == []
    async with runner.start():
        await eventually(lambda: is_without(redis_client, keys.workflows))

"""job.events(): a job followed from where it stands to its end, for a web page as for a program."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    Job,
    JobContext,
    JobNotFound,
    JobStatus,
    JobUpdate,
    ResultNotKept,
    TaskRunner,
    session,
)
from taskrunner.store.inspect import Inspection
from taskrunner.store.keys import PartitionKeys
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
NEVER = (3600.0, 3600.0)
OFTEN = (0.02, 0.05)


class Steps:
    """A task that goes on by one report each time it is told to, and those who follow its jobs from another process."""

    def __init__(self, make_runner: MakeRunner, redis: Any = None) -> None:
        self.worker, self.asker = make_runner(redis), make_runner(redis)
        self._turns = asyncio.Queue[int | None]()
        self.worker.task(name="work")(self._work)

    async def _work(self, ctx: JobContext) -> None:
        while (done := await self._turns.get()) is not None:
            await ctx.progress(done, 10)

    def go(self, done: int) -> None:
        self._turns.put_nowait(done)

    def end(self) -> None:
        self._turns.put_nowait(None)

    async def dispatch(self) -> Job[Any]:
        return self.asker.job((await self.worker.dispatch("work")).id)


@pytest.fixture
def steps(make_runner: MakeRunner) -> Steps:
    return Steps(make_runner)


def done_of(update: JobUpdate) -> float | None:
    return None if update.progress is None else update.progress.done


async def following(job: Job[Any], seen: list[JobUpdate]) -> None:
    async for update in job.events():
        seen.append(update)  # noqa: PERF401 each at once


async def test_the_present_state_comes_first_and_the_end_last(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> None: ...

    job = await work.with_options(delay=0.2).dispatch()
    seen = list[JobUpdate]()
    follower = asyncio.create_task(following(job, seen))
    await eventually(lambda: seen)
    async with runner.start():
        await asyncio.wait_for(follower, 20)
    first, last = seen[0], seen[-1]
    assert (first.id, first.task, first.status, first.ended) == (job.id, "work", JobStatus.SCHEDULED, False)
    assert first.due_at is not None
    assert (last.status, last.ended, last.attempts, last.due_at) == (JobStatus.SUCCEEDED, True, 1, None)
    assert first.at < last.at
    assert last.at.tzinfo is UTC


async def test_each_report_and_the_end_are_told_and_not_found_by_looking(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "NEWS", NEVER)
    seen = list[JobUpdate]()
    async with steps.worker.start():
        job = await steps.dispatch()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen)
        for n in (1, 2, 3):
            steps.go(n)
            await eventually(lambda n=n: done_of(seen[-1]) == n)  # type: ignore[misc]
        steps.end()
        await asyncio.wait_for(follower, 20)
    assert [done_of(update) for update in seen][-4:] == [1, 2, 3, 3]
    assert [update.status for update in seen][-2:] == [JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert all(a != b for a, b in itertools.pairwise(seen))


async def test_that_a_run_has_started_is_found_by_looking(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NEWS", OFTEN)
    seen, job = list[JobUpdate](), await steps.dispatch()
    follower = asyncio.create_task(following(job, seen))
    await eventually(lambda: seen)
    async with steps.worker.start():
        await eventually(lambda: seen[-1].status is JobStatus.RUNNING)
        steps.end()
        await asyncio.wait_for(follower, 20)
    assert [update.status for update in seen] == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]


@end_in_dead_letters
async def test_a_retry_is_a_change_and_a_failure_comes_with_its_error(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "NEWS", OFTEN)
    go, seen = asyncio.Event(), list[JobUpdate]()

    @runner.task(max_retry=1, backoff=Backoff.constant(0.5))
    async def work() -> None:
        await go.wait()
        raise ValueError("no")

    async with runner.start():
        job = await work.dispatch()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen and seen[-1].status is JobStatus.RUNNING)
        go.set()
        await asyncio.wait_for(follower, 20)
    [waiting] = [update for update in seen if update.status is JobStatus.RETRYING]
    assert (waiting.attempts, waiting.due_at is not None, waiting.error) == (2, True, None)
    last = seen[-1]
    assert last.status is JobStatus.FAILED
    assert last.error is not None
    assert (last.error.error_type, last.error.message) == ("ValueError", "no")


async def test_an_update_can_be_sent_as_json(steps: Steps) -> None:
    async with steps.worker.start():
        job = await steps.dispatch()
        steps.go(4)
        steps.end()
        await job.wait(timeout=20)
        [last] = [update async for update in job.events()]
    told = json.loads(json.dumps(last.as_dict()))
    at, progress = told.pop("at"), told.pop("progress")
    assert at == last.at.isoformat()
    assert progress.pop("at")
    assert progress == {"done": 4, "total": 10, "message": None, "fraction": 0.4}
    assert told == {
        "id": job.id, "task": "work", "status": "succeeded", "attempts": 1, "due_at": None, "error": None,
        "ended": True,
    }  # fmt: skip


@end_in_dead_letters
async def test_the_error_of_a_failure_is_a_line_of_json(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError("no")

    async with runner.start():
        job = await work.dispatch()
        updates = [update async for update in job.events()]
    told = json.loads(json.dumps(updates[-1].as_dict()))
    assert "no" in told["error"]
    assert "Traceback" not in told["error"]


async def test_many_follow_one_job_each_for_itself(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NEWS", NEVER)
    everybody = [list[JobUpdate]() for _ in range(20)]
    async with steps.worker.start():
        job = await steps.dispatch()
        followers = [asyncio.create_task(following(job, seen)) for seen in everybody]
        await eventually(lambda: all(everybody))
        steps.go(5)
        await eventually(lambda: all(done_of(seen[-1]) == 5 for seen in everybody))
        steps.end()
        await asyncio.wait_for(asyncio.gather(*followers), 20)
    assert {seen[-1].status for seen in everybody} == {JobStatus.SUCCEEDED}


async def test_who_waits_for_the_result_is_not_woken_by_reports(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    looks, original = 0, Inspection.watch

    async def watch(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return await original(*arguments)

    monkeypatch.setattr(Inspection, "watch", watch)
    async with steps.worker.start():
        job, seen = await steps.dispatch(), list[JobUpdate]()
        waiting = asyncio.create_task(job.wait(timeout=40))
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen and looks)
        before = looks
        for n in range(1, 6):
            steps.go(n)
            await eventually(lambda n=n: done_of(seen[-1]) == n)  # type: ignore[misc]
        assert looks == before
        steps.end()
        await asyncio.wait_for(asyncio.gather(waiting, follower), 20)


async def test_whoever_leaves_the_loop_leaves_nothing_behind(
    steps: Steps, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    async with steps.worker.start():
        job = await steps.dispatch()
        async for _ in job.events():
            break
        assert steps.asker.session()._waiters == {}
        steps.end()
        await job.wait(timeout=20)
        assert not await redis_client.hexists(keys.watchers, job.id)


async def test_a_follower_that_is_cancelled_leaves_nothing_behind(steps: Steps) -> None:
    async with steps.worker.start():
        job, seen = await steps.dispatch(), list[JobUpdate]()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen and steps.asker.session()._waiters)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        assert steps.asker.session()._waiters == {}
        steps.end()
        await job.wait(timeout=20)


async def test_what_came_between_two_questions_is_seen_with_the_next(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "NEWS", NEVER)
    async with steps.worker.start():
        job = await steps.dispatch()
        updates = job.events()
        await anext(updates)
        steps.go(1)
        steps.end()
        await steps.worker.job(job.id).wait(timeout=20)
        last = await asyncio.wait_for(anext(updates), 20)
        assert (last.status, done_of(last)) == (JobStatus.SUCCEEDED, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(updates)


async def test_notices_that_never_come_are_made_up_for_by_looking(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "NEWS", OFTEN)
    monkeypatch.setattr(session.Session, "_heard", lambda *_: None)
    seen = list[JobUpdate]()
    async with steps.worker.start():
        job = await steps.dispatch()
        follower = asyncio.create_task(following(job, seen))
        steps.go(7)
        await eventually(lambda: seen and done_of(seen[-1]) == 7)
        steps.end()
        await asyncio.wait_for(follower, 20)
    assert seen[-1].ended


async def test_a_notice_that_is_lost_with_its_connection_is_made_up_for_when_it_is_back(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis
) -> None:
    monkeypatch.setattr(session, "NEWS", NEVER)
    seen = list[JobUpdate]()
    async with steps.worker.start():
        job = await steps.dispatch()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen)
        assert await redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        steps.end()
        await asyncio.wait_for(follower, 20)
    assert seen[-1].ended


@pytest.mark.crash
async def test_an_outage_is_waited_out(make_runner: MakeRunner, tmp_path: Path) -> None:
    async with Server(tmp_path / "server", persistent=True) as server:
        steps, seen = Steps(make_runner, server.url), list[JobUpdate]()
        job = await steps.dispatch()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen)
        server.kill()
        await eventually(lambda: not steps.asker.session().listener._ready.is_set())
        assert not follower.done()
        await server.start()
        async with steps.worker.start():
            steps.end()
            await asyncio.wait_for(follower, 40)
        await steps.asker.aclose()
        await steps.worker.aclose()
    assert seen[-1].status is JobStatus.SUCCEEDED


async def test_a_job_that_nobody_dispatched_can_not_be_followed(runner: TaskRunner) -> None:
    with pytest.raises(JobNotFound, match="nobody"):
        await anext(runner.job("nobody").events())


async def test_following_ends_when_the_job_is_deleted(steps: Steps) -> None:
    async with steps.worker.start():
        job, seen = await steps.dispatch(), list[JobUpdate]()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen)
        assert await steps.worker.delete(job.id)
        with pytest.raises(JobNotFound):
            await asyncio.wait_for(follower, 20)


@pytest.mark.leaves("stream:default")
async def test_a_job_without_a_record_can_not_be_followed(runner: TaskRunner) -> None:
    job = await runner.declare("work", ignore_result=True).dispatch()
    with pytest.raises(ResultNotKept, match="ignore_result"):
        job.events()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_handle_made_of_an_id_follows_the_job_in_whichever_partition(
    make_runner: MakeRunner, partitions: int
) -> None:
    worker, asker = make_runner(partitions=partitions), make_runner(partitions=partitions)

    @worker.task(unique=True, unique_key=str)
    async def work(n: int) -> None: ...

    async with worker.start():
        for job in [await work.dispatch(n) for n in range(6)]:
            updates = [update async for update in asker.job(job.id).events()]
            assert updates[-1].status is JobStatus.SUCCEEDED


async def test_a_cancelled_job_ends_the_following(steps: Steps) -> None:
    async with steps.worker.start():
        job, seen = await steps.dispatch(), list[JobUpdate]()
        follower = asyncio.create_task(following(job, seen))
        await eventually(lambda: seen)
        assert await job.cancel()
        await asyncio.wait_for(follower, 20)
    assert seen[-1].status is JobStatus.CANCELLED

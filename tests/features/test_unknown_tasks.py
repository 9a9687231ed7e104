"""A task that a worker doesn't know goes back, for a worker that does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import JobFailed, JobStatus, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.worker import executor
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "UNKNOWN_WAIT", (0.05, 0.1))


async def test_another_runner_that_knows_the_task_gets_the_job(make_runner: MakeRunner, soon_again: None) -> None:
    old, new, ran = make_runner(), make_runner(), list[int]()

    @new.task
    async def fresh(n: int) -> int:
        ran.append(n)
        return n

    async with old.start():
        jobs = [await fresh.dispatch(n) for n in range(5)]
        await eventually(lambda: all_scheduled_once(old, 5))
        async with new.start():
            assert [await job.result(timeout=20) for job in jobs] == list(range(5))
    assert sorted(ran) == list(range(5))
    assert await old.dead_letters.count() == 0


async def test_it_spends_no_attempt_and_keeps_its_headers(make_runner: MakeRunner, soon_again: None) -> None:
    from taskrunner import JobContext

    old, new = make_runner(), make_runner()

    @new.task(max_retry=0)
    async def fresh(ctx: JobContext, n: int) -> list[object]:
        return [ctx.attempt, dict(ctx.headers), n]

    async with old.start():
        job = await fresh.with_options(headers={"a": "b"}).dispatch(1)
        await eventually(lambda: all_scheduled_once(old, 1))
    async with new.start():
        assert await job.result(timeout=20) == [1, {"a": "b"}, 1]


async def test_a_worker_that_learns_the_task_at_a_restart_runs_it(make_runner: MakeRunner, soon_again: None) -> None:
    runner = make_runner()
    job = await runner.declare("later").dispatch()
    async with runner.start():
        await eventually(lambda: all_scheduled_once(runner, 1))
    del runner.tasks["later"]
    runner.task(name="later")(answer)
    async with runner.start():
        assert await job.result(timeout=20) == 42


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
async def test_the_first_return_is_after_seconds_not_at_once(make_runner: MakeRunner) -> None:
    runner = make_runner()
    async with runner.start():
        job = await runner.declare("nowhere").dispatch()
        info = await eventually(lambda: scheduled(runner, job.id))
    assert 4 <= (info.due_at - info.enqueued_at).total_seconds() <= 60
    assert await runner.dead_letters.count() == 0


@pytest.mark.leaves("dead")
async def test_after_a_day_it_is_a_dead_letter(
    make_runner: MakeRunner, soon_again: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "UNKNOWN_TTL", 0.01)
    runner, told = make_runner(), list[str]()
    runner = make_runner(failed_task_handler=lambda job: told.append(job.reason))
    async with runner.start():
        job = await runner.declare("nowhere").dispatch(7)
        with pytest.raises(JobFailed, match="no worker has known the task 'nowhere'") as failed:
            await job.result(timeout=20)
    assert failed.value.reason == "unknown task"
    assert told == ["unknown task"]
    letter = await runner.dead_letters.get(job.id)
    assert letter is not None
    assert letter.args == [7]


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live")
async def test_an_envelope_of_a_newer_version_goes_back_unread_and_whole(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    names = keys.queue("default")
    runner = make_runner()
    async with runner.start():
        id = (await redis_client.xadd(names.stream, {"t9": b"\x00from the future", "r": "5000"})).decode()
        [letter] = await eventually(lambda: redis_client.hvals(names.letters))
    assert await redis_client.zscore(names.due, f"unreadable-{id}") is not None
    assert letter.endswith(b"\nt9\n\x00from the future")
    assert b"r 5000" in letter.split(b"\n")[1]
    assert await runner.dead_letters.count() == 0


@pytest.mark.leaves("dead")
async def test_an_envelope_of_a_newer_version_that_nobody_could_read_for_a_day_is_a_dead_letter(
    make_runner: MakeRunner,
    redis_client: redis.asyncio.Redis,
    keys: PartitionKeys,
    soon_again: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = keys.queue("default")
    runner = make_runner()
    async with runner.start():
        await redis_client.xadd(names.stream, {"t9": b"\x00from the future", "r": "5000"})
        waited = list[set[bytes]]()
        await eventually(lambda: promoted_thrice(redis_client, names.rates, waited))
        assert await runner.dead_letters.count() == 0
        monkeypatch.setattr(executor, "UNKNOWN_TTL", 0.01)
        [letter] = await eventually(runner.dead_letters.list)
    assert letter.raw[:4] == [b"t9", b"\x00from the future", b"r", b"5000"]
    assert (letter.reason, "newer than ours" in letter.message) == ("unreadable", True)


async def promoted_thrice(client: redis.asyncio.Redis, rates: str, seen: list[set[bytes]]) -> bool:
    """True once it has come back from its wait three times."""
    arrived = await client.hget(rates, "arrived")
    if arrived is not None and {arrived} not in seen:
        seen.append({arrived})
    return len(seen) >= 3


async def answer() -> int:
    return 42


async def all_scheduled_once(runner: TaskRunner, count: int) -> bool:
    """True once all jobs have been handed back: each has been seen by a worker that did not know it."""
    stats = await runner.stats()
    return stats.scheduled == count


async def scheduled(runner: TaskRunner, id: str) -> object:
    info = await runner.job(id).info()
    return info if info.status is JobStatus.SCHEDULED else None

"""``runner.dead_letters``: what failed for good is counted, listed, looked at, deleted, and bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from taskrunner import FailedJob, JobFailed, JobNotFound, NotFound, TaskOptionError, TaskRunner
from taskrunner.store.keys import PartitionKeys
from taskrunner.worker import pruner
from tests.features.retrying import end_in_dead_letters
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]


async def failing(n: Any = None, *, word: str = "") -> None:
    raise ValueError(f"no {n}{word}")


async def fail(runner: TaskRunner, task: str, *arguments: Any, **options: Any) -> list[str]:
    """Has one job fail for good per argument, one after the other. Returns their ids."""
    ids = list[str]()
    for argument in arguments:
        job = await runner.with_options(**options).dispatch(task, argument)
        await job.wait(timeout=20)
        ids.append(job.id)
    return ids


def numbers(letters: list[FailedJob]) -> list[Any]:
    return [letter.args[0] for letter in letters]


@end_in_dead_letters
async def test_a_dead_letter_says_all_that_is_known_of_the_job(runner: TaskRunner) -> None:
    runner.task(name="charge", max_retry=0, queue="money")(failing)
    before = datetime.now(UTC) - timedelta(seconds=5)
    async with runner.start():
        job = await runner.dispatch("charge", 7, word="!")
        await job.wait(timeout=20)
    letter = await runner.dead_letters.get(job.id)
    assert letter is not None
    assert [letter] == await runner.dead_letters.list()
    assert (letter.id, letter.task, letter.queue, letter.attempts) == (job.id, "charge", "money", 1)
    assert (letter.args, letter.kwargs, letter.raw) == ([7], {"word": "!"}, [])
    assert (letter.error_type, letter.message, letter.reason) == ("ValueError", "no 7!", "no retries")
    assert "raise ValueError" in letter.traceback
    assert before < letter.failed_at < before + timedelta(seconds=60)


@end_in_dead_letters
async def test_they_are_counted_and_listed_by_task_over_queues_priorities_and_partitions(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(partitions=3)
    for name in ("one", "one-more"):
        runner.task(name=name, max_retry=0)(failing)
    runner.task(name="other", max_retry=0, queue="other")(failing)
    async with runner.start():
        ones = await fail(runner, "one", *range(6))
        ones += await fail(runner, "one", *range(6, 9), priority="high")
        ones += await fail(runner, "one", *range(9, 12), priority="low")
        others = await fail(runner, "other", 100, 101)
        more = await fail(runner, "one-more", 200)
    dead = runner.dead_letters
    assert [await dead.count(task) for task in (None, "one", "other", "one-more", "nobody")] == [15, 12, 2, 1, 0]
    assert sorted(letter.id for letter in await dead.list("one")) == sorted(ones)
    assert sorted(letter.id for letter in await dead.list()) == sorted([*ones, *others, *more])
    assert {letter.queue for letter in await dead.list()} == {"default", "other"}, "a priority is no queue"
    assert await dead.list("nobody") == []
    every = await dead.list()
    assert [letter.failed_at for letter in every] == sorted((one.failed_at for one in every), reverse=True)


@end_in_dead_letters
async def test_a_page_begins_after_the_last_one_of_the_page_before(runner: TaskRunner) -> None:
    runner.task(name="failing", max_retry=0)(failing)
    runner.task(name="noise", max_retry=0)(failing)
    async with runner.start():
        jobs = await runner.dispatch_many([runner.tasks["failing"].job(n) for n in range(20)])
        jobs += await runner.dispatch_many([runner.tasks["noise"].job(n) for n in range(20)])
        for job in jobs:
            await job.wait(timeout=20)
    for task, count in (("failing", 20), (None, 40)):
        found: list[FailedJob] = []
        while page := await runner.dead_letters.list(task, limit=3, after=found[-1].id if found else None):
            found += page
        assert len({letter.id for letter in found}) == len(found) == count
        assert found == await runner.dead_letters.list(task, limit=1000)


async def test_a_page_after_one_that_is_gone_is_not_guessed(runner: TaskRunner) -> None:
    with pytest.raises(NotFound, match="begin at the newest again"):
        await runner.dead_letters.list(after="nobody")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("list", {"limit": 0}),
        ("list", {"limit": True}),
        ("list", {"task": ""}),
        ("count", {"task": 7}),
        ("retry_all", {"task": b"work"}),
        ("purge", {"older_than": -1}),
        ("purge", {"older_than": float("nan")}),
        ("purge", {"older_than": "a day"}),
    ],
)
async def test_wrong_arguments_are_refused(runner: TaskRunner, name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError):
        await getattr(runner.dead_letters, name)(**arguments)


async def test_where_nothing_ever_failed_there_is_nothing(runner: TaskRunner) -> None:
    dead = runner.dead_letters
    assert await dead.count() == await dead.count("work") == await dead.dropped() == 0
    assert await dead.list() == []
    assert await dead.get("nobody") is None
    assert await dead.delete("nobody") is False
    assert await dead.purge() == await dead.retry_all() == 0
    with pytest.raises(NotFound, match="'nobody'"):
        await dead.retry("nobody")


async def test_a_deleted_one_is_gone_and_the_outcome_of_the_job_is_not(runner: TaskRunner) -> None:
    runner.task(name="failing", max_retry=0)(failing)
    async with runner.start():
        [id] = await fail(runner, "failing", 1)
        assert await runner.dead_letters.delete(id) is True
        assert await runner.dead_letters.delete(id) is False
        assert await runner.dead_letters.count() == await runner.dead_letters.count("failing") == 0
        with pytest.raises(JobFailed):
            await runner.job(id).result(timeout=10)


async def test_purging_removes_the_old_ones_or_all(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    runner.task(name="failing", max_retry=0)(failing)
    async with runner.start():
        ids = await fail(runner, "failing", *range(6))
    for n, id in enumerate(ids[:4]):
        await age(redis_client, keys, id, hours=1 + n)
    dead = runner.dead_letters
    assert await dead.purge(older_than=timedelta(hours=10)) == 0
    assert await dead.purge(older_than=2.5 * 3600) == 2
    assert {letter.id for letter in await dead.list("failing")} == {ids[0], ids[1], ids[4], ids[5]}
    assert await dead.purge() == 4
    assert await dead.count() == await dead.count("failing") == 0
    assert await dead.dropped() == 0, "what a person removes is not dropped"


async def age(client: redis.asyncio.Redis, keys: PartitionKeys, id: str, hours: int) -> None:
    """Lets a dead letter be so old."""
    names = keys.queue("default")
    at = int(await client.zscore(names.dead, id))
    [member] = [one for one in await client.zrange(names.dead_tasks, 0, -1) if one.endswith(id.encode())]
    task, older = member.split(b"\n")[0].decode(), at - hours * 3_600_000
    await client.zrem(names.dead_tasks, member)
    await client.zadd(names.dead_tasks, {f"{task}\n{older:015}\n{id}": 0})
    await client.zadd(names.dead, {id: older})


@end_in_dead_letters
async def test_over_their_number_the_oldest_are_dropped_and_that_is_told(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(max_dead_letters=3)
    runner.task(name="failing", max_retry=0)(failing)
    with caplog.at_level(logging.WARNING, "taskrunner"):
        async with runner.start():
            await fail(runner, "failing", *range(5))
    assert numbers(await runner.dead_letters.list()) == [4, 3, 2]
    assert (await runner.dead_letters.count("failing"), await runner.dead_letters.dropped()) == (3, 2)
    told = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert len(told) == 2, "once per batch"
    assert "1 dead letters of queue 'default' were dropped" in told[0]


async def test_over_their_age_they_are_dropped_where_nothing_fails_any_more(
    make_runner: MakeRunner,
    redis_client: redis.asyncio.Redis,
    keys: PartitionKeys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pruner, "EVERY", 0.05)
    runner = make_runner(dead_letter_ttl=timedelta(days=2))
    runner.task(name="failing", max_retry=0)(failing)
    with caplog.at_level(logging.WARNING, "taskrunner"):
        async with runner.start():
            young, old = await fail(runner, "failing", "young", "old")
            await age(redis_client, keys, old, hours=49)

            async def dropped() -> bool:
                return await runner.dead_letters.dropped() == 1

            await eventually(dropped)
            assert numbers(await runner.dead_letters.list()) == ["young"]
            await runner.dead_letters.delete(young)
    assert "1 dead letters of queue 'default' were dropped" in caplog.text


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_a_wrong_number_of_them_is_refused(make_runner: MakeRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="max_dead_letters"):
        make_runner(max_dead_letters=value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "a day"])
def test_a_wrong_age_of_them_is_refused(make_runner: MakeRunner, value: Any) -> None:
    with pytest.raises(TaskOptionError, match="dead_letter_ttl"):
        make_runner(dead_letter_ttl=value)


@end_in_dead_letters
async def test_without_bounds_they_stay(make_runner: MakeRunner) -> None:
    runner = make_runner(max_dead_letters=None, dead_letter_ttl=None)
    runner.task(name="failing", max_retry=0)(failing)
    async with runner.start():
        await fail(runner, "failing", *range(3))
    assert await runner.dead_letters.count() == 3


@end_in_dead_letters
async def test_they_stay_when_the_outcome_is_forgotten(runner: TaskRunner) -> None:
    runner.task(name="failing", max_retry=0)(failing)
    async with runner.start():
        [id] = await fail(runner, "failing", 1, result_ttl=0.05)

        async def forgotten() -> bool:
            try:
                await runner.job(id).status()
            except JobNotFound:
                return True
            return False

        await eventually(forgotten)
    assert numbers(await runner.dead_letters.list()) == [1]

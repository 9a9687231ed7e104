"""What a worker is not to run is turned away before anybody is asked: it spends no permit and takes no seat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobStatus, Rate, TaskRunner
from taskrunner.envelope import Extra
from taskrunner.feature import Recipe
from taskrunner.features import locks
from taskrunner.options import Options
from taskrunner.outcome import Failed, Failure, Outcome, Released, Settlement
from taskrunner.store.seating import Seating
from taskrunner.worker import executor
from taskrunner.worker.executor import UNKNOWN_TTL, Executor
from taskrunner.worker.inventory import Inventory
from tests.waiting import eventually
from tests.worker.entrance import job

MakeRunner = Callable[..., TaskRunner]
ONE_PER_HOUR = Rate(1, per=3600)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs that were asked for, by whichever way."""
    monkeypatch.setattr(executor, "UNKNOWN_WAIT", (0.05, 0.1))
    monkeypatch.setattr(locks, "AWAY", (0.05, 0.1))
    ids = list[str]()

    def noting(name: str) -> None:
        original = getattr(Seating, name)

        async def note(seating: Seating, *arguments: Any) -> list[int]:
            ids.extend(one.envelope.id for one in arguments[-1])
            grants: list[int] = await original(seating, *arguments)
            return grants

        monkeypatch.setattr(Seating, name, note)

    noting("sit")
    noting("admit")
    return ids


async def is_scheduled(job: Job[Any]) -> bool:
    return await job.status() is JobStatus.SCHEDULED


async def permits(client: redis.asyncio.Redis, runner: TaskRunner) -> list[bytes]:
    [partition] = runner.session().store.partitions
    return [key async for key in client.scan_iter(match=partition.prefix + "rate:*", count=1000)]


async def test_a_job_of_an_unknown_task_spends_no_permit(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, asked: list[str]
) -> None:
    old, new = make_runner(), make_runner()

    @new.task(rate_limit=ONE_PER_HOUR, lock_key="k")
    async def fresh() -> str:
        return "ran"

    async with old.start():
        job = await fresh.dispatch()
        await eventually(lambda: is_scheduled(job))
        assert await permits(redis_client, old) == []
        assert asked == []
    async with new.start():
        assert await job.result(timeout=20) == "ran"
    assert asked == [job.id]


async def test_a_job_that_is_not_of_the_mode_spends_no_permit(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, asked: list[str]
) -> None:
    def register(runner: TaskRunner, mode: Any) -> Any:
        @runner.task(name="work", mode=mode, rate_limit=ONE_PER_HOUR, lock_key="k")
        async def work() -> str:
            return mode

        return work

    one, other = make_runner(), make_runner()
    work = register(one, "unlocked")
    register(other, "locked")
    async with one.start():
        job = await work.dispatch()
        await eventually(lambda: is_scheduled(job))
        assert await permits(redis_client, one) == []
        assert asked == []
    async with other.start():
        assert await job.result(timeout=20) == "locked"
    assert asked == [job.id]


async def test_an_expired_job_asks_for_nothing_and_the_next_in_line_goes(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, asked: list[str]
) -> None:
    runner = make_runner()

    @runner.task(lock_key="k", rate_limit=ONE_PER_HOUR, expires=0.001)
    async def limited() -> None: ...

    @runner.task(lock_key="k")
    async def work() -> str:
        return "ran"

    late, following = await limited.dispatch(), await work.dispatch()
    over = time.monotonic() + 0.001
    await eventually(lambda: time.monotonic() > over)
    async with runner.start():
        assert await following.result(timeout=20) == "ran"
        await late.wait(timeout=20)
        assert await late.status() is JobStatus.EXPIRED
        assert await permits(redis_client, runner) == []
    assert set(asked) == {following.id}


# -- what is told before, and what a slot has to find out --------------------------------------------------------------


def executor_with(recipe: Recipe | None, now: int = 1, error: Exception | None = None) -> Executor:
    def lookup(delivery: Any) -> Recipe | None:
        if error is not None:
            raise error
        return recipe

    return Executor(Inventory(1), {}, lookup, None, lambda: now, lambda: 0.0, 100.0, 3)


def recipe(*verdicts: Outcome | None) -> Recipe:
    async def work(delivery: Any) -> None: ...

    gates = tuple(lambda delivery, now, verdict=verdict: verdict for verdict in verdicts)
    return Recipe("work", Options({}), work, lambda *_: Failed(Failure("", ""), ""), lambda _: b"", None, gates, 7.0)


def test_the_first_gate_that_refuses_is_what_counts() -> None:
    one, first = job("a"), Released(1.0)
    refusal = executor_with(recipe(None, first, Released(2.0))).refusal(one)
    assert refusal == Settlement(one, first, 0.0, 7.0), "with the time that its own task keeps outcomes"


def test_a_job_that_no_gate_refuses_is_asked_for() -> None:
    assert executor_with(recipe(None, None)).refusal(job("a")) is None
    assert executor_with(recipe()).refusal(job("a")) is None


def test_a_job_of_an_unknown_task_goes_back_for_a_while() -> None:
    refusal = executor_with(None).refusal(job("a"))
    assert refusal is not None
    assert isinstance(refusal.outcome, Released)
    assert refusal.outcome.unknown
    assert refusal.outcome.delay == executor.UNKNOWN_WAIT[0]


def test_a_job_that_goes_to_the_dead_letters_does_so_from_a_slot_as_its_handler_is_told() -> None:
    one = job("a")
    one.envelope.extras[Extra.UNKNOWN_SINCE] = 1
    assert executor_with(None, now=round(UNKNOWN_TTL * 1000) + 2).refusal(one) is None
    assert executor_with(None, error=ValueError("a newer option")).refusal(one) is None

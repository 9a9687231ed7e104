"""failed_task_handler is told of every job that can't be run any more, before that is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Backoff, FailedJob, GiveUp, JobFailed, JobStatus, TaskRunner
from taskrunner.store.keys import PartitionKeys
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves("dead")


class Handler:
    """Writes down what it is told, and what the status of the job was then."""

    def __init__(self) -> None:
        self.told: list[FailedJob] = []
        self.statuses: list[JobStatus] = []
        self.runner: TaskRunner | None = None
        self.error: BaseException | None = None

    async def __call__(self, job: FailedJob) -> None:
        assert self.runner is not None
        self.told.append(job)
        if job.task:
            self.statuses.append(await self.runner.job(job.id).status())
        if self.error is not None:
            raise self.error


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def runner(make_runner: MakeRunner, handler: Handler) -> TaskRunner:
    handler.runner = make_runner(failed_task_handler=handler)
    return handler.runner


async def test_it_gets_the_whole_job_before_it_is_recorded(runner: TaskRunner, handler: Handler) -> None:
    @runner.task(max_retry=1, backoff=Backoff.constant(0), queue="mail")
    async def work(n: int, *, flag: str) -> None:
        raise ValueError("bad")

    before = datetime.now(UTC)
    async with runner.start():
        job = await work.dispatch(7, flag="x")
        with pytest.raises(JobFailed):
            await job.result(timeout=10)
    [told] = handler.told
    assert handler.statuses == [JobStatus.RUNNING], "it is told first, and then the failure is recorded"
    assert (told.id, told.task, told.queue, told.args, told.kwargs) == (job.id, "work", "mail", [7], {"flag": "x"})
    assert (told.error_type, told.message, told.attempts, told.reason) == ("ValueError", "bad", 2, "no retries left")
    assert "ValueError: bad" in told.traceback
    assert before <= told.failed_at <= datetime.now(UTC)
    letter = await runner.dead_letters.get(job.id)
    assert letter is not None
    assert (letter.args, letter.kwargs, letter.reason) == (told.args, told.kwargs, told.reason)


@pytest.mark.parametrize("error", [ValueError("handler"), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_its_own_failure_is_logged_and_changes_nothing(
    runner: TaskRunner, handler: Handler, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    handler.error = error

    @runner.task(max_retry=0)
    async def work() -> None:
        raise KeyError("mine")

    async with runner.start():
        for _ in range(3):
            with pytest.raises(JobFailed, match="mine"):
                await (await work.dispatch()).result(timeout=10)
    assert len(handler.told) == 3
    assert await runner.dead_letters.count() == 3
    assert sum(record.name == "taskrunner.hooks" for record in caplog.records) == 3


async def test_it_is_not_told_of_a_run_that_will_be_tried_again(runner: TaskRunner, handler: Handler) -> None:
    @runner.task(max_retry=3, backoff=Backoff.constant(0))
    async def work() -> int:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError
        return 1

    runs = list[int]()
    async with runner.start():
        await (await work.dispatch()).result(timeout=10)
    assert handler.told == []


async def test_it_is_told_of_a_job_that_gave_up(runner: TaskRunner, handler: Handler) -> None:
    @runner.task
    async def work() -> None:
        raise GiveUp("closed")

    async with runner.start():
        await (await work.dispatch()).wait(timeout=10)
    assert [(job.message, job.reason) for job in handler.told] == [("closed", "gave up")]


async def test_it_is_told_of_an_entry_that_nobody_can_read_with_its_raw_bytes(
    runner: TaskRunner, handler: Handler, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    async with runner.start():
        id = await redis_client.xadd(keys.queue("default").stream, {"rubbish": b"\xff\x00raw", "b": "c"})
        await eventually(lambda: count(runner, 1))
    [told] = handler.told
    assert (told.task, told.reason, told.attempts) == ("", "unreadable", 0)
    assert told.raw == [b"rubbish", b"\xff\x00raw", b"b", b"c"]
    assert told.id == f"unreadable-{id.decode()}"
    letter = await runner.dead_letters.get(told.id)
    assert letter is not None
    assert letter.raw == told.raw


async def test_it_is_told_of_arguments_that_can_not_be_read_as_they_stood(
    make_runner: MakeRunner, handler: Handler
) -> None:
    class OneWay:
        def dumps(self, value: Any) -> bytes:
            return b"\x00sealed"

        def loads(self, data: bytes) -> Any:
            raise ValueError("no key")

    runner = handler.runner = make_runner(failed_task_handler=handler, serializer=OneWay())

    @runner.task
    async def work(n: int) -> None: ...

    async with runner.start():
        await (await work.dispatch(1)).wait(timeout=10)
    [told] = handler.told
    assert (told.args, told.raw, told.reason) == ([], [b"\x00sealed"], "its arguments can't be read")


async def test_a_plain_function_will_do(make_runner: MakeRunner) -> None:
    told = list[str]()
    runner = make_runner(failed_task_handler=lambda job: told.append(job.message))

    @runner.task(max_retry=0)
    async def work() -> None:
        raise ValueError("bad")

    async with runner.start():
        await (await work.dispatch()).wait(timeout=10)
    assert told == ["bad"]


async def test_the_dead_letters_are_listed_newest_first_over_all_queues(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def one(n: int) -> None:
        raise ValueError(n)

    @runner.task(max_retry=0, queue="other")
    async def two(n: int) -> None:
        raise KeyError(n)

    ids = list[str]()
    async with runner.start():
        for n in range(6):
            job = await (one, two)[n % 2].dispatch(n)
            await job.wait(timeout=10)
            ids.append(job.id)
        letters = await runner.dead_letters.list(limit=4)
        assert await runner.dead_letters.count() == 6
        assert await runner.dead_letters.get("nobody") is None
    assert sorted(letter.id for letter in letters) == sorted(ids[2:])
    assert [letter.failed_at for letter in letters] == sorted((one.failed_at for one in letters), reverse=True)


async def count(runner: TaskRunner, n: int) -> bool:
    return await runner.dead_letters.count() == n

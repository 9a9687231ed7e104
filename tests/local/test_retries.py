"""Retries: which failures are tried again, how often, after which wait, and what is left at the end."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from taskrunner import Backoff
from taskrunner.local import LocalTask, RetriesExceeded, TaskCancelled, TaskState, TaskTimeout, WorkerPool
from tests.local.work import Held, VirtualLoop, Written, started, succeed
from tests.waiting import eventually


class Failing:
    """Fails so often before it succeeds."""

    def __init__(self, times: int, error: type[BaseException] = ValueError) -> None:
        self.left = times
        self.calls = 0
        self.error = error

    async def __call__(self) -> int:
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise self.error(f"call {self.calls}")
        return self.calls


async def test_without_retries_there_is_one_attempt() -> None:
    failing = Failing(1)
    with pytest.raises(ValueError, match="call 1"):
        await started(failing)
    assert failing.calls == 1


async def test_a_task_is_tried_again_until_it_succeeds() -> None:
    failing = Failing(2)
    task = started(failing, max_retries=5, backoff=Backoff.constant(0))
    assert await task == 3
    assert (task.state, task.error, task.attempts) == (TaskState.DONE, None, 3)


async def test_max_retries_counts_the_attempts_after_the_first() -> None:
    failing = Failing(9)
    task = started(failing, id="mine", max_retries=2, backoff=Backoff.constant(0))
    with pytest.raises(RetriesExceeded, match="'mine' failed 3 times; ValueError: call 3") as caught:
        await task
    assert failing.calls == 3
    assert caught.value.attempts == 3
    assert isinstance(caught.value.__cause__, ValueError)
    assert task.error is caught.value.__cause__, "the function's own"
    assert str(task.error) == "call 3"


def test_the_waits_between_attempts_grow_exponentially_up_to_thirty_seconds() -> None:
    loop = VirtualLoop()
    failing, begun = Failing(99), list[float]()

    async def run() -> None:
        begun.append(loop.time())
        await failing()

    async def start() -> LocalTask[None]:
        return started(run, max_retries=10)

    task = loop.do(start())
    for _ in range(2000):
        loop.advance(0.1)
    assert task.is_failed
    waits = [round(later - earlier, 1) for earlier, later in itertools.pairwise(begun)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    loop.close()


async def test_the_delay_lies_before_the_first_attempt_only() -> None:
    failing, waits = Failing(2), list[int]()

    def backoff(attempt: int) -> float:
        waits.append(attempt)
        return 0

    assert await started(failing, delay=0.01, max_retries=2, backoff=backoff) == 3
    assert waits == [1, 2], "the attempt that failed"


async def test_while_it_waits_for_its_retry_a_task_is_pending_and_shows_the_error() -> None:
    failing = Failing(1)
    task = started(failing, max_retries=1, backoff=Backoff.constant(60))
    await eventually(lambda: task.attempts == 1 and task.is_pending)
    assert isinstance(task.error, ValueError)
    task.cancel()
    with pytest.raises(TaskCancelled):
        await task
    assert failing.calls == 1


async def test_a_timeout_is_tried_again() -> None:
    held = Held()
    task = started(held, max_duration=0.01, max_retries=1, backoff=Backoff.constant(0))
    with pytest.raises(RetriesExceeded) as caught:
        await task
    assert isinstance(caught.value.__cause__, TaskTimeout)
    assert held.cancelled == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
async def test_errors_that_are_no_exceptions_are_failures_like_any_other(error: type[BaseException]) -> None:
    task = started(Failing(9, error), max_retries=1, backoff=Backoff.constant(0))
    with pytest.raises(RetriesExceeded) as caught:
        await task
    assert type(caught.value.__cause__) is error
    once = started(Failing(9, error))
    await once.wait()
    assert once.is_failed
    assert type(once.error) is error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
async def test_they_are_that_in_threads_and_pools_too(error: type[BaseException]) -> None:
    def run() -> None:
        raise error("no")

    async with WorkerPool(1) as pool:
        task = await pool.submit(run)
        await task.wait()
        assert (pool.stats().failed, pool.active_workers) == (1, 0)
        assert await (await pool.submit(succeed, 7)) == 7
    assert type(task.error) is error


async def test_a_cancelled_task_is_not_tried_again() -> None:
    held, written = Held(), Written()
    task = started(held, max_retries=5, hooks=written.hooks, backoff=Backoff.constant(0))
    await held.begun.wait()
    task.cancel()
    await task.wait()
    assert written.names == ["created", "pending", "started", "canceled"]


@pytest.mark.parametrize("backoff", [lambda attempt: -1, lambda attempt: "soon", lambda attempt: attempt / 0])
async def test_a_backoff_that_can_not_be_used_is_logged_and_ends_the_task_with_its_own_error(
    backoff: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with WorkerPool(1) as pool:
        task = await pool.submit(Failing(9), id="mine", max_retries=5, backoff=backoff)
        with pytest.raises(ValueError, match="call 1"):
            await task
        assert pool.active_workers == 0
    assert [record.message for record in caplog.records] == [
        "local task 'mine' is not tried again: its backoff can't be used"
    ]


async def test_errors_that_can_not_be_changed_or_shown_are_failures_like_any_other() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

        def __str__(self) -> str:
            raise RuntimeError("can't be shown")

    def exit(attempt: int) -> float:
        raise SystemExit

    async def run() -> None:
        raise Frozen(7)

    for options in ({"max_retries": 1, "backoff": lambda attempt: 0}, {"max_retries": 1, "backoff": exit}, {}):
        async with WorkerPool(1) as pool:
            task = await pool.submit(run, **options)
            await task.wait()
            assert (task.is_failed, pool.active_workers) == (True, 0)
        assert isinstance(task.error, Frozen)
        assert task.error.code == 7


async def test_attempts_without_a_wait_let_others_run_and_can_be_cancelled() -> None:
    task = started(Failing(10**9), max_retries=10**9, backoff=Backoff.constant(0))
    for _ in range(100):
        await asyncio.sleep(0)
    assert task.cancel()
    await task.wait()
    assert task.is_cancelled
    assert 20 < task.attempts <= 100


async def test_what_is_cancelled_while_it_waits_for_its_retry_has_the_last_error_as_its_cause() -> None:
    task = started(Failing(9), max_retries=1, backoff=Backoff.constant(60))
    await eventually(lambda: task.attempts == 1 and task.is_pending)
    task.cancel()
    with pytest.raises(TaskCancelled) as caught:
        await task
    assert str(caught.value.__cause__) == "call 1"


async def test_the_worker_of_a_pool_is_held_until_the_last_attempt_has_ended() -> None:
    failing = Failing(1)
    async with WorkerPool(1) as pool:
        task = await pool.submit(failing, max_retries=1, backoff=Backoff.constant(0.05))
        await eventually(lambda: task.attempts == 1 and task.is_pending)
        assert (pool.active_workers, pool.stats().pending) == (1, 1)
        assert await task == 2
        await asyncio.sleep(0)
        assert pool.active_workers == 0

"""Anything in any order: tasks and semaphores beside models of them that are written in the plainest way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import tests.properties  # noqa: F401
from taskrunner import UsageError
from taskrunner.local import (
    LocalTask,
    RetriesExceeded,
    Semaphore,
    StateHooks,
    TaskCancelled,
    TaskInProgress,
    TaskState,
    TaskTimeout,
)
from tests.local.work import VirtualLoop

CREATED, PENDING, STARTED, DONE, FAILED, CANCELED = TaskState
LIMIT = 10.0


class OneTask(RuleBasedStateMachine):
    """One task with any delay and retries, whose function returns, raises, or makes what it likes of a cancellation."""

    @initialize(
        delay=st.sampled_from([0.0, 5.0]),
        retries=st.integers(0, 2),
        backoff=st.sampled_from([0.0, 3.0]),
    )
    def make(self, delay: float, retries: int, backoff: float) -> None:
        self.loop = VirtualLoop()
        self.delay, self.retries, self.backoff = delay, retries, backoff
        self.answer = "obeys"
        self.call: asyncio.Future[Any] | None = None
        self.told: list[tuple[Any, ...]] = []
        self.waiting: list[tuple[asyncio.Task[Any], int]] = []
        self.task = LocalTask(
            self.function,
            id="it",
            hooks=self.hooks(),
            delay=delay,
            max_duration=LIMIT,
            max_retries=retries,
            backoff=lambda attempt: backoff,
        )
        # What the model knows.
        self.state, self.attempts, self.cut = CREATED, 0, ""
        self.due = self.run = 0
        self.expected: list[tuple[Any, ...]] = [("created",)]
        self.endings: dict[int, Any] = {}

    def hooks(self) -> StateHooks:
        def note(name: str) -> Callable[..., None]:
            return lambda id, when, *more: self.told.append((name, *(type(one).__name__ for one in more)))

        names = ("created", "pending", "started", "done", "failed", "canceled")
        return StateHooks(**{f"when_{name}": note(name) for name in names})

    async def function(self) -> Any:
        self.call = self.loop.create_future()
        while True:
            try:
                return await asyncio.shield(self.call)
            except asyncio.CancelledError:
                if self.answer == "obeys":
                    raise
                if self.answer == "raises":
                    raise RuntimeError("while it was cancelled") from None

    # -- the model -------------------------------------------------------------------------------------------

    def in_progress(self) -> bool:
        return self.state in (PENDING, STARTED)

    def become(self, state: TaskState, *more: str) -> None:
        self.state = state
        self.expected.append((str(state), *more))

    def end(self, state: TaskState, ending: Any) -> None:
        self.become(state, *([ending[-1].__name__] if state is FAILED else []))
        self.endings[self.run] = ending

    def wait_until(self, due: float) -> None:
        self.become(PENDING, "int")
        self.due = due
        self.look()

    def begin(self) -> None:
        self.attempts += 1
        self.become(STARTED)
        self.due = self.loop.now + LIMIT

    def function_ends(self, error: type[Exception] | None, value: Any = None) -> None:
        cut, self.cut = self.cut, ""
        if cut == "cancel":
            self.end(CANCELED, (TaskCancelled,))
        elif cut == "timeout" or error is not None:
            failure = TaskTimeout if cut == "timeout" else error
            if self.attempts <= self.retries:
                self.wait_until(self.loop.now + self.backoff)
            else:
                self.end(FAILED, (RetriesExceeded, failure) if self.retries else (failure,))
        else:
            self.end(DONE, value)

    def is_cut(self, why: str) -> None:
        self.cut = why
        if self.answer != "ignores":
            self.function_ends(RuntimeError)

    def look(self) -> None:
        if self.state is PENDING and self.due <= self.loop.now:
            self.begin()
        elif self.state is STARTED and self.due <= self.loop.now and not self.cut:
            self.is_cut("timeout")

    # -- what happens ----------------------------------------------------------------------------------------

    @rule(answer=st.sampled_from(["obeys", "ignores", "raises"]))
    def answer_to_cancellations(self, answer: str) -> None:
        self.answer = answer

    @rule()
    def start(self) -> None:
        async def start() -> bool:
            try:
                self.task.start()
            except TaskInProgress:
                return False
            return True

        running = self.in_progress()
        assert self.loop.do(start()) is not running
        if not running:
            self.attempts, self.cut, self.run = 0, "", self.run + 1
            self.wait_until(self.loop.now + self.delay)

    @rule()
    def cancel(self) -> None:
        async def cancel() -> bool:
            return self.task.cancel()

        assert self.loop.do(cancel()) is self.in_progress()
        if self.state is PENDING:
            self.end(CANCELED, (TaskCancelled,))
        elif self.state is STARTED:
            if self.cut:
                self.cut = "cancel"
            else:
                self.is_cut("cancel")

    @precondition(lambda self: self.state is STARTED)
    @rule(value=st.integers())
    def the_function_returns(self, value: int) -> None:
        assert self.call is not None
        self.call.set_result(value)
        self.function_ends(None, value)

    @precondition(lambda self: self.state is STARTED)
    @rule()
    def the_function_fails(self) -> None:
        assert self.call is not None
        self.call.set_exception(ValueError("no"))
        self.function_ends(ValueError)

    @rule(seconds=st.sampled_from([1.0, 3.0, 5.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.look()

    @precondition(lambda self: self.in_progress())
    @rule()
    def somebody_waits(self) -> None:
        async def wait() -> Any:
            return await self.task

        self.waiting.append((self.loop.create_task(wait()), self.run))
        self.loop.settle()

    @precondition(lambda self: self.waiting)
    @rule()
    def somebody_gives_up(self) -> None:
        waiter, _ = self.waiting.pop()
        waiter.cancel()
        self.loop.settle()

    # -- how it must be --------------------------------------------------------------------------------------

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "task"):
            return
        self.loop.settle()
        assert (self.task.state, self.task.attempts) == (self.state, self.attempts)
        assert self.told == self.expected
        assert self.task.cancelling is (bool(self.cut) or self.state is CANCELED)
        assert self.task.is_in_progress is self.in_progress()
        assert (self.task.error is None) or self.state is not DONE
        if self.state > STARTED:
            assert self.outcome(self.task.result) == self.endings[self.run]
        for waiter, run in self.waiting:
            assert waiter.done() is (run in self.endings)
            if waiter.done():
                assert self.outcome(waiter.result) == self.endings[run]

    @staticmethod
    def outcome(result: Callable[[], Any]) -> Any:
        try:
            return result()
        except RetriesExceeded as error:
            return type(error), type(error.__cause__)
        except Exception as error:
            return (type(error),)

    def teardown(self) -> None:
        if hasattr(self, "task"):
            self.answer = "obeys"
            if self.call is not None and not self.call.done():
                self.call.cancel()
            self.loop.do(self.give_up())
            self.loop.settle()
            self.loop.close()

    async def give_up(self) -> None:
        self.task.cancel()
        for waiter, _ in self.waiting:
            waiter.cancel()
        assert self.task.error is None or isinstance(self.task.error, Exception)


class OneSemaphore(RuleBasedStateMachine):
    """One semaphore, taken in all ways, with people in line who give up, run out of time or are turned away."""

    @initialize(limit=st.integers(1, 3))
    def make(self, limit: int) -> None:
        self.loop = VirtualLoop()
        self.semaphore = Semaphore(limit)
        self.limit, self.taken = limit, 0
        self.line: list[tuple[asyncio.Task[bool], float]] = []
        self.answers: list[tuple[asyncio.Task[bool], bool]] = []

    def serve(self, got: bool) -> None:
        waiter, _ = self.line.pop(0)
        self.answers.append((waiter, got))

    @rule()
    def try_acquire(self) -> None:
        free = self.taken < self.limit
        assert self.semaphore.try_acquire() is free
        self.taken += free

    @rule(timeout=st.sampled_from([None, 0.0, 2.0, 5.0]))
    def acquire(self, timeout: float | None) -> None:
        waiter = self.loop.create_task(self.semaphore.acquire(timeout))
        self.loop.settle()
        if self.taken < self.limit:
            self.taken += 1
            self.answers.append((waiter, True))
        elif timeout == 0:
            self.answers.append((waiter, False))
        else:
            self.line.append((waiter, float("inf") if timeout is None else self.loop.now + timeout))

    @rule()
    def release(self) -> None:
        if not self.taken:
            with pytest.raises(UsageError):
                self.semaphore.release()
            return
        self.semaphore.release()
        if self.line:
            self.serve(True)
        else:
            self.taken -= 1

    @rule(seconds=st.sampled_from([1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.settle()  # so that whoever was served has gone home
        self.loop.advance(seconds)
        over = [one for one in self.line if one[1] <= self.loop.now]
        self.line = [one for one in self.line if one not in over]
        self.answers += [(waiter, False) for waiter, _ in over]

    @precondition(lambda self: self.line)
    @rule(data=st.data(), at_once=st.booleans())
    def somebody_gives_up(self, data: Any, at_once: bool) -> None:
        """With ``at_once`` a slot is given back before the one that gives up has noticed."""
        waiter, _ = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        waiter.cancel()
        if not at_once:
            self.loop.settle()

    @precondition(lambda self: self.line and self.taken)
    @rule()
    def the_first_gives_up_in_the_instant_in_which_it_is_served(self) -> None:
        self.loop.settle()
        waiter, _ = self.line.pop(0)
        self.semaphore.release()
        waiter.cancel()
        self.loop.settle()
        assert waiter.cancelled()
        if self.line:
            self.serve(True)
        else:
            self.taken -= 1

    @rule()
    def turn_away(self) -> None:
        self.semaphore.turn_away()
        while self.line:
            self.serve(False)

    @invariant()
    def slots_and_people_add_up(self) -> None:
        if hasattr(self, "semaphore"):
            assert (self.semaphore.acquired, self.semaphore.limit) == (self.taken, self.limit)
            assert self.semaphore.available == self.limit - self.taken
            assert not self.line or self.taken == self.limit

    def teardown(self) -> None:
        if hasattr(self, "semaphore"):
            self.loop.settle()
            for waiter, got in self.answers:
                assert waiter.result() is got
            assert not any(waiter.done() for waiter, _ in self.line)
            for waiter, _ in self.line:
                waiter.cancel()
            self.loop.settle()
            self.loop.close()


TestOneTask = OneTask.TestCase
TestOneSemaphore = OneSemaphore.TestCase

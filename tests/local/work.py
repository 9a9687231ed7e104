"""Functions that a test holds in its hand, hooks that write down what they are told, and a loop whose time it moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from taskrunner.local import LocalTask, StateHooks
from tests.waiting import DEADLINE


class Held:
    """A coroutine function that says when it has begun, and ends when it is let go or cancelled."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.calls = self.cancelled = self.now = self.most = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any) -> Any:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        return self.result


class Stubborn(Held):
    """One that takes no notice of being cancelled: it counts that, and waits until it is let go."""

    async def __call__(self, *args: Any) -> Any:
        self.calls += 1
        self.begun.set()
        asyncio.get_running_loop().call_later(DEADLINE, self.go.set)  # else a test that fails would never end
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return self.result


class HeldThread:
    """A plain function of that kind; ``begun`` is to be awaited in the loop that made it."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.begun = asyncio.Event()
        self.go = threading.Event()
        self.name = ""
        self._loop = asyncio.get_running_loop()

    def __call__(self, *args: Any) -> Any:
        self.name = threading.current_thread().name
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.go.wait(DEADLINE)
        return self.result


class Written:
    """Hooks that write down their names and what they are told, but the instants, which they check."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        names = ("created", "pending", "started", "done", "failed", "canceled", "reported")
        self.hooks = StateHooks(**{f"when_{name}": self._write(name) for name in names})

    def _write(self, name: str) -> Callable[..., None]:
        def hook(id: str, when: datetime, *more: Any) -> None:
            assert when.tzinfo is UTC
            assert abs((datetime.now(UTC) - when).total_seconds()) < 60
            self.lines.append((name, id, *more))

        return hook

    @property
    def names(self) -> list[str]:
        return [line[0] for line in self.lines]


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for tests that are no coroutines: its time stands still until ``advance``."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def settle(self) -> None:
        """Until everything has happened that happens without time."""
        self.do(self._rounds())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.run_until_complete(work)

    async def _rounds(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)


async def succeed(value: Any = None) -> Any:
    return value


async def fail(error: BaseException | None = None) -> None:
    raise ValueError("no") if error is None else error


def started(function: Any, *args: Any, **options: Any) -> LocalTask[Any]:
    """A task that runs in the background."""
    return started_again(LocalTask(function, *args, **options))


def started_again(task: LocalTask[Any]) -> LocalTask[Any]:
    task.start()
    return task

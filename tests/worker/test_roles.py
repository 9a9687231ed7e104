"""The roles of a worker: none ends silently, whatever goes wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import QueueStats, RedisUnavailable, TaskRunner, current_job
from taskrunner.store.audit import Auditor
from taskrunner.store.reader import BLOCK, Reader
from taskrunner.store.store import Store
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.settler import Settler
from tests.waiting import eventually


def break_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: BaseException) -> list[str]:
    """Lets the next call of a method raise. Returns a list that is empty until then."""
    real = getattr(owner, name)
    broken: list[str] = []

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not broken:
            broken.append(name)
            raise error
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)
    return broken


def errors_of(runner: TaskRunner) -> list[tuple[str, str]]:
    """What ``on_error`` hooks are told: (role, text of the error)."""
    told: list[tuple[str, str]] = []
    runner.on_error(lambda role, error: told.append((role, str(error))))
    return told


@pytest.mark.parametrize(
    ("role", "owner", "method"),
    [("fetcher", Reader, "fetch"), ("settler", Settler, "_next"), ("promoter", Store, "promote"),
     ("reclaimer", Store, "reclaim"), ("auditor", Auditor, "page"), ("monitor", Store, "lead")],
)  # fmt: skip
async def test_a_role_that_fails_is_told_and_comes_back(
    role: str, owner: type, method: str, make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(reservation_timeout=1)
    told, long = errors_of(runner), asyncio.Event()

    @runner.on_long_queue(threshold=0.2)
    async def alert(stats: QueueStats) -> None:
        long.set()

    @runner.task
    async def slow() -> None:
        await asyncio.sleep(0.3)

    broken = break_once(monkeypatch, owner, method, RuntimeError("injected"))
    async with runner.start():
        job = await slow.with_options(delay=0.1).dispatch()
        await eventually(lambda: broken)
        assert await eventually(lambda: told) == [(role, "injected")]
        await job.wait(20)
        again = await slow.with_options(delay=0.1).dispatch()
        await again.wait(20)
        if role == "monitor":
            await runner.dispatch_many([slow.job() for _ in range(300)])
            await asyncio.wait_for(long.wait(), 20)
        if role == "reclaimer":
            calls = _count(monkeypatch, owner, method)
            await eventually(lambda: len(calls) > 2)
        await eventually(lambda: _drained(runner))


def _count(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """A list that grows with each call of a method."""
    real = getattr(owner, name)
    calls: list[None] = []

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)
    return calls


async def _drained(runner: TaskRunner) -> bool:
    stats = await runner.stats("default")
    return stats.waiting == stats.running == stats.scheduled == 0


async def test_an_outage_is_no_error_of_ours(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(reservation_timeout=1)
    told = errors_of(runner)

    @runner.task
    async def noop() -> None: ...

    broken = break_once(monkeypatch, Store, "reclaim", RedisUnavailable("injected"))
    async with runner.start():
        await eventually(lambda: broken)
        await (await noop.dispatch()).wait(20)
    assert told == []


async def test_jobs_that_a_failed_fetcher_had_got_are_found_again_without_waiting_for_their_reservation(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(reservation_timeout=300)
    deliveries: list[int] = []

    @runner.task
    async def noop(n: int) -> int:
        deliveries.append(current_job().deliveries)
        return n

    jobs = await runner.dispatch_many([noop.job(n) for n in range(10)])
    break_once(monkeypatch, Inventory, "take", RuntimeError("injected"))
    async with runner.start():
        assert [await job.result(20) for job in jobs] == list(range(10))
    assert deliveries == [1] * 10


async def test_a_worker_whose_fetcher_has_failed_still_stops_by_ending_its_fetch_on_the_server(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner()
    told, ends = errors_of(runner), list[str]()
    real = Reader.fetch

    async def fetch(self: Reader, *args: Any, **kwargs: Any) -> Any:
        if not told and not ends:
            ends.append("failed")
            raise RuntimeError("injected")
        try:
            arrivals = await real(self, *args, **kwargs)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("returned")
        return arrivals

    monkeypatch.setattr(Reader, "fetch", fetch)

    @runner.task
    async def noop() -> None: ...

    async with runner.start():
        await eventually(lambda: told)
        await (await noop.dispatch()).wait(20)
        await asyncio.sleep(0.05)  # it is blocked in the next fetch, or about to be
    assert ends[0] == "failed"
    assert set(ends[1:]) == {"returned"}, "a fetch that is cancelled here can still take jobs there"


async def test_an_idle_runner_is_ready_before_its_first_fetch_returns(runner: TaskRunner) -> None:
    assert not runner.ready
    async with runner.start():
        await eventually(lambda: runner.ready, BLOCK / 2)
    assert not runner.ready

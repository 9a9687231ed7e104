"""Replies that never arrive: what the server has done is neither done twice nor forgotten."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from taskrunner.store.scripts import BEAT, DISPATCH, FETCH, PROMOTE, RECLAIM, SCHEDULE, SETTLE, Script
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

NEVER = 300
"""A reservation in seconds that no test waits for."""


@pytest.fixture
async def proxy(own_server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(own_server.port) as proxy:
        yield proxy


@pytest.fixture
async def fleet(proxy: Proxy, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet whose runner in this process reaches the server through the proxy."""
    return make_fleet(proxy.url, reservation_timeout=NEVER)


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
async def test_a_dispatch_whose_reply_is_lost_makes_one_job(
    silent: bool, proxy: Proxy, fleet: Fleet, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be_quick(monkeypatch)
    await fleet.runner.opened()
    loss = proxy.lose(b"EVAL", b"*0", silent=silent)
    jobs = await asyncio.gather(*(fleet.tasks.quick.dispatch(n) for n in range(10)))
    assert loss.lost == 1
    assert not any(job.deduplicated for job in jobs)
    async with own_server.client() as client:
        assert await client.xlen(fleet.stream) == 10
    async with fleet.runner.start():
        assert [await job.result(20) for job in jobs] == list(range(10))
    assert len(fleet.journal.lines("start")) == 10
    assert (await fleet.figures("quick")).succeeded == 10


async def test_a_unique_dispatch_whose_reply_is_lost_is_no_duplicate_of_itself(proxy: Proxy, fleet: Fleet) -> None:
    unique = fleet.tasks.quick.with_options(unique=True)
    await fleet.runner.opened()
    proxy.lose(b"EVAL", b"*0")
    job = await unique.dispatch(1)
    assert not job.deduplicated
    assert (await unique.dispatch(1)).deduplicated
    async with fleet.runner.start():
        assert await job.result(20) == 1


async def test_a_dispatch_of_several_batches_loses_any_of_their_replies(proxy: Proxy, fleet: Fleet) -> None:
    await fleet.runner.opened()
    loss = proxy.lose(DISPATCH.sha, times=3)
    jobs = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(1000)])
    assert loss.lost == 3
    async with fleet.runner.start():
        for job in jobs:
            await job.wait(20)
    assert len(fleet.journal.lines("start")) == 1000


async def test_jobs_of_a_fetch_whose_reply_is_lost_are_found_and_run_once(proxy: Proxy, fleet: Fleet) -> None:
    async with fleet.runner.start():
        await (await fleet.tasks.quick.dispatch("warm")).wait(20)
        loss = proxy.lose(b"XREADGROUP", b"t1")
        job = await fleet.tasks.quick.dispatch("lost")
        assert await job.result(20) == "lost", "its reservation is far longer than this wait"
        assert loss.lost == 1
    [run] = fleet.journal.lines("start", job=job.id)
    assert run.deliveries == 1


async def test_jobs_of_a_fetch_from_several_lanes_whose_reply_is_lost_are_found_and_run_once(
    proxy: Proxy, fleet: Fleet
) -> None:
    async with fleet.runner.start():
        high = fleet.tasks.quick.with_options(priority="high")
        await (await high.dispatch("warm")).wait(20)
        await fleet.runner.pause()
        await eventually(lambda: _paused(fleet))
        loss = proxy.lose(FETCH.sha, b"t1")
        jobs = [await one.dispatch(n) for n in range(5) for one in (high, fleet.tasks.quick)]
        await fleet.runner.resume()
        assert [await job.result(20) for job in jobs] == [n for n in range(5) for _ in range(2)]
        assert loss.lost == 1
    runs = [run for job in jobs for run in fleet.journal.lines("start", job=job.id)]
    assert [run.deliveries for run in runs] == [1] * 10


def _paused(fleet: Fleet) -> bool:
    assert fleet.runner._consumer is not None
    return all(lanes.paused("default") for lanes in fleet.runner._consumer._worker.lanes.values())


async def test_jobs_that_ran_all_the_time_do_not_run_again_after_a_lost_fetch(proxy: Proxy, fleet: Fleet) -> None:
    async with fleet.runner.start():
        running = [await fleet.tasks.hold.dispatch("gate") for _ in range(5)]
        await fleet.tasks.seen(5, "start")
        loss = proxy.lose(b"XREADGROUP", b"t1")
        lost = await fleet.tasks.quick.dispatch("lost")
        assert await lost.result(20) == "lost"
        assert loss.lost == 1
        fleet.tasks.open_gate("gate")
        for job in running:
            await job.wait(20)
    assert len(fleet.journal.lines("start")) == 6


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
async def test_an_outcome_whose_reply_is_lost_is_recorded_once(
    silent: bool, proxy: Proxy, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be_quick(monkeypatch)
    async with fleet.runner.start():
        await (await fleet.tasks.quick.dispatch("warm")).wait(20)
        loss = proxy.lose(SETTLE.sha, silent=silent)
        jobs = await fleet.runner.dispatch_many([fleet.tasks.quick.job(n) for n in range(50)])
        assert [await job.result(20) for job in jobs] == list(range(50))
        assert loss.lost == 1
        figures = await fleet.figures("quick")
        assert (figures.succeeded, figures.waiting) == (51, 0)
        retried = await fleet.tasks.quick.dispatch("later")
        await retried.wait(20)
    assert len(fleet.journal.lines("start")) == 52


async def test_a_retry_whose_reply_is_lost_is_scheduled_once(proxy: Proxy, fleet: Fleet) -> None:
    runs: list[int] = []

    @fleet.runner.task(backoff=lambda attempt: 0.1)
    async def failing_once() -> int:
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError("the first time")
        return len(runs)

    async with fleet.runner.start():
        await (await fleet.tasks.quick.dispatch("warm")).wait(20)
        loss = proxy.lose(SETTLE.sha)
        job = await failing_once.dispatch()
        assert await job.result(20) == 2
        assert loss.lost == 1
    assert runs == [0, 1]
    figures = await fleet.figures("failing_once")
    assert (figures.succeeded, figures.retried, figures.waiting) == (1, 1, 0)


async def test_a_promotion_whose_reply_is_lost_promotes_once(proxy: Proxy, fleet: Fleet) -> None:
    async with fleet.runner.start():
        await (await fleet.tasks.quick.with_options(delay=0.01).dispatch("warm")).wait(20)
        loss = proxy.lose(PROMOTE.sha)
        job = await fleet.tasks.quick.with_options(delay=0.1).dispatch("due")
        assert await job.result(20) == "due"
        assert loss.lost == 1
    assert len(fleet.journal.lines("start", job=job.id)) == 1


@pytest.mark.parametrize("script", [BEAT, RECLAIM], ids=lambda script: script.name)
async def test_a_lost_reply_of_the_housekeeping_costs_no_job(
    script: Script, proxy: Proxy, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(proxy.url)
    async with fleet.runner.start():
        job = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        loss = proxy.lose(script.sha, times=3)
        await eventually(lambda: loss.lost == 3)
        fleet.tasks.open_gate("gate")
        await job.wait(20)
    assert len(fleet.journal.lines("start")) == 1
    assert not fleet.journal.lines("cancelled")


async def test_jobs_that_were_taken_over_in_a_reply_that_got_lost_are_found_and_run_at_once(
    proxy: Proxy, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(proxy.url)
    victim = await fleet.worker()
    job = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start")
    victim.signal(signal.SIGKILL)
    fleet.tasks.open_gate("gate")
    loss = proxy.lose(RECLAIM.sha, b"t1")
    async with fleet.runner.start():
        await job.wait(20)
    assert loss.lost == 1
    [run] = fleet.journal.lines("start")[1:]
    assert run.deliveries == 2, "it lay there for another reservation, and that was counted as a crash"


async def test_schedules_whose_deletion_gets_no_reply_are_deleted_and_counted_once(proxy: Proxy, fleet: Fleet) -> None:
    runner, tasks = fleet.runner, fleet.tasks
    for name, task in (("one", tasks.quick), ("two", tasks.hold)):
        await runner.schedule(name, task.job("gate"), every=1000, lock_key="k")
    loss = proxy.lose(SCHEDULE.sha)
    assert await runner.delete_schedule(lock_key="k") == 2
    assert loss.lost == 1
    assert await runner.schedules() == []
    await runner.schedule("again", tasks.quick.job(1), every=1000, lock_key="k")
    assert await runner.unschedule("again")


async def test_a_network_that_swallows_everything_for_a_while_costs_no_job(
    proxy: Proxy, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be_quick(monkeypatch)
    async with fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        proxy.silent = True
        fleet.tasks.open_gate("gate")
        meanwhile = asyncio.create_task(fleet.tasks.quick.dispatch("meanwhile"))
        await eventually(lambda: not fleet.runner.ready)
        proxy.silent = False
        proxy.cut()
        await running.wait(20)
        assert await (await meanwhile).result(20) == "meanwhile"
    assert len(fleet.journal.lines("start")) == 2


def _be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens what is otherwise waited for an answer that doesn't come: 10 s."""
    monkeypatch.setattr("taskrunner.store.links.Link.call.__kwdefaults__", {"timeout": 1.0})
    monkeypatch.setattr("taskrunner.store.links.Link.run.__defaults__", (1.0,))

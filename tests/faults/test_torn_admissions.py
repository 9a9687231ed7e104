"""Connections that end around the taking, keeping and giving back of seats: whatever is lost, the line goes on in
order, nobody overtakes, and nothing waits for a reservation to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import JobContext, Limit
from taskrunner.store.reader import Reader
from taskrunner.store.scripts import ADMIT, SEATS, SETTLE, SIT, Script
from tests.faults.proxy import Proxy
from tests.faults.rules import REPLIES, REQUESTS
from tests.faults.test_lock_holders import in_order, nothing_is_left
from tests.faults.workshop import Fleet
from tests.servers import Server

NEVER = 300
"""A reservation in seconds that no test waits for."""
JOBS = 6
STEPS = {REQUESTS: 101, REPLIES: 9}
"""Bytes from one cut to the next: each costs the two seconds that a fetch waits before its reader asks again."""

pytestmark = pytest.mark.usefixtures("short_timeouts")


@pytest.fixture
async def fleet(proxy: Proxy, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet whose runner in this process reaches the server through the proxy."""
    return make_fleet(proxy.url, reservation_timeout=NEVER)


def locked_by(fleet: Fleet, script: Script) -> Any:
    """A locked task whose jobs are admitted by this script: those with a single seat go the short way."""
    if script is not ADMIT:
        return fleet.tasks.quick.with_options(lock_key="one")

    @fleet.runner.task(limit=Limit(JOBS))
    async def both(ctx: JobContext, value: Any) -> Any:
        fleet.journal.write("start", ctx)
        return value

    return both.with_options(lock_key="one")


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
@pytest.mark.parametrize("script", [SIT, ADMIT, SETTLE], ids=lambda script: script.name)
async def test_a_line_goes_on_in_order_when_what_hands_the_lock_on_is_lost(
    script: Script, way: str, silent: bool, proxy: Proxy, fleet: Fleet, own_server: Server
) -> None:
    locked = locked_by(fleet, script)
    async with fleet.runner.start():
        await (await locked.dispatch("warm")).wait(20)
        losses = [proxy.sever(script.sha, way, 0, silent=silent) for _ in range(2)]
        line = await fleet.runner.dispatch_many([locked.job(n) for n in range(JOBS)])
        assert [await job.result(20) for job in line] == list(range(JOBS))
        assert [loss.lost for loss in losses] == [1, 1]
    assert len(in_order(fleet, line)) == JOBS
    assert (await fleet.figures("both" if script is ADMIT else "quick")).succeeded == JOBS + 1
    await nothing_is_left(fleet, own_server)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
@pytest.mark.parametrize("script", [SIT, ADMIT], ids=lambda script: script.name)
async def test_an_admission_takes_one_seat_wherever_it_is_cut(
    script: Script, way: str, proxy: Proxy, fleet: Fleet, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.persist.FIRST_WAIT", 0.0005)
    locked = locked_by(fleet, script)
    async with fleet.runner.start():
        await (await locked.dispatch("warm")).wait(20)
        cut, after, jobs = 1, 0, set[str]()
        while cut:
            loss = proxy.sever(script.sha, way, after)
            job = await locked.dispatch(after)
            assert await job.result(20) == after
            jobs.add(job.id)
            cut = loss.lost
            proxy.losses.clear()
            await (await fleet.tasks.quick.dispatch("in between")).wait(20)  # else each failure is one in a row
            after += STEPS[way]
        assert after > 2 * STEPS[way], "so few bytes are no exchange"
    starts = [line for line in fleet.journal.lines("start") if line.job in jobs]
    assert len(starts) == len(jobs)
    assert [line.fence for line in starts] == sorted({line.fence for line in starts})
    await nothing_is_left(fleet, own_server)


@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
async def test_the_lock_of_a_cancelled_run_is_free_when_it_has_ended_though_what_frees_it_is_lost(
    way: str, proxy: Proxy, fleet: Fleet, own_server: Server
) -> None:
    tasks = fleet.tasks
    stubborn = tasks.rude.ignore.with_options(lock_key="one")
    async with fleet.runner.start():
        held = await stubborn.dispatch("gate")
        await tasks.seen(1, "start", job=held.id)
        following = await tasks.quick.with_options(lock_key="one").dispatch("next")
        losses = [proxy.sever(SEATS.sha, way, 0) for _ in range(3)]
        assert await held.cancel()
        await tasks.seen(1, "cancelled", job=held.id)
        await (await tasks.quick.dispatch("a sign of life")).wait(20)
        assert await following.status() == "blocked", "the run of the cancelled job goes on"
        tasks.open_gate("gate")
        assert await following.result(20) == "next"
        assert sum(loss.lost for loss in losses) >= 1
    in_order(fleet, [held, following])
    await nothing_is_left(fleet, own_server)


@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
async def test_an_admission_that_failed_ends_the_fetch_that_waits_beside_it(
    way: str, proxy: Proxy, fleet: Fleet, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader.fetch, "__defaults__", (60.0,))
    locked = locked_by(fleet, SIT)
    async with fleet.runner.start():
        await (await locked.dispatch("warm")).wait(20)
        loss = proxy.sever(SIT.sha, way, 0)
        assert await (await locked.dispatch(1)).result(20) == 1
        assert loss.lost == 1
    await nothing_is_left(fleet, own_server)

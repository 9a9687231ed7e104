"""Connections that end within a request or a reply: at whatever byte, each job is accepted, run and recorded once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskrunner.store.scripts import DISPATCH, SETTLE
from tests.faults.proxy import Proxy
from tests.faults.rules import REPLIES, REQUESTS
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

NEVER = 300
"""A reservation in seconds that no test waits for: what runs a second time does so because it was dispatched twice."""


@pytest.fixture
async def fleet(proxy: Proxy, make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A fleet whose runner in this process reaches the server through the proxy, and loses no time with waiting."""
    monkeypatch.setattr("taskrunner.store.persist.FIRST_WAIT", 0.0005)
    return make_fleet(proxy.url, reservation_timeout=NEVER)


@pytest.mark.slow
@pytest.mark.timeout(300)  # a thousand broken connections and more
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
async def test_a_dispatch_and_an_outcome_that_are_cut_after_any_byte_are_there_once(
    way: str, reset: bool, proxy: Proxy, fleet: Fleet, own_server: Server
) -> None:
    quick = fleet.tasks.quick
    async with fleet.runner.start():
        assert await (await quick.dispatch("warm")).result(20) == "warm"
        cut, after = 1, 0
        while cut:
            dispatch = proxy.sever(DISPATCH.sha, way, after, reset=reset)
            settle = proxy.sever(SETTLE.sha, way, after, reset=reset)
            job = await quick.dispatch(after)
            assert not job.deduplicated
            assert await job.result(20) == after
            cut = dispatch.lost + settle.lost
            proxy.losses.clear()
            after += 1
        assert after > {REQUESTS: 300, REPLIES: 4}[way], "so few bytes are no exchange"
        figures = await fleet.figures("quick")
        assert (figures.succeeded, figures.failed, figures.waiting) == (after + 1, 0, 0)
    assert len(fleet.journal.lines("start")) == after + 1
    async with own_server.client() as client:
        assert await client.xlen(fleet.stream) == 0


async def test_a_job_that_has_ended_before_its_dispatch_is_sent_again_is_not_dispatched_again(
    proxy: Proxy, fleet: Fleet, short_timeouts: None
) -> None:
    worker = await fleet.worker()
    assert await (await fleet.tasks.quick.dispatch("before")).result(20) == "before"
    brief = fleet.tasks.quick.with_options(ignore_result=True)  # of which nothing is kept once it has ended
    loss = proxy.sever(DISPATCH.sha, REPLIES, 0, silent=True)
    dispatching = asyncio.create_task(brief.dispatch("once"))
    await fleet.tasks.seen(2, "end")

    async def has_ended() -> bool:
        return (await fleet.figures("quick")).succeeded == 2

    await eventually(has_ended)
    assert loss.lost == 1
    assert not dispatching.done()
    await dispatching
    assert await (await fleet.tasks.quick.dispatch("after")).result(20) == "after"
    assert len(fleet.journal.lines("start")) == 3
    await fleet.end(worker)

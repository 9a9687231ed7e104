"""Servers that are killed and started again with their data: everybody goes on, and nothing accepted is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio

from taskrunner import embedded
from tests.cleanliness import leftovers
from tests.faults.load import Load
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

RECOVERY = 10.0
"""Seconds within which everybody must be at work again after the server is back: what the README promises."""


async def test_under_load_a_server_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(persistent_server.url)
    await fleet.worker()
    async with fleet.runner.start(), Load(fleet.tasks.quick) as load:
        for _ in range(4):
            await load.more()
            persistent_server.kill()
            await asyncio.sleep(0.2)  # so that everybody finds it away
            await persistent_server.start()
            await load.more(deadline=RECOVERY)
    async with fleet.runner.start():
        for job in load.accepted:
            await job.wait(20)
        figures = await fleet.figures("quick")
        assert figures.succeeded == len(load.accepted), "lost, or recorded twice"
        assert figures.waiting == 0
        ended = [line.job for line in fleet.journal.lines("end")]
        assert set(ended) == {job.id for job in load.accepted}


async def test_workers_go_on_within_seconds_after_the_server_is_back(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(persistent_server.url)
    await fleet.worker()
    await (await fleet.tasks.quick.dispatch()).wait(20)
    running = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start", job=running.id)
    persistent_server.kill()
    await asyncio.sleep(2)  # long enough for pauses between attempts to have grown to their longest
    await persistent_server.start()
    back = time.monotonic()
    fleet.tasks.open_gate("gate")
    waiting = await fleet.tasks.quick.dispatch()
    await waiting.wait(20)
    await running.wait(20)
    assert time.monotonic() - back < RECOVERY
    assert len(fleet.journal.lines("start", job=running.id)) == 1, "a run that outlasted the outage was repeated"


@pytest.fixture
async def folder_url(tmp_path: Path) -> AsyncIterator[str]:
    url = f"embedded://{tmp_path}/data"
    yield url
    embedded.release(url)


async def test_whoever_finds_the_server_of_a_folder_dead_starts_it_again_and_goes_on(
    folder_url: str, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(folder_url)
    worker = await fleet.worker()
    first = [await fleet.tasks.quick.dispatch(n) for n in range(50)]
    running = await fleet.tasks.hold.dispatch("gate")
    await fleet.tasks.seen(1, "start", job=running.id)
    for _ in range(2):
        await _written(folder_url)
        os.kill(await _server_of(folder_url), signal.SIGKILL)
        killed = time.monotonic()
        after = await fleet.tasks.quick.dispatch("after")
        assert await after.result(20) == "after"
        assert time.monotonic() - killed < RECOVERY
    fleet.tasks.open_gate("gate")
    assert await running.result(20) == worker.pid
    assert [await job.result(20) for job in first] == list(range(50))
    assert (await fleet.figures("quick")).succeeded == 52
    await fleet.end(worker)
    async with _client(folder_url) as client:
        assert not await leftovers(client, fleet.namespace)


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(embedded.locate(url), protocol=2)


async def _server_of(url: str) -> int:
    async with _client(url) as client:
        return int((await client.info("server"))["process_id"])


async def _written(url: str) -> None:
    """Waits until all that the server has told us is in its file: while it syncs, each second, it puts off writes."""
    async with _client(url) as client:

        async def written() -> bool:
            figures = await client.info("persistence")
            return figures["aof_buffer_length"] == 0 and figures["aof_pending_bio_fsync"] == 0

        await eventually(written)

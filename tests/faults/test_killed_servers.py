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


@pytest.mark.slow
async def test_under_load_a_server_that_syncs_every_write_and_is_killed_ten_times_completes_all_that_was_confirmed(
    tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    async with Server(tmp_path / "server", persistent=True, fsync="always") as server:
        fleet = make_fleet(server.url)
        await fleet.worker()
        async with fleet.runner.start(), Load(fleet.tasks.quick) as load:
            for _ in range(10):
                await load.more()
                server.kill()
                await server.start()
        async with fleet.runner.start():
            for job in load.accepted:
                await job.wait(20)
            figures = await fleet.figures("quick")
        assert (figures.succeeded, figures.waiting) == (len(load.accepted), 0)
        assert {line.job for line in fleet.journal.lines("end")} == {job.id for job in load.accepted}


async def test_after_an_outage_longer_than_the_reservation_nobody_takes_anything_before_the_living_have_beaten(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(persistent_server.url)
    workers = [await fleet.worker(num_workers=5) for _ in range(2)]
    running = await fleet.runner.dispatch_many([fleet.tasks.hold.job("gate") for _ in range(10)])
    owners = {line.job: line.pid for line in await fleet.tasks.seen(10, "start")}
    persistent_server.kill()
    await asyncio.sleep(3)  # three reservations, and their pauses between attempts have grown to the longest
    await persistent_server.start()
    async with fleet.runner.start(), persistent_server.client() as client:  # somebody new, who is there first
        await eventually(lambda: _has_looked(client, fleet))
        assert len(fleet.journal.lines("start")) == 10, "jobs of the living were taken"
        fleet.tasks.open_gate("gate")
        assert {job.id: await job.result(20) for job in running} == owners
    assert not fleet.journal.lines("cancelled")
    for worker in workers:
        await fleet.end(worker)
        assert "took over" not in fleet.log(worker)


async def _has_looked(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    """Whether somebody has looked through all that is pending after the time in which nothing may be taken."""
    grace, turn = await client.hmget(fleet.keys.janitor, ["grace", "next:default"])
    seconds, _ = await client.time()
    return float(grace) < float(turn or 0) and float(grace) / 1000 < seconds


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


async def test_figures_and_dead_letters_that_are_asked_for_while_the_server_is_away_come_when_it_is_back(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    runner = make_fleet(persistent_server.url).runner
    assert (await runner.stats()).waiting == 0
    persistent_server.kill()
    questions = [runner.stats(), runner.stats("default"), runner.dead_letters.list(), runner.dead_letters.count()]
    asked = [asyncio.ensure_future(question) for question in questions]
    await asyncio.sleep(0.2)  # so that they find it away
    await persistent_server.start()
    everything, default, letters, count = await asyncio.gather(*asked)
    assert (everything.waiting, default.waiting, letters, count) == (0, 0, [], 0)


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

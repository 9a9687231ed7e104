"""A primary that fails, is demoted, or is cut off: its Sentinels say who comes after it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from taskrunner import JobNotFound, TaskRunner
from tests.faults.load import Load
from tests.faults.workshop import Fleet
from tests.servers import Sentinels
from tests.waiting import eventually

pytestmark = [pytest.mark.crash, pytest.mark.slow]

DOWN_AFTER = 1.0
RECOVERY = 20 * DOWN_AFTER
"""Seconds from the end of a primary until jobs run again: it takes the Sentinels some 2, and us less than another 2."""


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    async with Sentinels(tmp_path / "sentinels", down_after=round(DOWN_AFTER * 1000)) as servers:
        yield servers


@pytest.fixture
def fleet(sentinels: Sentinels, make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(sentinels.url)


async def test_a_runner_works_with_a_url_and_with_a_client_that_sentinel_made(
    sentinels: Sentinels, make_runner: Callable[..., TaskRunner]
) -> None:
    hosts = [("127.0.0.1", one.port) for one in sentinels.sentinels]
    client: redis.asyncio.Redis = Sentinel(hosts).master_for("service")
    for named in (sentinels.url, client):
        runner = make_runner(named)

        @runner.task(unique=True)
        async def double(n: int) -> int:
            return 2 * n

        async with runner.start():
            assert await (await double.dispatch(21)).result(10) == 42
            assert await (await double.with_options(delay=0.05).dispatch(4)).result(10) == 8
    await client.aclose()


async def test_after_a_planned_failover_all_go_on_at_the_new_primary(sentinels: Sentinels, fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start")
        await _replicated(sentinels)
        async with Load(fleet.tasks.quick) as load:
            await load.more()
            await sentinels.failover()
            over = time.monotonic()
            await load.more(deadline=RECOVERY)
        latest = load.accepted[-1]
        await latest.wait(20)
        assert time.monotonic() - over < RECOVERY
        fleet.tasks.open_gate("gate")
        await running.wait(20)
        lost = await _lost(fleet, [job.id for job in load.accepted])
        # What the old primary took in the instant before it was demoted is gone with it: the switch takes it well below
        # a second, and the load is a few hundred jobs per second.
        assert len(lost) < len(load.accepted) / 2
    assert len(fleet.journal.lines("start", job=running.id)) == 1, "a run that outlasted the failover was repeated"
    await fleet.end(worker)
    assert "Traceback" not in fleet.log(worker)


async def test_after_a_killed_primary_all_go_on_at_the_one_that_follows(sentinels: Sentinels, fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.runner.start():
        first = [await fleet.tasks.quick.dispatch(n) for n in range(50)]
        for job in first:
            await job.wait(20)
        await _replicated(sentinels)
        async with Load(fleet.tasks.quick) as load:
            await load.more()
            sentinels.kill_primary()
            killed = time.monotonic()
            await load.more(deadline=RECOVERY)
            assert time.monotonic() - killed < RECOVERY
        await load.accepted[-1].wait(20)
        assert not await _lost(fleet, [job.id for job in load.accepted[-50:]])
        # The former primary comes back, believes for some seconds that it still is one, and nobody falls for it.
        await sentinels.promoted()
        await sentinels.replica.start()
        after = [await fleet.tasks.quick.dispatch(n) for n in range(50)]
        assert [await job.result(20) for job in after] == list(range(50))
        await sentinels.followed()
        assert await (await fleet.tasks.quick.dispatch("at the end")).result(20) == "at the end"


async def test_a_process_that_only_dispatches_finds_the_new_primary_by_itself(
    sentinels: Sentinels, make_runner: Callable[..., TaskRunner]
) -> None:
    runner = make_runner(sentinels.url)
    work = runner.declare("work")
    await work.dispatch(1)
    sentinels.kill_primary()
    job = await work.dispatch(2)
    assert await job.status() == "queued"


async def test_what_a_failover_loses_is_told_and_blocks_nothing(sentinels: Sentinels, fleet: Fleet) -> None:
    unique = fleet.tasks.quick.with_options(unique=True)
    kept = await fleet.tasks.quick.with_options(delay=3600).dispatch("kept")
    await _replicated(sentinels)
    await _cut_replication(sentinels)
    waiting = await fleet.tasks.quick.with_options(unique=True, delay=3600).dispatch("waiting")
    lost = await fleet.tasks.quick.dispatch("lost")
    sentinels.kill_primary()
    await sentinels.promoted()
    with pytest.raises(JobNotFound):
        await lost.result(20)
    with pytest.raises(JobNotFound):
        await waiting.result(20)
    again = await unique.dispatch("waiting")
    assert not again.deduplicated, "the key of a job that was lost blocks no other"
    async with fleet.runner.start():
        assert await again.result(20) == "waiting"
        assert (await fleet.figures("quick")).waiting == 0, "a count has lost its jobs"
    assert (await kept.info()).status == "scheduled"


async def _replicated(sentinels: Sentinels) -> None:
    """Waits until the replica has all that the primary has now."""

    async def level() -> bool:
        primary = await sentinels.primary.command("INFO", "replication")
        replica = await sentinels.replica.command("INFO", "replication")
        return bool(primary["master_repl_offset"] == replica.get("slave_repl_offset"))

    await eventually(level)


async def _cut_replication(sentinels: Sentinels) -> None:
    """From now on the replica gets nothing more. (Were it only paused, it would find the rest in its socket.)"""
    await sentinels.primary.command("ACL", "SETUSER", "default", "-psync", "-sync")
    await sentinels.primary.command("CLIENT", "KILL", "TYPE", "replica")

    async def alone() -> bool:
        return bool((await sentinels.primary.command("INFO", "replication"))["connected_slaves"] == 0)

    await eventually(alone)


async def _lost(fleet: Fleet, ids: list[str]) -> list[str]:
    """Those of these jobs that nobody knows any more."""
    lost: list[str] = []
    for id in ids:
        try:
            await fleet.runner.job(id).wait(20)
        except JobNotFound:
            lost.append(id)
    return lost

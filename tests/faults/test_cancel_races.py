"""Cancelling at every point of a job's way, with replies that get lost and workers that stand still or die: one end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from taskrunner import Job, JobCancelled, JobStatus
from taskrunner.failpoints import VARIABLE
from taskrunner.store.scripts import CANCEL, DELETE, PURGE, Script
from tests.cleanliness import leftovers
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

BEFORE_THE_END = ("after_promote", "after_fetch", "before_run", "before_settle", "before_beat")
"""Failpoints at which a job that runs for some time is still there to be cancelled."""


async def outcome(job: Job[object]) -> str:
    """How a job ended, as somebody sees it who waits for it."""
    try:
        await job.result(30)
    except JobCancelled:
        return "cancelled"
    return "succeeded"


async def alone(fleet: Fleet, server: Server) -> None:
    """Waits until there is one worker left, and the dead have been tidied away."""
    async with server.client() as client:
        await eventually(lambda: fleet.alone(client))


async def check(fleet: Fleet, server: Server) -> None:
    """No worker is there any more: nothing is left of any job, and the key of each is free."""
    async with server.client() as client:
        assert not await leftovers(client, fleet.namespace)
    assert (await fleet.runner.stats()).waiting == 0


@pytest.mark.crash
@pytest.mark.parametrize("how", ["sleep:1", "kill"])
@pytest.mark.parametrize("point", BEFORE_THE_END)
async def test_a_job_that_is_cancelled_while_its_worker_stands_still_or_dies_has_one_end(
    point: str, how: str, fleet: Fleet, own_server: Server
) -> None:
    """Its first attempt fails, so it passes a retry, its due time and its promotion too."""
    unique = fleet.tasks.flaky.with_options(unique=True, unique_key="key", delay=0.05)
    job = await unique.dispatch("value")
    waiting = asyncio.create_task(outcome(job))
    victim = await fleet.worker(environment={VARIABLE: f"{point}={how}"})
    if how == "kill":
        assert await victim.ended() == -signal.SIGKILL
    else:
        await eventually(lambda: "reached failpoint" in fleet.log(victim))
    cancelled = await job.cancel()
    assert await waiting == ("cancelled" if cancelled else "succeeded")
    following = await unique.dispatch("next")
    assert not following.deduplicated
    rescuer = await fleet.worker()
    assert await following.result(30) == "next"
    if how != "kill":
        await fleet.end(victim)
    await alone(fleet, own_server)
    await fleet.end(rescuer)
    assert await job.status() is (JobStatus.CANCELLED if cancelled else JobStatus.SUCCEEDED)
    await check(fleet, own_server)


@pytest.mark.crash
async def test_a_worker_that_dies_before_it_heard_takes_nothing_of_a_cancelled_job_along(
    fleet: Fleet, own_server: Server
) -> None:
    job = await fleet.tasks.hold.dispatch("gate")
    victim = await fleet.worker()
    await fleet.tasks.seen(1, "start", job=job.id)
    victim.signal(signal.SIGSTOP)
    assert await job.cancel()
    assert await outcome(job) == "cancelled"
    victim.signal(signal.SIGKILL)
    await victim.ended()
    rescuer = await fleet.worker()
    assert await (await fleet.tasks.quick.dispatch("other")).result(30) == "other"
    await alone(fleet, own_server)
    await fleet.end(rescuer)
    assert len(fleet.journal.lines("start", job=job.id)) == 1
    await check(fleet, own_server)


@pytest.mark.crash
async def test_a_frozen_worker_that_comes_back_has_its_outcome_refused(fleet: Fleet, own_server: Server) -> None:
    job = await fleet.tasks.block.dispatch("gate")
    worker = await fleet.worker()
    await fleet.tasks.seen(1, "start", job=job.id)
    worker.signal(signal.SIGSTOP)
    assert await job.cancel()
    assert await outcome(job) == "cancelled"
    fleet.tasks.open_gate("gate")
    worker.signal(signal.SIGCONT)
    await fleet.tasks.seen(1, "end", job=job.id)
    await fleet.end(worker)
    assert await job.status() is JobStatus.CANCELLED
    assert (await fleet.figures("block")).succeeded == 0
    await check(fleet, own_server)


async def test_cancelling_at_any_instant_of_many_short_jobs_ends_each_once(fleet: Fleet, own_server: Server) -> None:
    unique = [
        fleet.tasks.flaky.with_options(unique=True, unique_key=f"key {n}", delay=0.01 * (n % 5)) for n in range(60)
    ]
    async with fleet.runner.start():
        jobs = [await one.dispatch(n) for n, one in enumerate(unique)]
        waiting = [asyncio.create_task(outcome(job)) for job in jobs]

        async def later(n: int, job: Job[object]) -> bool:
            await asyncio.sleep(0.004 * (n * 37 % 60))
            return await job.cancel()

        cancelled = await asyncio.gather(*(later(n, job) for n, job in enumerate(jobs)))
        ends = await asyncio.gather(*waiting)
        assert ends == ["cancelled" if one else "succeeded" for one in cancelled]
        assert not any([(await one.dispatch(n)).deduplicated for n, one in enumerate(unique)])
        assert await fleet.runner.purge("default") >= 0
        await eventually(lambda: fleet.runner._consumer._worker.inventory.in_hand == 0)  # type: ignore[union-attr]
    figures = await fleet.figures("flaky")
    assert figures.succeeded >= ends.count("succeeded")
    await fleet.runner.purge("default")
    await check(fleet, own_server)


# -- lost replies ------------------------------------------------------------------------------------------------------


class TestLostReplies:
    @pytest.fixture
    async def proxy(self, own_server: Server) -> AsyncIterator[Proxy]:
        async with Proxy(own_server.port) as proxy:
            yield proxy

    @pytest.fixture
    async def fleet(self, proxy: Proxy, make_fleet: Callable[..., Fleet]) -> Fleet:
        """Its server knows the scripts: one that doesn't is sent a script's text, and not its name."""
        fleet = make_fleet(proxy.url, reservation_timeout=30)
        for end in (lambda job: job.cancel(), lambda job: fleet.runner.delete(job.id)):
            assert await end(await fleet.tasks.quick.with_options(delay=60).dispatch())
        return fleet

    @pytest.mark.parametrize("state", ["scheduled", "queued", "running"])
    async def test_whoever_cancelled_is_told_so_when_the_reply_was_lost(
        self, state: str, proxy: Proxy, fleet: Fleet
    ) -> None:
        async def cancel() -> None:
            loss = proxy.lose(CANCEL.sha)
            assert await job.cancel()
            assert loss.lost == 1
            assert not await job.cancel()
            assert await outcome(job) == "cancelled"

        if state == "running":
            async with fleet.runner.start():
                job = await fleet.tasks.hold.dispatch("gate")
                await fleet.tasks.seen(1, "start")
                await cancel()
                await fleet.tasks.seen(1, "cancelled")
        else:
            job = await fleet.tasks.hold.with_options(delay=60 if state == "scheduled" else 0).dispatch("gate")
            await cancel()

    @pytest.mark.parametrize("script", [DELETE, PURGE], ids=lambda script: script.name)
    async def test_what_was_removed_is_told_when_the_reply_was_lost(
        self, script: Script, proxy: Proxy, fleet: Fleet
    ) -> None:
        jobs = [await fleet.tasks.quick.with_options(delay=60).dispatch(n) for n in range(3)]
        loss = proxy.lose(script.sha)
        if script is DELETE:
            assert await fleet.runner.delete(jobs[0].id)
            assert not await fleet.runner.delete(jobs[0].id)
        else:
            assert await fleet.runner.purge("default") == 3
        assert loss.lost == 1

"""A user of the server who may touch our keys and channels, and nothing that is for administrators or dangerous."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from taskrunner import Backoff, JobContext, JobFailed, JobStatus, QueueStats, Snooze, TaskRunner
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

RIGHTS = ["reset", "on", ">secret", "~taskrunner*", "resetchannels", "&taskrunner*", "+@all", "-@admin", "-@dangerous"]


@pytest.fixture
async def limited(own_server: Server, make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet that logs on as this user."""
    await own_server.command("ACL", "SETUSER", "worker", *RIGHTS)
    return make_fleet(own_server.url.replace("//", "//worker:secret@"))


async def test_jobs_of_all_kinds_run_and_are_recorded(
    limited: Fleet, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fleet, runner = limited, limited.runner
    longs = list[QueueStats]()

    @runner.task(max_retry=1, backoff=Backoff.constant(0.01))
    async def eventful(ctx: JobContext, kind: str) -> str:
        if kind == "retried" and ctx.attempt == 1:
            raise ValueError("the first time")
        if kind == "snoozed" and not longs:
            longs.append(await runner.stats("default"))
            raise Snooze(0.01)
        if kind == "failing":
            raise ValueError("each time")
        return kind

    async with runner.start():
        kinds = ["plain", "retried", "snoozed"]
        jobs = [await eventful.dispatch(kind) for kind in kinds]
        jobs += await runner.dispatch_many([eventful.job(kind) for kind in kinds])
        jobs.append(await eventful.with_options(unique=True, delay=0.05).dispatch("unique and delayed"))
        assert (await eventful.with_options(unique=True).dispatch("unique and delayed")).deduplicated
        assert [await job.result(20) for job in jobs] == [*kinds, *kinds, "unique and delayed"]
        assert await jobs[0].status() is JobStatus.SUCCEEDED
        await runner.schedule("often", fleet.tasks.quick.job(), every=0.1, lock_key="k")
        await eventually(lambda: _fired(runner))
        await runner.pause_schedule("often")
        assert await runner.unschedule("often")
        failing = await eventful.dispatch("failing")
        with pytest.raises(JobFailed, match="each time"):
            await failing.result(20)
        assert [letter.id for letter in await runner.dead_letters.list()] == [failing.id]
        assert (await fleet.figures("eventful")).succeeded == 7
        assert longs
    assert "permissions" not in caplog.text
    async with own_server.client() as client:
        assert not await leftovers(client, fleet.namespace, ("dead",))


@pytest.mark.crash
async def test_the_jobs_of_a_killed_worker_are_taken_over_and_it_is_tidied_away(
    limited: Fleet, own_server: Server
) -> None:
    victim = await limited.worker()
    job = await limited.tasks.hold.dispatch("gate")
    await limited.tasks.seen(1, "start")
    victim.signal(signal.SIGKILL)
    limited.tasks.open_gate("gate")
    async with own_server.client() as client:
        async with limited.runner.start():
            assert await job.result(20) == os.getpid()
            await eventually(lambda: limited.alone(client))
        assert not await leftovers(client, limited.namespace)


async def test_a_stop_that_may_not_end_its_fetch_on_the_server_waits_for_it_and_strands_nothing(
    limited: Fleet, own_server: Server
) -> None:
    async with own_server.client() as client:
        async with limited.runner.start():
            await eventually(lambda: limited.runner.ready)
        late = [await limited.tasks.quick.dispatch(n) for n in range(5)]
        assert await limited.pending(client) == 0
        async with asyncio.timeout(20), limited.runner.start():
            assert [await job.result(20) for job in late] == list(range(5))
        assert not await leftovers(client, limited.namespace)
    assert [line.deliveries for line in limited.journal.lines("start")] == [1] * 5


async def test_a_right_that_is_taken_away_at_runtime_is_told_of_and_costs_no_job(
    limited: Fleet, own_server: Server
) -> None:
    told = list[str]()
    limited.runner.on_error(lambda role, error: told.append(f"{role}: {error}"))
    async with limited.runner.start():
        running = await limited.tasks.hold.dispatch("gate")
        await limited.tasks.seen(1, "start")
        await own_server.command("ACL", "SETUSER", "worker", "-@scripting", "-@stream")
        limited.tasks.open_gate("gate")
        await eventually(lambda: any(line.startswith("fetcher: ") and "ACL" in line for line in told))
        await own_server.command("ACL", "SETUSER", "worker", "+@all", "-@admin", "-@dangerous")
        await running.wait(20)
        assert await (await limited.tasks.quick.dispatch("again")).result(20) == "again"
    assert len(limited.journal.lines("start", job=running.id)) == 1


async def _fired(runner: TaskRunner) -> bool:
    [schedule] = await runner.schedules()
    return schedule.last_fire is not None

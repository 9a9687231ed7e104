"""What is where: counts and listings by state, queue and task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Backoff, JobContext, JobStatus, TaskOptionError, TaskRunner
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
STREAMS = ("stream:default", "stream:mail", "stream:q0", "stream:q1")
WAITING = pytest.mark.leaves(*STREAMS, "live", "due:", "letters:", "retrying:", "tallies:")
DEAD = pytest.mark.leaves("dead")


async def settled(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Waits until the answer is the expected one."""

    async def fits() -> bool:
        return bool(await ask() == expected)

    await eventually(fits)


async def counts(runner: TaskRunner, queue: str | None = None, task: str | None = None) -> dict[str, int]:
    """How many jobs are where, without the states that have none."""
    found = {state.value: await runner.count(queue, task, state) for state in JobStatus}
    return {state: n for state, n in found.items() if n}


@WAITING
async def test_what_is_ready_and_what_waits_for_its_time_are_counted_by_queue_and_task(runner: TaskRunner) -> None:
    @runner.task
    async def one(n: int) -> None: ...

    @runner.task(queue="mail")
    async def other(n: int) -> None: ...

    await runner.dispatch_many([one.job(n) for n in range(5)] + [other.job(n) for n in range(3)])
    await one.with_options(delay=60).dispatch(9)
    await one.with_options(queue="mail").dispatch(9)
    assert await counts(runner) == {"queued": 9, "scheduled": 1}
    assert await counts(runner, "mail") == {"queued": 4}
    assert await counts(runner, task="one") == {"queued": 6, "scheduled": 1}
    assert await counts(runner, "mail", "one") == {"queued": 1}
    assert await counts(runner, "nobodys") == {}


@DEAD
async def test_a_job_is_counted_in_one_state_at_any_time_of_its_life(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task(max_retry=1, backoff=Backoff.constant(0.3))
    async def work(ctx: JobContext) -> None:
        await go.wait()
        if ctx.attempt == 1:
            raise ValueError
        raise KeyError

    job = await work.with_options(delay=0.2).dispatch()
    assert await counts(runner, task="work") == {"scheduled": 1}
    async with runner.start():
        await settled(lambda: counts(runner, task="work"), {"running": 1})
        go.set()
        await settled(lambda: counts(runner, task="work"), {"retrying": 1})
        await job.wait(timeout=20)
        assert await counts(runner, task="work") == {"failed": 1}
        assert await counts(runner) == {"failed": 1}


async def test_the_listing_of_a_state_shows_its_jobs_as_info_would(runner: TaskRunner) -> None:
    go = asyncio.Event()

    @runner.task
    async def hold() -> None:
        await go.wait()

    async with runner.start():
        running = await hold.dispatch()
        later = await hold.with_options(delay=0.4).dispatch()
        await settled(lambda: counts(runner), {"running": 1, "scheduled": 1})
        for job, state in ((running, "running"), (later, "scheduled")):
            [listed] = await runner.jobs(state)
            assert listed == await job.info()
        go.set()
        await later.wait(timeout=20)
        assert {listed.id for listed in await runner.jobs("succeeded")} == {running.id, later.id}
        assert (await runner.jobs("succeeded"))[0] == await later.info(), "the newest comes first"


@WAITING
async def test_listings_are_in_the_order_in_which_jobs_will_run(runner: TaskRunner) -> None:
    @runner.task
    async def work(n: int) -> None: ...

    jobs = await runner.dispatch_many([work.job(n) for n in range(7)])
    assert [one.id for one in await runner.jobs("queued", limit=5)] == [job.id for job in jobs[:5]]
    delays = {delay: (await work.with_options(delay=delay).dispatch(0)).id for delay in (90, 30, 60)}
    assert [one.id for one in await runner.jobs("scheduled")] == [delays[30], delays[60], delays[90]]


@WAITING
async def test_a_listing_of_several_queues_and_partitions_is_one(make_runner: MakeRunner) -> None:
    runner = make_runner(partitions=3)

    @runner.task
    async def work(n: int) -> None: ...

    jobs = [await work.with_options(queue=f"q{n % 2}", delay=10 + n).dispatch(n) for n in range(12)]
    assert [one.id for one in await runner.jobs("scheduled", limit=8)] == [job.id for job in jobs[:8]]
    assert [one.id for one in await runner.jobs("scheduled", "q1")] == [job.id for job in jobs[1::2]]


@DEAD
async def test_failed_jobs_are_listed_with_their_errors_newest_first(runner: TaskRunner) -> None:
    @runner.task(max_retry=0)
    async def bad(n: int) -> None:
        raise ValueError(f"number {n}")

    async with runner.start():
        for n in range(3):
            await (await bad.dispatch(n)).wait(timeout=20)
        listed = await runner.jobs("failed")
    assert [str(one.error) for one in listed] == [
        "ValueError: number 2",
        "ValueError: number 1",
        "ValueError: number 0",
    ]
    assert {(one.task, one.queue, one.status, one.attempts) for one in listed} == {
        ("bad", "default", JobStatus.FAILED, 1)
    }


async def test_a_job_past_its_result_ttl_is_neither_listed_nor_counted(runner: TaskRunner) -> None:
    @runner.task(result_ttl=0.3)
    async def brief() -> None: ...

    @runner.task
    async def known() -> None: ...

    async with runner.start():
        await (await brief.dispatch()).wait(timeout=20)
        await (await known.dispatch()).wait(timeout=20)

        async def names() -> list[str]:
            return [one.task for one in await runner.jobs("succeeded")]

        await settled(names, ["known"])
        assert await runner.count(state="succeeded") == 1


async def test_neither_payloads_nor_the_rest_of_a_long_queue_are_read(make_runner: MakeRunner, tmp_path: Path) -> None:
    async with Server(tmp_path / "server") as server:
        runner = make_runner(server.url)

        @runner.task
        async def work(n: int, text: str) -> None: ...

        await runner.dispatch_many([work.job(n, "x" * 5_000) for n in range(2_000)])
        await runner.dispatch_many([work.with_options(delay=60).job(n, "x" * 5_000) for n in range(2_000)])
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.config_resetstat()
            for state in ("queued", "scheduled"):
                assert len(await runner.jobs(state, limit=10)) == 10
                assert await runner.count(state=state) == 2_000
            figures = await client.info("all")
        assert figures["cmdstat_xrange"]["calls"] <= 12
        assert figures["cmdstat_hget"]["calls"] <= 14
        assert figures["total_net_output_bytes"] < 20_000
        assert not {"cmdstat_keys", "cmdstat_scan", "cmdstat_hscan", "cmdstat_zscan"} & set(figures)


async def test_a_state_that_does_not_exist_is_refused(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match=r"state must be one of .*queued.*'waiting'"):
        await runner.count(state="waiting")
    with pytest.raises(TaskOptionError, match="state must be one of"):
        await runner.jobs("")
    with pytest.raises(TaskOptionError, match="limit must be a whole number of at least 1"):
        await runner.jobs("queued", limit=0)
    with pytest.raises(TaskOptionError, match="queue must be"):
        await runner.jobs("queued", "{x}")

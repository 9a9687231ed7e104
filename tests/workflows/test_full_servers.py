"""Workflows on a server whose memory is full: none begins, and those that run come to their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, QueueFull, TaskRunner, chain, group
from tests.faults.fixtures import own_server
from tests.servers import Server
from tests.waiting import eventually
from tests.workflows.auditing import audit, everything
from tests.workflows.tasks import Tasks

__all__ = ["own_server"]

MakeRunner = Callable[..., TaskRunner]


async def fill(client: redis.asyncio.Redis) -> None:
    """Whatever it holds is too much from now on."""
    await client.config_set("maxmemory", 1)


@pytest.mark.parametrize("size", [3, 450], ids=["at once", "in parts"])
async def test_a_full_server_takes_no_workflow_and_keeps_nothing_of_it(
    own_server: Server, make_runner: MakeRunner, namespace: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.dispatching.PATIENCE", 0.2)
    runner = make_runner(own_server.url)
    tasks = Tasks(runner)
    await runner.opened()
    async with own_server.client() as client:
        await fill(client)
        part = chain(*(tasks.give.job(n) for n in range(size)))
        with pytest.raises(QueueFull):
            await runner.dispatch(part)
        assert await everything(client, namespace) == {}
        await client.config_set("maxmemory", 0)
        assert (await (await runner.dispatch(part)).info()).finished == [], "it can be dispatched again"


async def test_a_server_that_is_full_behind_the_last_part_takes_no_workflow(
    own_server: Server, make_runner: MakeRunner, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.dispatching.PATIENCE", 0.2)
    runner = make_runner(own_server.url)
    tasks = Tasks(runner)
    workflows = (await runner.opened()).store.workflows
    begin = workflows._begin  # pyright: ignore[reportPrivateUsage]
    async with own_server.client() as client:

        async def full(*arguments: Any) -> bytes:
            assert [key async for key in client.scan_iter(match="*:staged:*")]
            await fill(client)
            return await begin(*arguments)

        monkeypatch.setattr(workflows, "_begin", full)
        with pytest.raises(QueueFull):
            await runner.dispatch(chain(*(tasks.give.job(n) for n in range(450))))
        assert await everything(client, namespace) == {}


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_runs_comes_to_its_end_on_a_full_server(
    own_server: Server, make_runner: MakeRunner, partitions: int
) -> None:
    runner = make_runner(own_server.url, partitions=partitions)
    tasks = Tasks(runner)

    @runner.task(unique=True)
    async def alone(n: int) -> int:
        return n

    members: Any = [*(alone.job(n) for n in range(10)), *(tasks.give.job(n) for n in range(240))]
    job = await runner.dispatch(chain(tasks.hold.job(0), group(*members), tasks.add_up.job(), alone.job(1000)))
    stopped = await runner.dispatch(chain(tasks.hold.job(1), alone.job(2000), tasks.give.job(3)))
    async with own_server.client() as client, runner.start():
        await eventually(lambda: len(tasks.started) == 2)
        await fill(client)
        assert await stopped.cancel()
        tasks.go.set()
        assert await job.result(20) == 1000
        assert await stopped.status() is JobStatus.CANCELLED
        assert await audit(runner) == []
        await eventually(lambda: nothing_is_left(runner, client))
    assert 3 not in tasks.calls[240:]


async def nothing_is_left(runner: TaskRunner, client: redis.asyncio.Redis) -> bool:
    partitions = (await runner.opened()).store.partitions
    return not any([await client.exists(one.workflows, one.followers, one.unfolding) for one in partitions])

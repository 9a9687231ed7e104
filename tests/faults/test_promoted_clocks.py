"""A replica with another clock that is promoted: jobs and workflows go on, nobody's jobs are taken from it, and those
of the dead are taken as soon as the clocks allow."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio

from taskrunner import chain, group
from tests.faults.clock import Clock
from tests.faults.flow_checks import no_job_began_twice, nothing_is_under_way, over
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

SKEW = 30.0


@pytest.fixture(params=[SKEW, -SKEW], ids=["ahead", "behind"])
async def replica(
    request: pytest.FixtureRequest, clock: Clock, own_server: Server, tmp_path: Path
) -> AsyncIterator[Server]:
    """A replica of the test's own server, whose clock is another."""
    clock.step(request.param)
    words = ("--replicaof", "127.0.0.1", str(own_server.port))
    async with Server(tmp_path / "replica", *words, environment=clock.environment) as server:
        yield server


async def promote(proxy: Proxy, primary: Server, replica: Server) -> None:
    """The replica takes over when it has all that the primary had, which is never seen again."""
    async with primary.client() as client:
        await client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")

        async def is_level() -> bool:
            info = await client.info("replication")
            slave = info.get("slave0", {})
            return slave.get("state") == "online" and slave.get("offset") == info["master_repl_offset"]

        await eventually(is_level)
    primary.kill()
    async with replica.client() as client:
        await client.execute_command("REPLICAOF", "NO", "ONE")
    proxy.server_port = replica.port
    proxy.cut()


async def is_replicated(client: redis.asyncio.Redis) -> bool:
    return (await client.info("replication")).get("slave0", {}).get("state") == "online"


async def test_a_promoted_replica_with_another_clock_takes_no_job_and_loses_no_follower(
    own_server: Server, replica: Server, proxy: Proxy, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(proxy.url)
    tasks, step = fleet.tasks, fleet.tasks.flows.step
    async with own_server.client() as client:
        await eventually(lambda: is_replicated(client))
    dead = await fleet.worker(num_workers=1)
    job = await fleet.runner.dispatch(chain(step.job(), tasks.hold.job("gate"), tasks.flows.last.job()))
    await tasks.seen(2, "start", pid=dead.pid)
    worker = await fleet.worker()
    both = await fleet.runner.dispatch(group(tasks.hold.job("gate"), step.job(), then=tasks.flows.last.job()))
    await tasks.seen(2, "end")
    await tasks.seen(4, "start")
    await promote(proxy, own_server, replica)
    await (await step.dispatch()).result(30)  # the new primary works
    async with replica.client() as client:
        judged = await client.hget(fleet.keys.janitor, "last")
        await eventually(lambda: has_looked(client, fleet, judged))
    assert len(tasks.journal.lines("start")) == 5, "a job that runs was taken from its worker"
    dead.signal(signal.SIGKILL)
    tasks.open_gate("gate")
    await over(fleet, job.id)
    await over(fleet, both.id)
    assert len(await both.results(20)) == 2
    assert len(tasks.journal.lines("start", job=f"{job.id}.1")) == 2, "the dead one held nothing"
    await fleet.end(worker)
    assert len(tasks.journal.lines("last")) == 2
    no_job_began_twice(fleet)
    async with replica.client() as client:
        await nothing_is_under_way(client, fleet)


async def has_looked(client: redis.asyncio.Redis, fleet: Fleet, before: bytes | None) -> bool:
    """Whether a reclaimer has judged by the new clock."""
    return (await client.hget(fleet.keys.janitor, "last")) != before

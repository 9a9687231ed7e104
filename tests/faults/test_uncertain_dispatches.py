"""Dispatches of which nobody can know whether they were accepted, and those of which the server said that they were."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import DispatchUncertain, RedisConfigurationError, RedisUnavailable, TaskRunner
from taskrunner.store.confirm import ConfirmedBatches, Replicated
from taskrunner.store.connect import connect
from taskrunner.store.links import Link
from taskrunner.store.scripts import DISPATCH
from taskrunner.store.translate import Unanswered
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.servers import Cluster, Sentinels, Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash


@pytest.fixture
async def replica(tmp_path: Path, own_server: Server) -> AsyncIterator[Server]:
    """A replica that follows ``own_server``."""
    await own_server.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    async with Server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(own_server.port)) as replica:
        await eventually(lambda: _follows(own_server))
        yield replica


async def _follows(primary: Server) -> bool:
    """Whether a replica confirms a write. One that has just connected takes a second for the first."""
    async with redis.asyncio.Redis.from_url(primary.url, single_connection_client=True) as client:
        await client.set("written", 1, px=1)
        return bool(await client.wait(1, 2000))


@contextmanager
def silent(replica: Server) -> Generator[None]:
    """A replica that follows nobody, and a primary that waits for it for 0.3 s instead of 5."""
    replica.pause()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replicated, "command", (b"WAIT", 1, 300))
        yield
    replica.resume()


# -- not confirmed --------------------------------------------------------------------------------------------


async def test_a_replica_that_does_not_answer_leaves_the_dispatch_uncertain_and_the_job_whole(
    own_server: Server, replica: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, durability="replicated")
    quick = fleet.tasks.quick
    await quick.dispatch("warm")
    with silent(replica):
        with pytest.raises(DispatchUncertain, match="no replica confirmed it") as raised:
            await quick.dispatch("doubtful")
        id = raised.value.job_id
        assert raised.value.job_ids == (id,)
        with pytest.raises(DispatchUncertain):
            await quick.with_options(id=id).dispatch("doubtful")
    again = await quick.with_options(id=id).dispatch("doubtful")
    assert again.deduplicated, "the same job, and confirmed now"
    async with fleet.runner.start():
        assert await again.result(20) == "doubtful"
    assert len(fleet.journal.lines("start", job=id)) == 1


async def test_a_doubtful_duplicate_names_the_job_that_is_there(
    own_server: Server, replica: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, durability="replicated")
    unique = fleet.tasks.quick.with_options(unique=True)
    first = await unique.dispatch(1)
    with silent(replica), pytest.raises(DispatchUncertain) as raised:
        await unique.dispatch(1)
    assert raised.value.job_id == first.id


async def test_a_batch_sent_again_after_a_lost_reply_is_confirmed_by_the_replica_and_not_by_the_new_connection(
    own_server: Server, replica: Server, make_fleet: Callable[..., Fleet]
) -> None:
    async with Proxy(own_server.port) as proxy:
        fleet = make_fleet(proxy.url, durability="replicated")
        await fleet.tasks.quick.dispatch("warm")
        loss = proxy.lose(DISPATCH.sha, b"*0")
        with silent(replica), pytest.raises(DispatchUncertain, match="no replica confirmed it"):
            await fleet.tasks.quick.dispatch("written once, and answered by the second connection")
        assert loss.lost == 1
        loss = proxy.lose(DISPATCH.sha, b"*0")
        await fleet.tasks.quick.dispatch("confirmed by the second connection")
        assert loss.lost == 1
        async with replica.client() as client:
            assert await client.xlen(fleet.stream) == 3


async def test_dispatch_many_names_all_that_are_in_doubt_and_none_that_were_confirmed(
    own_server: Server, replica: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, durability="replicated")
    ids = [f"job-{n}" for n in range(1000)]
    send = ConfirmedBatches.send

    with ExitStack() as later, pytest.MonkeyPatch.context() as patch:

        async def silence_after_it(batches: Any, *call: Any) -> Any:
            reply = await send(batches, *call)
            later.enter_context(silent(replica))
            return reply

        patch.setattr(ConfirmedBatches, "send", silence_after_it)
        with pytest.raises(DispatchUncertain) as raised:
            await fleet.runner.dispatch_many([fleet.tasks.quick.with_options(id=id).job() for id in ids])
    doubtful = list(raised.value.job_ids)
    first = ids.index(doubtful[0])
    assert first == 200, "the first chunk was confirmed"
    assert doubtful == ids[first : first + len(doubtful)], "in their order"
    async with own_server.client() as client:
        written = await client.xlen(fleet.stream)
    assert first + 200 <= written <= first + len(doubtful), "all that may exist is named"
    jobs = await fleet.runner.dispatch_many([fleet.tasks.quick.with_options(id=id).job() for id in ids])
    assert sum(job.deduplicated for job in jobs) == written


async def test_what_is_turned_off_after_the_check_is_no_confirmation(
    tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    async with Server(tmp_path / "aof", persistent=True, fsync="always") as server:
        fleet = make_fleet(server.url, durability="fsynced")
        await fleet.tasks.quick.dispatch("warm")
        await server.command("CONFIG", "SET", "appendonly", "no")
        await server.command("CONFIG", "SET", "appendfsync", "everysec")  # old servers take this for an answer
        with pytest.raises(DispatchUncertain, match=r"append-?only"):
            await fleet.tasks.quick.dispatch("written, and on no disk")
        assert await server.command("XLEN", fleet.stream) == 2


async def test_a_server_that_comes_back_with_other_settings_is_checked_anew(
    tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    async with Server(tmp_path / "aof", persistent=True, fsync="always") as server:
        fleet = make_fleet(server.url, durability="fsynced")
        await fleet.tasks.quick.dispatch("warm")
    async with Server(tmp_path / "none", port=server.port) as other:
        with pytest.raises(RedisConfigurationError, match="appendonly yes"):
            await fleet.tasks.quick.dispatch("refused, and nothing is written")
        assert await other.command("DBSIZE") == 0


# -- not answered ---------------------------------------------------------------------------------------------


async def test_a_dispatch_that_was_sent_and_never_answered_is_uncertain_and_safe_to_repeat(
    own_server: Server, make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.links.Link.run.__defaults__", (0.3,))
    monkeypatch.setattr("taskrunner.producer.PATIENCE", 0.5)
    async with Proxy(own_server.port) as proxy:
        fleet = make_fleet(proxy.url)
        await fleet.tasks.quick.dispatch("warm")
        proxy.swallow(role=DISPATCH.sha, way="replies")
        jobs = await asyncio.gather(*(fleet.tasks.quick.dispatch(n) for n in range(3)), return_exceptions=True)
        uncertain = [job for job in jobs if isinstance(job, DispatchUncertain)]
        assert len(uncertain) == 3
        assert all(isinstance(error, RedisUnavailable) for error in uncertain)
        assert len({error.job_id for error in uncertain}) == 3, "to each its own"
        for rule in proxy.rules:
            rule.end()
        proxy.cut()
        again = [await fleet.tasks.quick.with_options(id=error.job_id).dispatch() for error in uncertain]
        assert all(job.deduplicated for job in again)
        assert await own_server.command("XLEN", fleet.stream) == 4


async def test_a_dispatch_that_got_no_answer_and_then_found_nobody_is_uncertain(
    own_server: Server, make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.producer.PATIENCE", 0.5)
    async with Proxy(own_server.port) as proxy:
        fleet = make_fleet(proxy.url)
        await fleet.tasks.quick.dispatch("warm")
        proxy.lose(DISPATCH.sha, b"*0")
        dispatch = asyncio.ensure_future(fleet.tasks.quick.dispatch("lost"))
        await eventually(lambda: proxy.losses[0].lost)
        own_server.kill()
        with pytest.raises(DispatchUncertain):
            await dispatch


async def test_a_dispatch_that_could_not_be_sent_is_no_uncertain_one(
    own_server: Server, make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.producer.PATIENCE", 0.5)
    fleet = make_fleet(own_server.url)
    await fleet.runner.opened()
    own_server.kill()
    for _ in range(2):
        with pytest.raises(RedisUnavailable) as raised:
            await fleet.tasks.quick.dispatch()
        assert type(raised.value) is RedisUnavailable


async def test_what_is_called_on_a_connection_that_the_server_has_closed_was_never_sent(own_server: Server) -> None:
    link = Link(connect(own_server.url), "key")
    await link.call(b"PING")
    own_server.kill()
    await eventually(lambda: link.connection is None)
    with pytest.raises(RedisUnavailable) as raised:
        await link.call(b"PING")
    assert not isinstance(raised.value, Unanswered)
    await link.close()


# -- what was confirmed survives ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_ten_kills_of_a_server_that_syncs_always_cost_no_confirmed_dispatch(
    tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    async with Server(tmp_path / "aof", persistent=True, fsync="always") as server:
        fleet = make_fleet(server.url, durability="fsynced")
        await fleet.worker()
        async with fleet.runner.start(), Load(fleet.tasks.quick) as load:
            for _ in range(10):
                await load.more()
                server.kill()
                await server.start()
            await load.more()
        async with fleet.runner.start():
            for job in load.accepted:
                await job.wait(20)
            assert (await fleet.figures("quick")).succeeded == len(load.accepted)


@pytest.mark.slow
async def test_a_failover_costs_no_replicated_dispatch_and_others_are_not_promised_more(
    tmp_path: Path, make_fleet: Callable[..., Fleet]
) -> None:
    async with Sentinels(tmp_path / "sentinels") as sentinels:
        fleet = make_fleet(sentinels.url)
        safe = fleet.tasks.quick.with_options(durability="replicated")
        confirmed = [await safe.dispatch(n) for n in range(50)]
        sentinels.kill_primary()
        await sentinels.promoted()
        after = await fleet.tasks.quick.dispatch("after")
        async with fleet.runner.start():
            assert [await job.result(20) for job in confirmed] == list(range(50))
            assert await after.result(20) == "after"


@pytest.mark.slow
async def test_on_a_cluster_each_partition_has_its_confirmation_from_the_node_that_has_it(
    tmp_path: Path, make_runner: Callable[..., TaskRunner]
) -> None:
    async with Cluster(tmp_path / "cluster", replicas=1, persistent=True, fsync="always") as cluster:
        runner = make_runner(cluster.url, partitions=6)

        @runner.task
        async def echo(value: int) -> int:
            return value

        async def everywhere() -> None:
            for durability in ("replicated", "fsynced"):
                safe = echo.with_options(durability=durability)
                jobs = await runner.dispatch_many([safe.job(n) for n in range(60)])
                jobs += await asyncio.gather(*(safe.dispatch(n) for n in range(60, 90)))
                assert [await job.result(20) for job in jobs] == list(range(90))

        async with runner.start():
            await everywhere()
            keys = runner.session().store.partitions[0]
            slot = await cluster.slot_of(keys.prefix + "live")
            owner = await cluster.owner(slot)
            target = next(node for node in cluster.primaries if node is not owner)
            await cluster.migrate(slot, target)
            await everywhere()

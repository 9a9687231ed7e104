"""Holders, waiters and servers that die or stand still: nothing is exceeded, nothing leaks, and who lost is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from taskrunner import SlotLost, TaskRunner
from taskrunner.store.scripts import SLOTS
from tests.faults.fixtures import persistent_server
from tests.faults.proxy import Proxy
from tests.limiter.books import Books, Waiter
from tests.limiter.conftest import MakeLimiter
from tests.programs import Program
from tests.servers import Cluster, Server

__all__ = ["persistent_server"]

StartProgram = Callable[..., Program]

PROGRAM = """
import asyncio, os
from taskrunner import SlotLost, TaskRunner

async def main():
    async with TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"]) as runner:
        limiter = runner.limiter("places", limit=1, timeout=float(os.environ["TIMEOUT"]))
        try:
            async with limiter.slot("program") as slot:
                print(slot.fence)
                await asyncio.sleep(60)
        except SlotLost as error:
            print("lost:", error)
            print(await limiter.release("program"), await limiter.renew("program"))

asyncio.run(main())
"""


@pytest.fixture
def start(program: StartProgram, url: str, namespace: str) -> Callable[[float], Program]:
    """Starts a process that waits for the one slot of the limiter and keeps it."""
    return lambda timeout: program(PROGRAM, URL=url, NAMESPACE=namespace, TIMEOUT=str(timeout))


@pytest.mark.crash
async def test_the_slot_of_a_killed_holder_goes_to_the_next_in_line_when_it_expires(
    start: Callable[[float], Program], make_limiter: MakeLimiter, books: Books
) -> None:
    holder = start(2)
    fence = int(await holder.line())
    waiter = Waiter(make_limiter(limit=1), "next")
    await books.waits(1)
    holder.signal(signal.SIGKILL)
    await holder.ended()
    over = await books.expiry("program")
    await waiter.has_it()
    assert await books.now() >= over
    assert waiter.slot.fence > fence
    await waiter.leave()
    assert await books.all() == []


@pytest.mark.crash
async def test_a_killed_waiter_holds_nobody_up_for_longer_than_a_timeout(
    start: Callable[[float], Program], make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    killed = start(1)
    await books.waits(1)
    waiter = Waiter(make_limiter(limit=1), "next")
    await books.waits(2)
    killed.signal(signal.SIGKILL)
    await killed.ended()
    await limiter.release("one")
    await waiter.has_it()
    await waiter.leave()
    assert await books.all() == []


@pytest.mark.crash
async def test_a_holder_that_stood_still_for_longer_than_its_timeout_has_lost_its_slot_and_hears_of_it(
    start: Callable[[float], Program], make_limiter: MakeLimiter
) -> None:
    holder = start(1)
    fence = int(await holder.line())
    holder.signal(signal.SIGSTOP)
    limiter = make_limiter(limit=1)
    async with limiter.slot("program", wait=20) as slot:
        assert slot.fence > fence
        holder.signal(signal.SIGCONT)
        assert (await holder.line()).startswith("lost: slot 'program' of limiter 'places'")
        assert await holder.line() == "False False", "it is somebody else's, under the same id"
        [now] = await limiter.holders()
        assert now.fence == slot.fence


@pytest.mark.crash
async def test_a_server_that_was_emptied_ends_the_holds_and_goes_on(own_server: Server) -> None:
    async with own_server.client() as client, TaskRunner(own_server.url, namespace="x") as runner:
        limiter, books = runner.limiter("places", limit=1, timeout=3), Books(client, "x")
        holder = Waiter(limiter, "holder")
        await holder.has_it()
        waiter = Waiter(runner.limiter("places", limit=1, timeout=3), "waiter")
        await books.waits(1)
        await client.flushall()
        with pytest.raises(SlotLost):
            await holder.task
        await waiter.has_it()
        assert waiter.slot.fence > holder.slot.fence
        await waiter.leave()
        assert await limiter.acquire("again")


@pytest.mark.crash
async def test_a_server_that_restarts_with_its_data_ends_nobodys_hold(persistent_server: Server) -> None:
    async with TaskRunner(persistent_server.url, namespace="x") as runner:
        limiter = runner.limiter("places", limit=1, timeout=20)
        async with limiter.slot("one") as slot:
            waiter = Waiter(limiter, "two")
            async with persistent_server.client() as client:
                await Books(client, "x").waits(1)
            persistent_server.kill()
            await persistent_server.start()
            assert await limiter.renew("one")
            assert not await limiter.acquire("three")
            assert not slot.lost
        await waiter.has_it()
        assert waiter.slot.fence > slot.fence
        await waiter.leave()


@pytest.mark.crash
async def test_a_server_that_is_away_for_longer_than_the_timeout_ends_the_block(own_server: Server) -> None:
    async with TaskRunner(own_server.url, namespace="x") as runner:
        holder = Waiter(runner.limiter("places", limit=1, timeout=2), "one")
        await holder.has_it()
        own_server.kill()
        with pytest.raises(SlotLost, match="could not be renewed within 2 s"):
            await holder.task
        await own_server.start()
        assert await runner.limiter("places", limit=1, timeout=2).acquire("one")


# -- lost replies ------------------------------------------------------------------------------------------------------


async def test_an_acquire_whose_reply_is_lost_is_not_refused_because_of_itself(proxy: Proxy) -> None:
    async with TaskRunner(proxy.url, namespace="x") as runner:
        limiter = runner.limiter("places", limit=1, timeout=60)
        await limiter.acquire("warm")
        await limiter.release("warm")
        loss = proxy.lose(SLOTS.sha)
        assert await limiter.acquire("one")
        assert loss.lost == 1
        assert [one.id for one in await limiter.holders()] == ["one"]


async def test_a_release_whose_reply_is_lost_is_told_as_done_and_frees_nobody_else(
    proxy: Proxy, own_server: Server
) -> None:
    async with TaskRunner(proxy.url, namespace="x") as runner:
        limiter = runner.limiter("places", limit=1, timeout=60)
        await limiter.acquire("one")
        waiter = Waiter(runner.limiter("places", limit=1, timeout=60), "one")
        async with own_server.client() as client:
            await Books(client, "x").waits(1)
            loss = proxy.lose(SLOTS.sha)
            assert await limiter.release("one")
            assert loss.lost == 1
            await waiter.has_it()
            assert not await limiter.release("one"), "it is the next one's"
        await waiter.leave()


async def test_waiting_and_leaving_survive_lost_replies(proxy: Proxy) -> None:
    async with TaskRunner(proxy.url, namespace="x") as runner:
        limiter, ran, inside = runner.limiter("places", limit=2, timeout=60), list[int](), 0
        await limiter.release("warm")
        loss = proxy.lose(SLOTS.sha, times=6)

        async def work(n: int) -> None:
            nonlocal inside
            async with limiter.slot(str(n)):
                inside += 1
                assert inside <= 2
                await asyncio.sleep(0)
                ran.append(n)
                inside -= 1

        await asyncio.gather(*(work(n) for n in range(40)))
        assert loss.lost == 6
        assert sorted(ran) == list(range(40))
        assert await limiter.holders() == []


async def test_a_limiter_works_over_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    async with Cluster(tmp_path / "cluster") as servers, TaskRunner(servers.url, namespace="x", partitions=3) as runner:
        for n in range(8):
            limiter = runner.limiter(f"name {n}", limit=2, timeout=60)
            assert [await limiter.acquire(str(id)) for id in range(3)] == [True, True, False]
            waiter = Waiter(limiter, "next")
            await asyncio.sleep(0)
            assert await limiter.release("0")
            await waiter.has_it()
            assert [one.id for one in await limiter.holders()] == ["1", "next"]
            await waiter.leave()

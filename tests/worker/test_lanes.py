"""Which lanes a worker reads: those that come into being, without foreign and paused ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.envelope import Delivery, Envelope
from taskrunner.errors import RedisUnavailable
from taskrunner.store.keys import Keyspace
from taskrunner.store.store import Joined
from taskrunner.worker.fetcher import CALM, Fetcher
from taskrunner.worker.inventory import Inventory
from taskrunner.worker.lanes import Lanes
from tests.waiting import eventually

PARTITION = Keyspace("taskrunner", "test", 1).partitions[0]


class Server:
    """What a worker is told when it asks."""

    def __init__(self) -> None:
        self.lanes = {"mail"}
        self.foreign: list[str] = []
        self.paused: frozenset[str] = frozenset()
        self.asked: list[tuple[list[str], list[str]]] = []
        self.away = False
        self.options = SimpleNamespace(beat=1.0)
        self.partitions = (PARTITION,)

    async def prepare(self, partition: Any, lanes: Sequence[str], further: Sequence[str]) -> Joined:
        self.asked.append((list(lanes), list(further)))
        if self.away:
            raise RedisUnavailable("away")
        self.lanes |= set(lanes)
        return Joined([one for one in (*lanes, *further) if one in self.lanes], self.foreign, self.paused)


@pytest.fixture
def server() -> Any:
    return Server()


def lanes_of(server: Any, queues: Sequence[str] = ("mail",), inventory: Inventory | None = None) -> Lanes:
    return Lanes(server, PARTITION, queues, queues, inventory or Inventory(4))


async def test_a_lane_that_came_into_being_is_made_ones_own_and_never_forgotten(server: Any) -> None:
    lanes = lanes_of(server)
    await lanes.refresh()
    assert lanes.all == ("mail",)
    server.lanes.add("mail/low")
    await lanes.refresh()
    assert lanes.all == ("mail", "mail/low")
    server.lanes.clear()  # the server was emptied
    await lanes.refresh()
    assert server.asked[-1] == (["mail", "mail/low"], ["mail/first", "mail/high"])
    assert server.lanes == {"mail", "mail/low"}


async def test_those_who_follow_are_told_of_a_change_and_of_nothing_else(server: Any) -> None:
    lanes, told = lanes_of(server), list[str]()
    await lanes.refresh()
    lanes.followers.append(lambda: told.append("changed"))
    await lanes.refresh()
    assert told == []
    for change in ("lane", "paused", "foreign"):
        if change == "lane":
            server.lanes.add("mail/high")
        elif change == "paused":
            server.paused = frozenset({"mail"})
        else:
            server.foreign = ["mail"]
        await lanes.refresh()
        await lanes.refresh()
        assert told.pop() == "changed"
        assert told == []


@pytest.mark.parametrize(
    ("paused", "readable"),
    [
        ((), ("mail/high", "mail", "news")),
        (("mail",), ("news",)),
        (("news", "mail"), ()),
        (("*",), ()),
        (("other",), ("mail/high", "mail", "news")),
    ],
)
async def test_paused_queues_are_not_readable_in_any_of_their_lanes(
    server: Any, paused: tuple[str, ...], readable: tuple[str, ...]
) -> None:
    server.lanes.add("mail/high")
    server.paused = frozenset(paused)
    lanes = lanes_of(server, ("mail", "news"))
    await lanes.refresh()
    assert lanes.readable({"mail", "news"}) == readable
    assert lanes.of({"mail", "news"}) == ("mail/high", "mail", "news")


async def test_foreign_lanes_are_not_readable_and_are_told_once(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    server.foreign = ["news"]
    lanes = lanes_of(server, ("mail", "news"))
    for _ in range(3):
        await lanes.refresh()
    assert lanes.readable({"mail", "news"}) == ("mail",)
    assert [one.message for one in caplog.records] == ["foreign data under the keys of news: not read until it is gone"]


async def test_a_look_that_failed_is_made_up_for(server: Any) -> None:
    lanes = lanes_of(server)
    server.away = True
    lanes.wake.set()
    with pytest.raises(RedisUnavailable):
        await lanes.run()
    assert lanes.wake.is_set()


# -- fetchers -----------------------------------------------------------------------------------------------------


class Reader:
    """Gives what it has, once; and what comes while a fetch waits."""

    partition = PARTITION

    def __init__(self, *batches: list[Delivery]) -> None:
        self.shares: list[dict[str, int]] = []
        self.waited: list[tuple[str, ...]] = []
        self.batches = list(batches)

    async def fetch_shares(self, lanes: Any, shares: dict[str, int], count: int, giving_way: Any) -> list[Delivery]:
        self.shares.append(shares)
        return []

    async def fetch(self, lanes: Sequence[str], count: int) -> list[Delivery]:
        self.waited.append(tuple(lanes))
        return self.batches.pop(0) if self.batches else []


async def fetcher_of(server: Any, reader: Any, inventory: Inventory, **options: Any) -> tuple[Lanes, Fetcher]:
    lanes = lanes_of(server, ("mail", "news"), inventory)
    await lanes.refresh()
    keeper: Any = None
    return lanes, Fetcher(server, reader, lanes, ("mail", "news"), inventory, keeper, 100, **options)


def job(lane: str, number: int) -> Delivery:
    return Delivery(Envelope(f"{number}", "work", 1, 0, 1, {}, b"[]"), lane, 0, b"%d-1" % number, 1, 1e9)


async def test_what_several_lanes_bring_in_one_instant_goes_back_where_there_is_no_room(server: Any) -> None:
    inventory = Inventory(1)
    _, fetcher = await fetcher_of(server, Reader([job("mail", 1), job("news", 2)]), inventory)
    await fetcher._cycle()
    assert [one.queue for one in inventory.inbox.empty()] == ["mail"]
    assert [one.delivery.queue for one in inventory.outbox] == ["news"]


async def test_a_fetch_asks_without_waiting_first_and_waits_for_any_of_them_then(server: Any) -> None:
    reader = Reader()
    _, fetcher = await fetcher_of(server, reader, Inventory(4))
    await fetcher._cycle()
    assert reader.shares == [{"mail": 2, "news": 2}]
    assert reader.waited == [("mail", "news")]


class Streams(Reader):
    """A first lane, and one of which as many jobs come as are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Delivery] = []
        self.native = 0

    async def fetch_shares(self, lanes: Any, shares: dict[str, int], count: int, giving_way: Any) -> list[Delivery]:
        found, self.first = self.first, []
        return found + [job("mail", n) for n in range(count - len(found))]

    async def fetch(self, lanes: Sequence[str], count: int) -> list[Delivery]:
        self.native += 1
        found, self.first = self.first, []
        return found + [job("mail", n) for n in range(count)]


async def test_an_empty_first_lane_is_read_beside_the_other_one_without_a_script(server: Any) -> None:
    server.lanes = {"mail/first", "mail"}
    reader, inventory = Streams(), Inventory(4)
    lanes = lanes_of(server, ("mail",), inventory)
    await lanes.refresh()
    keeper: Any = None
    stream_reader: Any = reader
    fetcher = Fetcher(server, stream_reader, lanes, ("mail",), inventory, keeper, 100)

    async def cycle() -> list[str]:
        await fetcher._cycle()
        return [one.queue for one in inventory.empty_inbox()]

    for _ in range(CALM):
        assert await cycle() == ["mail"] * 4
    assert reader.native == 0
    assert await cycle() == ["mail"] * 4
    assert reader.native == 1
    reader.first = [job("mail/first", 9)]
    assert await cycle() == ["mail/first", "mail", "mail", "mail"]
    assert [one.delivery.queue for one in inventory.outbox] == ["mail"], "for which there is no room"
    await cycle()
    assert reader.native == 2, "there may be more, and the script knows whose turn it is"


async def test_a_pause_that_comes_while_it_asks_keeps_it_from_waiting(server: Any) -> None:
    reader = Reader()
    lanes, fetcher = await fetcher_of(server, reader, Inventory(4))

    async def asked(*arguments: Any) -> list[Delivery]:
        server.paused = frozenset({"mail"})
        await lanes.refresh()
        return []

    reader.fetch_shares = asked  # type: ignore[method-assign]
    await fetcher._cycle()
    assert reader.waited == []


# -- in a worker --------------------------------------------------------------------------------------------------


async def test_a_worker_leaves_no_consumer_in_any_lane(runner: TaskRunner, redis_client: redis.asyncio.Redis) -> None:
    @runner.task
    async def work() -> None: ...

    async with runner.start():
        jobs = [await work.with_options(priority=one).dispatch() for one in ("high", "low", "normal")]
        for one in jobs:
            await one.wait(timeout=20)
        partition = runner.session().store.partitions[0]
    for lane in ("default", "default/high", "default/low"):
        assert await redis_client.xinfo_consumers(partition.queue(lane).stream, "taskrunner") == []


async def test_an_emptied_server_gets_all_lanes_again(runner: TaskRunner, redis_client: redis.asyncio.Redis) -> None:
    @runner.task
    async def work(n: int) -> int:
        return n

    async with runner.start():
        low = work.with_options(priority="low")
        assert await (await low.dispatch(1)).result(timeout=20) == 1
        partition = runner.session().store.partitions[0]
        await redis_client.unlink(
            *[partition.queue(lane).stream for lane in ("default", "default/low")], partition.queues
        )
        await eventually(lambda: redis_client.exists(partition.queue("default/low").stream))
        assert await (await low.dispatch(2)).result(timeout=20) == 2

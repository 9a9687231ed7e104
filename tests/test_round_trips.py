"""Round trips are per batch and not per job. Counted by the server itself, from ``INFO``.

``commandstats`` counts what clients send, and also what a script calls while it runs. To tell them apart, a command
counts as sent when no script of ours calls it; what scripts call is read from their texts. ``EVALSHA``, ``EVAL``,
``XREADGROUP``, ``PING``, ``CLIENT …`` and ``SUBSCRIBE`` are all sent. A command that scripts call
can't be told from the same one sent by a client (``TIME``, once per connect), so where it matters the server's reads
from its sockets are counted as well: one for a request, two or three for one of several kilobytes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path

import pytest
import redis.asyncio

from taskrunner import JobContext, TaskRunner
from tests.servers import Server
from tests.waiting import eventually

JOBS = 10_000


def called_by_scripts() -> set[str]:
    """The commands that scripts call, as ``INFO commandstats`` names them. Without fetch.lua, which is for workers with
    several lanes, and would make every fetch here one of a script's."""
    called: set[str] = set()
    for script in (resources.files("taskrunner.store") / "scripts").iterdir():
        if script.name.endswith(".lua") and script.name != "fetch.lua":
            for name, argument in re.findall(r"call_?\('(\w+)'(?:, '(\w+)')?", script.read_text()):
                called |= {name.lower(), f"{name}|{argument}".lower()}
    return called


class Account:
    """What clients have sent to a server since the account was opened."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self._inside = called_by_scripts()
        self._before: dict[str, int] = {}
        self._reads_before = 0

    async def open(self) -> Account:
        self._before = await self._counts()
        self._reads_before = await self._reads()
        return self

    async def sent(self) -> dict[str, int]:
        """How often which command was sent, without those that this account itself has sent."""
        counts = await self._counts()
        sent = {name: count - self._before.get(name, 0) for name, count in counts.items()}
        return {name: count for name, count in sent.items() if count and name != "info"}

    async def reads(self) -> int:
        """How often the server has read from a socket."""
        return await self._reads() - self._reads_before

    async def _reads(self) -> int:
        return int((await self.client.info("stats"))["total_reads_processed"])

    async def _counts(self) -> dict[str, int]:
        figures = await self.client.info("commandstats")
        names = {name: name.removeprefix("cmdstat_") for name in figures}
        return {plain: figures[name]["calls"] for name, plain in names.items() if plain not in self._inside}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path / "server") as server:
        yield server


@pytest.fixture
async def account(server: Server) -> AsyncIterator[Account]:
    async with redis.asyncio.Redis.from_url(server.url, protocol=2, single_connection_client=True) as client:
        yield await Account(client).open()


@pytest.fixture
def make(server: Server, make_runner: Callable[..., TaskRunner]) -> Callable[..., TaskRunner]:
    def make(**options: object) -> TaskRunner:
        return make_runner(server.url, **{"reservation_timeout": 30, **options})

    return make


def test_the_account_knows_what_scripts_call() -> None:
    called = called_by_scripts()
    assert {"time", "xack", "xpending", "xgroup|delconsumer"} <= called
    assert not {"evalsha", "eval", "xreadgroup", "client|id", "ping"} & called


@pytest.mark.parametrize("ignore_result", [False, True], ids=["results kept", "results not kept"])
async def test_draining_ten_thousand_jobs_costs_fewer_than_600_commands(
    ignore_result: bool, make: Callable[..., TaskRunner], account: Account
) -> None:
    producer, consumer = make(), make()
    done, drained = 0, asyncio.Event()

    async def noop() -> None:
        nonlocal done
        done += 1
        if done == JOBS:
            drained.set()

    job = producer.task(ignore_result=ignore_result)(noop).job()
    consumer.task(ignore_result=ignore_result)(noop)
    await producer.dispatch_many([job] * JOBS)
    await producer.aclose()
    await account.open()
    async with consumer.start():
        await drained.wait()
        await eventually(lambda: _settled(consumer, JOBS))
    sent = await account.sent()
    assert 0 < sum(sent.values()) < 600, sent
    assert await account.reads() < 3 * 600


async def _none_pending(account: Account, runner: TaskRunner) -> bool:
    stream = runner.session().store.partitions[0].queue("default").stream
    return (await account.client.xpending(stream, "taskrunner"))["pending"] == 0


async def _settled(runner: TaskRunner, count: int) -> bool:
    stats = await runner.stats("default")
    return stats.per_task["noop"].succeeded == count


async def test_a_thousand_concurrent_dispatches_cost_fewer_than_20_commands(
    make: Callable[..., TaskRunner], account: Account
) -> None:
    producer = make()

    @producer.task
    async def noop(n: int) -> None: ...

    await asyncio.gather(*(noop.dispatch(n) for n in range(1000)))
    sent = await account.sent()
    assert 0 < sum(sent.values()) < 20, sent
    assert await account.reads() < 3 * 20
    assert (await producer.stats("default")).waiting == 1000


async def test_outcomes_of_jobs_that_finish_together_are_recorded_together(
    make: Callable[..., TaskRunner], account: Account
) -> None:
    runner = make(num_workers=400)
    release = asyncio.Event()
    running = 0

    @runner.task
    async def noop() -> None:
        nonlocal running
        running += 1
        await release.wait()

    async with runner.start():
        await runner.dispatch_many([noop.job()] * 400)
        await eventually(lambda: running == 400)
        await account.open()
        release.set()
        await eventually(lambda: _none_pending(account, runner))
        sent = await account.sent()
    # 400 outcomes are two batches of 200; the first may go out with what had finished by then.
    assert 0 < sum(sent.values()) < 15, sent


async def test_heartbeats_are_per_batch_and_not_per_job(make: Callable[..., TaskRunner], account: Account) -> None:
    runner = make(reservation_timeout=2, num_workers=200)
    release = asyncio.Event()
    running = 0

    @runner.task
    async def hold() -> None:
        nonlocal running
        running += 1
        await release.wait()

    async with runner.start():
        await eventually(lambda: runner.ready)
        await account.open()
        await asyncio.sleep(2)
        idle = await account.sent()
        await runner.dispatch_many([hold.job()] * 200)
        await eventually(lambda: running == 200)
        await asyncio.sleep(1)  # until the heartbeats include them
        await account.open()
        await asyncio.sleep(2)
        busy = await account.sent()
        release.set()
    # Four heartbeats in either time, and eight looks for silent workers; with slots that are full nothing is fetched.
    # One each for the jobs would be hundreds; a busy machine may wait longer than it was told to, and see some more.
    assert 0 < sum(busy.values()) < sum(idle.values()) + 20, (idle, busy)


async def test_an_idle_worker_sends_a_handful_of_commands(make: Callable[..., TaskRunner], account: Account) -> None:
    runner = make()
    async with runner.start():
        await eventually(lambda: runner.ready)
        began = time.monotonic()
        await account.open()
        await asyncio.sleep(3)
        sent = await account.sent()
        took = time.monotonic() - began
    # In 3 s: a fetch that waits 2 s on the server, once or twice; a look for silent workers, for due jobs, for what
    # workflows have left over, and for lost parts of them; and a script whose text the server has to be told first.
    assert sum(sent.values()) < 16 * took / 3, sent


@pytest.mark.leaves("schedules", "ticks", "fired")
async def test_firing_two_hundred_schedules_that_are_due_together_costs_a_handful_of_commands(
    make: Callable[..., TaskRunner], account: Account
) -> None:
    runner, ran = make(), set[str]()

    @runner.task(ignore_result=True)
    async def work(ctx: JobContext) -> None:
        ran.add(ctx.job_id)

    keys = runner.session().store.partitions[0]
    for n in range(200):
        await runner.schedule(f"s{n}", work.job(), every=3600)
    seconds, _ = await account.client.time()
    members = await account.client.zrange(keys.ticks, 0, -1)
    await account.client.zadd(keys.ticks, dict.fromkeys(members, seconds * 1000))
    await account.open()
    async with runner.start():
        await eventually(lambda: len(ran) == 200)
    sent = await account.sent()
    assert sum(sent.values()) < 60, sent

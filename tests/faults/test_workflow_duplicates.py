"""Workflows whose jobs are delivered twice, whose calls are sent twice, and on which several work at once: each
follower starts exactly once, and a group's callback too."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio

from taskrunner import JobStatus, TaskRunner, chain, group
from taskrunner.store.keys import Keyspace
from taskrunner.store.scripts import BEGIN, DELIVER, HALT, SETTLE, STAGE, UNFOLD, Script
from tests.faults.flow_checks import no_job_began_twice, nothing_is_under_way, over, store_of, view_of
from tests.faults.proxy import Proxy
from tests.faults.workshop import Fleet
from tests.servers import Server
from tests.waiting import eventually

MEMBERS = 1000
COPIED = 3
"""Each third member is delivered twice, each time with a token of its own: more than 30 %."""
PARTITIONS = 3
SLOTS = 10


@pytest.fixture
async def client(own_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with own_server.client() as client:
        yield client


# -- duplicate deliveries ----------------------------------------------------------------------------------------------


async def copy_entries(client: redis.asyncio.Redis, fleet: Fleet) -> int:
    """Puts a copy of each third entry into the stream. Its delivery is as good as the first one, and so is its outcome:
    the duplicate completion that makes a bare counter wrong."""
    rows = await client.xrange(fleet.stream)
    for _, fields in rows[::COPIED]:
        await client.xadd(fleet.stream, fields)
    return len(rows[::COPIED])


async def steal(client: redis.asyncio.Redis, fleet: Fleet) -> None:
    """Again and again gives some of the members that workers hold to a consumer that nobody is: what they make of them
    comes too late, and after a reservation others do it again."""
    [(newest, _)] = await client.xrevrange(fleet.stream, count=1)
    while True:
        held = await client.xpending_range(fleet.stream, "taskrunner", "-", newest, 5)
        mine = [one["message_id"] for one in held if one["consumer"] != b"nobody"]
        if mine:
            await client.xclaim(fleet.stream, "taskrunner", "nobody", 0, mine)
        await asyncio.sleep(0.2)


@pytest.mark.crash
@pytest.mark.parametrize("what", ["all run", "one is cancelled", "the group is cancelled", "one fails"])
async def test_a_groups_callback_comes_exactly_once_under_duplicates_and_kills(
    what: str, fleet: Fleet, client: redis.asyncio.Redis
) -> None:
    tasks = fleet.tasks
    failing = tasks.flows.refuse.job() if what == "one fails" else tasks.nap.job(0.02)
    members = [failing, *(tasks.nap.job(0.02) for _ in range(MEMBERS - 1))]
    then, otherwise = tasks.flows.last.job("then"), tasks.flows.last.job("on_failure")
    job = await fleet.runner.dispatch(group(*members, then=then, on_failure=otherwise))
    assert await copy_entries(client, fleet) >= 0.3 * MEMBERS
    first = (await view_of(fleet, job.id)).head["steps"][0][0]
    if what == "one is cancelled":
        assert await fleet.runner.job(f"{job.id}.{first + 1}").cancel()  # of which there is no copy
    stealing = asyncio.create_task(steal(client, fleet))
    victims = [await fleet.worker(num_workers=SLOTS) for _ in range(2)]
    await eventually(lambda: fleet.journal.count("end") > MEMBERS / 8)
    for victim in victims:
        victim.signal(signal.SIGKILL)
    if what == "the group is cancelled":
        assert await job.cancel()
    rescuers = [await fleet.worker(num_workers=SLOTS) for _ in range(2)]
    view = await over(fleet, job.id)
    stealing.cancel()
    await eventually(lambda: drained(client, fleet))
    for one in rescuers:
        await fleet.end(one)

    heads = {"all run": ("then", "s", "n"), "the group is cancelled": ("", "n", "n")}
    callback, *letters = heads.get(what, ("on_failure", "n", "s"))
    assert [view.states[view.head[name]] for name in ("then", "on_failure")] == letters
    called = [line.job for line in fleet.journal.lines("last")]
    assert len(set(called)) == len(called) == (1 if callback else 0)
    if callback:
        assert called == [f"{job.id}.{view.head[callback]}"]
        [at] = [line.at for line in fleet.journal.lines("last")]
        ended: dict[str, float] = {}
        for line in fleet.journal.lines("end"):
            ended.setdefault(line.job, line.at)
        assert len(ended) == MEMBERS - (what != "all run")
        assert at > max(ended.values()), "it came before all of them had ended"
    wanted = {"all run": "succeeded", "one fails": "failed"}.get(what, "cancelled")
    assert await job.status() == wanted
    await nothing_is_under_way(client, fleet)


async def drained(client: redis.asyncio.Redis, fleet: Fleet) -> bool:
    """Also of the copies, which nobody waits for."""
    return not await client.xlen(fleet.stream)


async def test_an_empty_group_calls_back_once(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    job = await fleet.runner.dispatch(group(then=fleet.tasks.flows.last.job()))
    assert await copy_entries(client, fleet) == 1
    async with fleet.runner.start():
        await over(fleet, job.id)
        await eventually(lambda: drained(client, fleet))
    assert {line.job for line in fleet.journal.lines("last")} == {f"{job.id}.2"}
    await nothing_is_under_way(client, fleet)


async def test_a_step_that_is_delivered_twice_is_followed_once(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    tasks = fleet.tasks
    job = await fleet.runner.dispatch(chain(tasks.quick.job(1), tasks.flows.last.job(), tasks.flows.step.job()))
    assert await copy_entries(client, fleet) == 1
    async with fleet.runner.start():
        assert await job.result(20) == 2
        await eventually(lambda: drained(client, fleet))
    assert len(fleet.journal.lines("end", job=f"{job.id}.0")) == 2, "it was not delivered twice"
    assert len(fleet.journal.lines("last")) == 1
    assert len(fleet.journal.lines("end", job=f"{job.id}.2")) == 1
    await nothing_is_under_way(client, fleet)


async def test_a_member_whose_end_is_told_twice_counts_once(fleet: Fleet, client: redis.asyncio.Redis) -> None:
    """As when the links come back from a copy of the data, or a reply of another partition does."""
    tasks = fleet.tasks
    members = group(tasks.quick.job(1), tasks.hold.job("gate"), then=tasks.flows.last.job())
    job = await fleet.runner.dispatch(members)
    [(_, fields), _] = await client.xrange(fleet.stream)
    link = await client.hget(fleet.keys.followers, f"{job.id}.2")
    async with fleet.runner.start():
        await tasks.seen(1, "start", job=f"{job.id}.3")
        await fleet.runner.job(f"{job.id}.2").wait(20)
        await client.hset(fleet.keys.followers, f"{job.id}.2", link)
        again = await client.xadd(fleet.stream, fields)
        await eventually(lambda: gone(client, fleet, again))
        assert (await view_of(fleet, job.id)).left == 3
        assert not tasks.journal.lines("last")
        tasks.open_gate("gate")
        await over(fleet, job.id)
    assert len(tasks.journal.lines("end", job=f"{job.id}.2")) == 2, "it was not told twice"
    assert len(tasks.journal.lines("last")) == 1
    await nothing_is_under_way(client, fleet)


async def gone(client: redis.asyncio.Redis, fleet: Fleet, entry: bytes) -> bool:
    return not await client.xrange(fleet.stream, entry, entry)


@pytest.mark.crash
async def test_the_late_outcome_of_a_step_changes_nothing_of_its_chain(fleet: Fleet) -> None:
    tasks = fleet.tasks
    job = await fleet.runner.dispatch(chain(tasks.block.job("gate"), tasks.flows.last.job()))
    zombie = await fleet.worker(num_workers=1)
    await tasks.seen(1, "start", pid=zombie.pid)
    zombie.signal(signal.SIGSTOP)
    async with fleet.runner.start():
        tasks.open_gate("gate")
        assert await job.result(20) == os.getpid()
        zombie.signal(signal.SIGCONT)
        await eventually(lambda: "1 outcomes were refused" in fleet.log(zombie))
        await fleet.end(zombie)
    assert len(tasks.journal.lines("end", job=f"{job.id}.0")) == 2, "there was no late outcome"
    assert len(tasks.journal.lines("last")) == 1
    assert await job.result(20) == os.getpid(), "the late value replaced the one that was handed on"


@pytest.mark.crash
async def test_the_late_outcome_of_a_step_that_another_worker_runs_does_not_start_the_next_one(fleet: Fleet) -> None:
    tasks = fleet.tasks
    job = await fleet.runner.dispatch(chain(tasks.rude.block_once.job("gate"), tasks.flows.last.job()))
    zombie = await fleet.worker(num_workers=1)
    await tasks.seen(1, "start", pid=zombie.pid)
    zombie.signal(signal.SIGSTOP)
    async with fleet.runner.start():
        await tasks.seen(1, "start", pid=os.getpid())
        tasks.open_gate("gate", zombie.pid)
        zombie.signal(signal.SIGCONT)
        await eventually(lambda: "1 outcomes were refused" in fleet.log(zombie))
        assert (await view_of(fleet, job.id)).states == "ow"
        assert not tasks.journal.lines("last")
        tasks.open_gate("gate")
        assert await job.result(20) == os.getpid()
        await fleet.end(zombie)
    assert len(tasks.journal.lines("last")) == 1


# -- calls that are sent twice -----------------------------------------------------------------------------------------


@pytest.fixture
def behind(proxy: Proxy, make_fleet: Callable[..., Fleet]) -> Fleet:
    """Reaches the server through the proxy."""
    return make_fleet(proxy.url, reservation_timeout=60)


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
@pytest.mark.parametrize("script", [BEGIN, STAGE, UNFOLD], ids=lambda script: script.name)
async def test_a_workflow_whose_dispatch_loses_a_reply_begins_once(
    script: Script, silent: bool, proxy: Proxy, behind: Fleet, client: redis.asyncio.Redis, short_timeouts: None
) -> None:
    tasks, values = behind.tasks, [f"{n:010000d}" for n in range(300)]
    async with behind.runner.start():  # so that the server knows the scripts, and they are called by their names
        await (await behind.runner.dispatch(group.map(tasks.quick, values))).results(40)
    loss = proxy.lose(script.sha, silent=silent)
    job = await behind.runner.dispatch(group.map(tasks.quick, values, then=tasks.flows.last.job(), id="own"))
    assert loss.lost == 1
    assert not job.deduplicated, "it was taken for another one of its id"
    async with behind.runner.start():
        assert await job.results(40) == values
        await over(behind, job.id)
    assert len(behind.journal.lines("start")) == 2 * 300
    assert len(behind.journal.lines("last")) == 1
    await nothing_is_under_way(client, behind)


async def test_an_end_whose_reply_is_lost_starts_the_followers_once(
    proxy: Proxy, behind: Fleet, client: redis.asyncio.Redis
) -> None:
    step = behind.tasks.flows.step
    async with behind.runner.start():
        await (await step.dispatch()).result(20)
        loss = proxy.lose(SETTLE.sha, times=3)
        job = await behind.runner.dispatch(chain(*[step.job() for _ in range(3)], group(step.job(), step.job())))
        assert await job.result(20) == [4, 4]
        assert loss.lost == 3
    no_job_began_twice(behind)
    assert (await behind.figures("step")).succeeded == 6
    await nothing_is_under_way(client, behind)


async def test_a_cancel_whose_reply_is_lost_tells_that_it_was_cancelled(proxy: Proxy, behind: Fleet) -> None:
    job = await behind.runner.dispatch(chain(behind.tasks.hold.job("gate"), behind.tasks.flows.last.job()))
    assert await (await behind.runner.dispatch(group(behind.tasks.quick.job()))).cancel()  # so that it is known
    loss = proxy.lose(HALT.sha)
    assert await job.cancel()
    assert loss.lost == 1
    assert await job.status() == JobStatus.CANCELLED


async def test_a_cancelled_chain_goes_no_further_though_nobody_has_told_what_waits(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels it dies before it can go on with that, and so do all others."""
    tasks = fleet.tasks

    async def nothing(keys: object) -> None:
        return None

    monkeypatch.setattr((await store_of(fleet)).workflows, "unfold", nothing)
    job = await fleet.runner.dispatch(chain(tasks.hold.job("gate"), tasks.flows.last.job()))
    async with fleet.runner.start():
        await tasks.seen(1, "start")
        assert await job.cancel()
        tasks.open_gate("gate")
        assert (await over(fleet, job.id)).states == "sn"
    assert await job.status() == JobStatus.CANCELLED
    assert not tasks.journal.lines("last")


async def test_what_a_courier_carries_twice_counts_once(
    proxy: Proxy, make_fleet: Callable[..., Fleet], client: redis.asyncio.Redis
) -> None:
    fleet = make_fleet(proxy.url, partitions=PARTITIONS)
    steps = [fleet.tasks.flows.step.with_options(lock_key=f"lock-{n}").job() for n in range(12)]
    async with fleet.runner.start():
        loss = proxy.lose(DELIVER.sha, times=6)
        job = await fleet.runner.dispatch(chain(*steps))
        assert await job.result(40) == len(steps)
        await over(fleet, job.id)
        assert loss.lost == 6
    no_job_began_twice(fleet)
    assert (await fleet.figures("step")).succeeded == len(steps)


# -- several at once ---------------------------------------------------------------------------------------------------


async def test_many_who_unfold_a_group_at_once_start_each_member_once(
    fleet: Fleet, make_runner: Callable[..., TaskRunner], client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await store_of(fleet)

    async def race(keys: object) -> None:
        stores = [store, *[(await make_runner(fleet.url).opened()).store for _ in range(3)]]
        await asyncio.gather(*(unfold_all(one) for one in stores for _ in range(2)))

    unfold = type(store.workflows).unfold

    async def unfold_all(one: object) -> None:
        while await unfold(one.workflows, one.partitions[0]) == 0:
            continue

    with monkeypatch.context() as patch:
        patch.setattr(store.workflows, "unfold", race)
        job = await fleet.runner.dispatch(group.map(fleet.tasks.quick, range(2 * MEMBERS)))
    assert await client.xlen(fleet.stream) == 2 * MEMBERS
    assert (await view_of(fleet, job.id)).states == "sw" + "o" * 2 * MEMBERS
    assert await job.cancel()


async def test_many_couriers_at_once_deliver_each_message_once(
    own_server: Server,
    make_fleet: Callable[..., Fleet],
    make_runner: Callable[..., TaskRunner],
    client: redis.asyncio.Redis,
) -> None:
    fleet = make_fleet(own_server.url, partitions=PARTITIONS)
    members = [fleet.tasks.flows.step.with_options(lock_key=f"lock-{n}").job() for n in range(120)]
    job = await fleet.runner.dispatch(group(*members, then=fleet.tasks.flows.last.job()))
    runners = [fleet.runner, *[make_runner(fleet.url, partitions=PARTITIONS) for _ in range(3)]]
    stores = [(await one.opened()).store for one in runners]

    async def deliver_all(store: object) -> None:
        for keys in store.partitions:
            while await store.outbox.deliver(keys):
                continue

    boxes = [
        keys.outbox(n) for keys in Keyspace("taskrunner", fleet.namespace, PARTITIONS).partitions for n in range(3)
    ]
    assert sum([await client.xlen(box) for box in boxes]) > 40, "nothing was to be delivered"
    await asyncio.gather(*(deliver_all(store) for store in stores for _ in range(2)))
    jobs = [await client.hlen(keys.live) for keys in stores[0].partitions]
    entries = [await client.xlen(keys.queue("default").stream) for keys in stores[0].partitions]
    assert sum(jobs) == sum(entries) == 120
    async with fleet.runner.start():
        assert await job.results(40) == [1] * 120
        await over(fleet, job.id)
    assert len(fleet.journal.lines("last")) == 1
    no_job_began_twice(fleet)

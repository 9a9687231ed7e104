"""The table of keys in store/keys.py is what really stands in the server, type by type and lifetime by lifetime."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from taskrunner import (
    Backoff,
    GroupJob,
    Job,
    JobContext,
    JobStatus,
    Rate,
    Snooze,
    Task,
    TaskOptionError,
    TaskRunner,
    chain,
    group,
)
from taskrunner.features.unique import digest
from taskrunner.needs import Permit, Seat
from taskrunner.needs import digest as key_digest
from taskrunner.options import NAME, name
from taskrunner.store import keys as module
from taskrunner.store.keys import EXPIRING, KINDS, PERMANENT, Keyspace
from taskrunner.store.scripts import STAGE
from taskrunner.store.workflows import STAGED
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
ROW = re.compile(r"    (\S+)\s+(stream|zset|hash|set|string|list)\s+(\S.*?)\s{2,}(\S.*?)\s{2,}(\S.*)")


def table() -> dict[str, tuple[str, str]]:
    """Beginning of the name → type and lifetime, from the docstring."""
    assert module.__doc__ is not None
    rows = [match.groups() for line in module.__doc__.splitlines() if (match := ROW.fullmatch(line))]
    return {re.sub("[A-Z]+$", "", name): (kind, lifetime) for name, kind, lifetime, *_ in rows}


def row_of(name: str) -> str | None:
    found = [row for row in table() if (name.startswith(row) if row.endswith(":") else name == row)]
    return found[0] if found else None


async def nothing_to_do(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting == stats.scheduled == 0


async def is_in(job: Job[Any], status: JobStatus) -> bool:
    return await job.status() is status


async def large_workflow(runner: TaskRunner, member: Task[..., Any], seen: Callable[[], Any]) -> GroupJob[Any]:
    """One whose dispatcher dies behind its first step, and a part of another one, whose dispatcher has died before."""
    store = (await runner.opened()).store
    keys = store.partitions[0]
    await store.control(keys).run(STAGE, [keys.staged("token")], [STAGED, 1, "i:0", ""])
    with mock.patch.object(store.workflows, "unfold", mock.AsyncMock(return_value=None)):
        job = await runner.dispatch(group(*(member.job() for _ in range(300))))
    await seen()
    return job


async def busy_run(runner: TaskRunner, seen: Callable[[], Any]) -> None:
    """Every kind of job, and every way in which one can end or wait; ``seen`` is called while all of it goes on."""
    go, holding = asyncio.Event(), asyncio.Event()

    @runner.task(unique=True, unique_for=60, reservation_timeout=3)
    async def hold() -> None:
        await go.wait()

    @runner.task(unique="latest")
    async def follow() -> None:
        await go.wait()

    @runner.task(max_retry=1, backoff=Backoff.constant(1))
    async def bad(ctx: JobContext) -> None:
        await ctx.save(ctx.attempt)
        await ctx.progress(ctx.attempt, 2)
        raise ValueError

    @runner.task(queue="mail")
    async def snooze(ctx: JobContext) -> None:
        if not go.is_set():
            raise Snooze(0.05)

    @runner.task
    async def tick() -> None: ...

    @runner.task(lock_key="one")
    async def locked() -> None:
        holding.set()
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    @runner.task(rate_limit=Rate(1, per=60))
    async def rare() -> None: ...

    limiter = runner.limiter("places", limit=1, timeout=60)

    async def hold_a_slot() -> None:
        async with limiter.slot("any"):
            await go.wait()

    @runner.task(unique=True)
    async def member(number: int) -> None:
        await go.wait()

    large = await large_workflow(runner, tick, seen)
    runner.on_long_queue(threshold=0.2)(lambda stats: None)
    async with runner.start():
        slots = [asyncio.create_task(hold_a_slot()) for _ in range(2)]
        await runner.schedule("often", tick.job(), every=0.05, lock_key="one")
        await runner.pause("nobodys")
        jobs: list[Job[Any]] = [await task.dispatch() for task in (hold, bad, snooze, follow, follow)]
        jobs.append(await snooze.with_options(id="mine", delay=0.1, expires=60).dispatch())
        jobs.append(await snooze.with_options(delay=0.1, expires=0.01).dispatch())
        jobs.append(await snooze.with_options(delay=60).dispatch())
        assert await jobs[-1].cancel()
        jobs += [await task.dispatch() for task in (locked, locked, rare, rare)]
        await holding.wait()  # a job that a worker has, but whose function has not begun, would be dropped
        assert await jobs[-4].cancel(), "its run goes on"
        await eventually(lambda: is_in(jobs[-1], JobStatus.SCHEDULED))
        assert await jobs[-1].cancel()
        jobs.append(await locked.with_options(lock_key="nobody else's").dispatch())
        # Of so many keys some are in another partition than the workflow, if there are several.
        members = group(*(chain(member.job(n), tick.job()) for n in range(20)), tick.with_options(id="named").job())
        workflows = [large, await runner.dispatch(chain(members, tick.job()))]
        waiting = [asyncio.create_task(job.wait(timeout=20)) for job in [*jobs, *workflows]]
        await eventually(lambda: is_in(jobs[1], JobStatus.RETRYING))
        for _ in range(10):
            await seen()
            await asyncio.sleep(0.03)
        go.set()
        await asyncio.gather(*waiting, *slots)
        await runner.unschedule("often")
        await runner.resume("nobodys")
        await eventually(lambda: nothing_to_do(runner))
        await seen()
    await seen()


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("partitions", [1, 3])
async def test_every_key_of_a_busy_run_is_in_the_table_with_its_type(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, partitions: int
) -> None:
    runner = make_runner(partitions=partitions)
    kinds: dict[str, str] = {}

    async def seen() -> None:
        async for key in redis_client.scan_iter(match=f"*{namespace}*", count=1000):
            prefix, _, name = key.decode().partition("}:")
            assert re.fullmatch(rf"taskrunner:{{{namespace}\.\d", prefix), key
            kind = (await redis_client.type(key)).decode()
            if kind != "none":
                kinds[name] = kind

    await busy_run(runner, seen)
    rows = {name: row_of(name) for name in kinds}
    assert [name for name, row in rows.items() if row is None] == []
    assert {row: kinds[name] for name, row in rows.items()} == {row: table()[row or ""][0] for row in rows.values()}
    alone = {"outbox:", "received"} if partitions == 1 else set[str]()
    assert set(rows.values()) == set(table()) - alone, "and every row was seen"


@pytest.mark.leaves("dead")
async def test_after_a_drain_only_the_permanent_keys_stay_without_an_end(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner = make_runner()
    await busy_run(runner, lambda: eventually(lambda: True))
    await runner.aclose()
    stays = set[str]()
    async for key in redis_client.scan_iter(match=f"*{namespace}*", count=1000):
        if await redis_client.pttl(key) < 0:
            stays.add(key.decode().partition("}:")[2])
    dead = {"dead:default", "dead-letters:default", "dead-tasks:default"}
    assert dead <= stays
    assert all(name.startswith(PERMANENT) for name in stays - dead)


def test_the_permanent_set_is_that_of_the_table() -> None:
    permanent = {row for row, (_, lifetime) in table().items() if lifetime.startswith("permanent")}
    assert permanent == set(PERMANENT)


def test_the_kinds_and_those_that_expire_are_those_of_the_table() -> None:
    assert {row: kind for row, (kind, _) in table().items()} == KINDS
    assert module.__doc__ is not None
    rows = [line for line in module.__doc__.splitlines() if line.endswith("expiry")]
    ended = {re.sub("[A-Z]+$", "", row.split()[0]) for row in rows}
    assert ended == set(EXPIRING)


def test_the_page_for_operators_names_the_same_permanent_keys() -> None:
    page = Path(__file__).parents[2] / "docs" / "internals.md"
    if not page.exists():
        pytest.skip("the page is not written yet")
    text = page.read_text()
    assert [row for row in PERMANENT if row not in text] == []


# -- partitions -----------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.integers(1, 50))
def test_a_jobs_partition_is_always_the_same_one_of_those_there_are(text: str, partitions: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    number = Keyspace("p", "n", partitions).partition_of(text)
    assert 0 <= number < partitions
    assert Keyspace("p", "n", partitions).partition_of(text) == number


def test_jobs_spread_over_the_partitions() -> None:
    keyspace = Keyspace("p", "n", 4)
    counts = [0] * 4
    for n in range(4000):
        counts[keyspace.partition_of(f"job {n}")] += 1
    assert min(counts) > 800


names = st.from_regex(NAME, fullmatch=True)
hostile = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}:*?[]%\\./ \r\n\0"), min_size=1)


@given(names, names, names, hostile, hostile, st.integers(1, 5))
def test_all_keys_of_a_partition_are_in_one_slot_whatever_the_users_names_are(
    prefix: str, namespace: str, queue: str, id: str, key: str, partitions: int
) -> None:
    for number, keys in enumerate(Keyspace(prefix, namespace, partitions).partitions):
        of_ids = [keys.job(id), keys.unique(digest(id, key.encode())), keys.period(digest(id, key.encode()))]
        of_queue = keys.queue(queue).all
        fixed = [keys.live, keys.watchers, keys.queues, keys.workers, keys.worker_facts, keys.janitor, keys.leader]
        fixed += [keys.outlived, *keys.needed(f"{Seat(key_digest('lock', key), 1)},{Permit('0' * 32, 1.0, 1)}")]
        slots = {key_slot(one.encode()) for one in [*of_ids, *of_queue, *fixed, keys.batch("c"), keys.wake]}
        assert slots == {key_slot(f"{namespace}.{number}".encode())}


@given(hostile, hostile)
def test_a_users_key_never_stands_in_a_key(task: str, key: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", digest(task, key.encode()))


@given(hostile | st.text(st.sampled_from("ab.{}:*? \n"), min_size=1, max_size=4))
def test_what_becomes_part_of_a_key_has_no_sign_that_means_something(text: str) -> None:
    try:
        assert name(text, "queue") == text
    except TaskOptionError:
        assert not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", text)
    else:
        assert not set(text) & set("{}:*?[]%\\/ \r\n\0")


def test_all_keys_of_a_partition_share_one_hash_tag() -> None:
    for number, keys in enumerate(Keyspace("prefix", "name", 2).partitions):
        names = [
            keys.live,
            keys.job("{x}"),
            keys.unique("d"),
            keys.period("d"),
            keys.batch("c"),
            keys.queue("q").stream,
        ]
        tags = {re.search(r"\{(.*?)\}", name).group(1) for name in names}  # type: ignore[union-attr]
        assert tags == {f"name.{number}"}

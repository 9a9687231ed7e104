"""What becomes of schedules when runners stop, start, change and multiply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobContext, TaskOptionError, TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys
from tests.features.scheduling import LEFT, ended, fired, make_due, only, ticks_of
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
pytestmark = pytest.mark.leaves(*LEFT)


async def names(runner: TaskRunner) -> list[str]:
    return [one.name for one in await runner.schedules()]


async def has(runner: TaskRunner, *expected: str) -> bool:
    return await names(runner) == list(expected)


def declaring(make_runner: MakeRunner, *declared: str, **options: Any) -> TaskRunner:
    """A runner that declares schedules of these names."""
    runner = make_runner(**options)
    for name in declared:
        runner.every(3600, name=name)(_nothing)
    return runner


async def _nothing() -> None: ...


# -- catching up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "expected"), [("latest", [2]), ("all", [0, 1, 2]), ("skip", [])])
async def test_ticks_that_were_missed_while_nobody_consumed_follow_the_policy(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys, policy: Any, expected: list[int]
) -> None:
    ran = list[str]()

    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    runner = make_runner()
    runner.every(3600, catch_up=policy)(work)
    async with runner.start():
        await eventually(lambda: has(runner, "work"))
    first = await make_due(redis_client, keys, "work")
    # The grid is counted from its anchor, so three missed ticks are made by moving that into the past.
    text = await redis_client.hget(keys.schedules, "work")
    head, _, body = text.partition(b"\n")
    revision, timing, state, _, lock = head.split(b" ")
    anchor = first - 2 * 3_600_000 - 1_800_000
    moved = b" ".join([revision, timing, state, b"%d" % anchor, lock])
    await redis_client.hset(keys.schedules, "work", moved + b"\n" + body)
    await redis_client.delete(keys.ticks)
    await redis_client.zadd(keys.ticks, {b"work\n%b %d" % (revision, anchor): anchor})
    restarted = make_runner()
    restarted.every(3600, catch_up=policy)(work)
    async with restarted.start():
        following = datetime.fromtimestamp((anchor + 3 * 3_600_000) / 1000, UTC)
        await eventually(lambda: _next_is(restarted, following))
        await eventually(lambda: len(ran) == len(expected))
    assert ticks_of(ran) == [anchor + n * 3_600_000 for n in expected]


async def _next_is(runner: TaskRunner, expected: datetime) -> bool:
    return (await only(runner)).next_fire == expected


async def test_a_restart_keeps_the_next_tick(make_runner: MakeRunner) -> None:
    found = list[Any]()
    for _ in range(3):
        runner = declaring(make_runner, "a")
        async with runner.start():
            await eventually(lambda runner=runner: has(runner, "a"))
            found.append(await only(runner))
        await runner.aclose()
    assert found[0] == found[1] == found[2]


# -- deploys ---------------------------------------------------------------------------------------------------------


async def test_a_deploy_that_changes_a_schedule_takes_effect_once_and_the_old_one_is_gone(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    ran = list[tuple[str, str]]()
    old, new = make_runner(), make_runner()

    def version(runner: TaskRunner, label: str, every: float) -> None:
        @runner.every(every, name="work", max_retry=int(label))
        async def work(ctx: JobContext) -> None:
            ran.append((ctx.job_id, ctx.job_id.partition("@")[0]))

    version(old, "1", 3600)
    version(new, "2", 7200)
    async with old.start():
        await eventually(lambda: has(old, "work"))
        async with new.start():
            schedule = await eventually(lambda: _every(new, 7200.0))
            tick = await make_due(redis_client, keys, "work")
            await eventually(lambda: fired(new, tick))
            assert (await only(old)).every == 7200.0, "and the old runner brings nothing back while it still runs"
            await eventually(lambda: ran)
    assert schedule.next_fire is not None
    assert [id for id, _ in ran] == [f"work@{tick}"]
    assert await redis_client.zcard(keys.ticks) == 1


async def _every(runner: TaskRunner, every: float) -> Any:
    schedule = await only(runner)
    return schedule if schedule.every == every else None


async def test_what_is_declared_no_more_stays_unless_it_is_asked_to_go(make_runner: MakeRunner) -> None:
    first = declaring(make_runner, "a", "b")
    async with first.start():
        await eventually(lambda: has(first, "a", "b"))
    await first.schedule("by-hand", first.tasks["a"].job(), every=60)
    second = declaring(make_runner, "b", "c")
    async with second.start():
        await eventually(lambda: has(second, "a", "b", "by-hand", "c"))
    third = declaring(make_runner, "c")
    async with third.start(prune_schedules=True):
        await eventually(lambda: has(third, "by-hand", "c"))
    last = declaring(make_runner, prune_schedules=True)
    async with last.start(prune_schedules=False):
        await asyncio.sleep(0.1)
        assert await names(last) == ["by-hand", "c"]
    async with last.start():
        await eventually(lambda: has(last, "by-hand"))


def test_pruning_is_asked_for_by_true_and_nothing_else(make_runner: MakeRunner) -> None:
    with pytest.raises(TaskOptionError, match="prune_schedules"):
        make_runner(prune_schedules="yes")
    with pytest.raises(TaskOptionError, match="prune_schedules"):
        make_runner().start(prune_schedules=1)  # type: ignore[arg-type]


async def test_what_somebody_removed_stays_away_while_its_runner_goes_on(make_runner: MakeRunner) -> None:
    runner = declaring(make_runner, "a", "b")
    async with runner.start():
        await eventually(lambda: has(runner, "a", "b"))
        for name in ("a", "b"):
            assert await runner.unschedule(name)
        runner.session().on_gap()  # type: ignore[misc]  # it looks at everything again
        await asyncio.sleep(0.2)
        assert await names(runner) == []


async def test_an_emptied_server_gets_its_schedules_back(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.worker.scheduler.LONGEST_SLEEP", 0.05)
    runner = declaring(make_runner, "a")
    async with runner.start():
        await eventually(lambda: has(runner, "a"))
        found = [key async for key in redis_client.scan_iter(match=f"*{namespace}*", count=1000)]
        await redis_client.delete(*found)
        await eventually(lambda: has(runner, "a"))


# -- many runners and partitions ---------------------------------------------------------------------------------------


async def test_many_runners_fire_each_tick_once(make_runner: MakeRunner) -> None:
    ran, runners = list[str](), [make_runner() for _ in range(5)]

    async def work(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    for runner in runners:
        runner.every(0.05, catch_up="all")(work)
    contexts = [runner.start() for runner in runners]
    for context in contexts:
        await context.__aenter__()
    await eventually(lambda: len(ran) >= 30)
    await runners[0].unschedule("work")
    for context in contexts:
        await context.__aexit__(None, None, None)
    ticks = ticks_of(ran)
    assert len(ticks) == len(set(ticks))
    assert ticks == list(range(ticks[0], ticks[-1] + 1, 50))


@pytest.mark.parametrize("unique", [False, True])
async def test_three_partitions_fire_each_tick_once_and_leave_nothing_behind(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str, unique: bool
) -> None:
    ran = list[str]()

    async def work(ctx: JobContext, n: int) -> None:
        ran.append(ctx.job_id)

    runners = [make_runner(partitions=3) for _ in range(2)]
    for runner in runners:
        runner.task(work)
    async with runners[0].start(), runners[1].start():
        for n in range(6):  # of unique jobs some go to each partition
            spec = runners[0].tasks["work"].with_options(unique=unique).job(n)
            await runners[0].schedule(f"s{n}", spec, every=0.1, catch_up="all")
        await eventually(lambda: len(ran) >= 60)
        for n in range(6):
            assert await runners[1].unschedule(f"s{n}")
        await eventually(lambda: _idle(runners[0]))
    assert len(ran) == len(set(ran))
    for n in range(6):
        ticks = ticks_of([id for id in ran if id.startswith(f"s{n}@")])
        missing = set(range(ticks[0], ticks[-1] + 1, 100)) - set(ticks)
        assert not missing or unique, "a unique job that runs is not fired again"
    for keys in Keyspace("taskrunner", namespace, 3).partitions:
        assert not await redis_client.exists(keys.schedules, keys.ticks, keys.schedule_locks)


async def _idle(runner: TaskRunner) -> bool:
    stats = await runner.stats()
    return stats.waiting == stats.scheduled == 0


async def test_a_spec_that_moves_to_another_partition_leaves_no_ghost(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner, ran = make_runner(partitions=3), list[tuple[str, int]]()

    @runner.task(unique=True)
    async def work(ctx: JobContext, n: int) -> None:
        ran.append((ctx.job_id, n))

    keys = Keyspace("taskrunner", namespace, 3).partitions[0]
    ticks = list[int]()
    async with runner.start():
        for n in range(6):
            await runner.schedule("s", work.job(n), every=3600)
            assert await redis_client.zcard(keys.ticks) == 1
            tick = await make_due(redis_client, keys, "s")
            ticks.append(tick)
            await eventually(lambda n=n: len(ran) == n + 1)
            await eventually(lambda tick=tick: ended(runner, f"s@{tick}"))
            await eventually(lambda tick=tick: fired(runner, tick))
    assert ran == [(f"s@{tick}", n) for n, tick in enumerate(ticks)]

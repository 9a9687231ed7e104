"""Schedules under faults: each tick is fired exactly once, whoever is killed, frozen or wrong about the time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest
import redis.asyncio

from taskrunner.failpoints import VARIABLE
from tests.faults.clock import Clock
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

pytestmark = [pytest.mark.crash, pytest.mark.leaves("schedules", "ticks", "fired")]

SECONDS = float(os.environ.get("TASKRUNNER_SCHEDULE_SECONDS", "12"))
"""How long the storm lasts; a minute for a look that is closer than each change of the code needs."""
DEADLINE = 40.0


async def begin(fleet: Fleet, every: float, catch_up: str = "all") -> int:
    """Makes a schedule of quick jobs. Returns the first tick in ms."""
    made = await fleet.runner.schedule("s", fleet.tasks.quick.job(), every=every, catch_up=catch_up)  # type: ignore[arg-type]
    assert made.next_fire is not None
    return round(made.next_fire.timestamp() * 1000)


def ticks(fleet: Fleet, *events: str) -> list[int]:
    """The ticks whose jobs have done this, each once."""
    return sorted({int(line.job.partition("@")[2]) for line in fleet.journal.lines(*(events or ("end",)))})


async def passed(fleet: Fleet, count: int) -> list[int]:
    """Waits until so many ticks have been fired and their jobs have run."""
    found: list[int] = await eventually(lambda: len(found := ticks(fleet)) >= count and found, DEADLINE)
    return found


async def check(fleet: Fleet, first: int, every: float) -> list[int]:
    """Ends the schedule, and looks whether each tick was fired exactly once."""
    schedule = next(one for one in await fleet.runner.schedules() if one.name == "s")
    assert await fleet.runner.unschedule("s")
    assert schedule.last_fire is not None
    await eventually(partial(idle, fleet), DEADLINE)
    ran, step = ticks(fleet), round(every * 1000)
    assert ran == list(range(first, ran[-1] + 1, step)), "none is missing"
    assert ran[-1] >= round(schedule.last_fire.timestamp() * 1000)
    assert (await fleet.figures("quick")).succeeded == len(ran), "and there was no second job of any"
    return ran


async def idle(fleet: Fleet) -> bool:
    stats = await fleet.runner.stats("default")
    return stats.waiting == stats.running == stats.scheduled == 0


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 150)
async def test_eight_runners_that_are_killed_and_restarted_fire_each_tick_exactly_once(fleet: Fleet) -> None:
    chance, workers = random.Random(8), list[Program]()
    for _ in range(8):
        workers.append(await fleet.worker(num_workers=4))
    first = await begin(fleet, 1.0)
    end, killed = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or killed < 3:
        await asyncio.sleep(chance.uniform(0.1, 1.2))
        victim = workers.pop(chance.randrange(len(workers)))
        victim.signal(signal.SIGKILL)
        await victim.ended()
        killed += 1
        workers.append(await fleet.worker(num_workers=4))
    ran = await check(fleet, first, 1.0)
    assert len(ran) >= SECONDS * 0.8
    for worker in workers:
        await fleet.end(worker)


async def test_while_one_runner_is_frozen_the_other_fires_and_then_no_old_tick_comes_back(fleet: Fleet) -> None:
    frozen, other = [await fleet.worker() for _ in range(2)]
    first = await begin(fleet, 0.5)
    before = len(await passed(fleet, 2))
    frozen.signal(signal.SIGSTOP)
    await passed(fleet, before + 4)
    frozen.signal(signal.SIGCONT)
    await passed(fleet, before + 7)
    await check(fleet, first, 0.5)
    for worker in (frozen, other):
        await fleet.end(worker)


@pytest.mark.parametrize("point", ["before_fire", "after_fire"])
async def test_a_runner_that_dies_while_it_fires_leaves_that_tick_to_another(fleet: Fleet, point: str) -> None:
    victim = await fleet.worker(environment={VARIABLE: f"{point}=kill@3"})
    first = await begin(fleet, 0.3)
    assert await victim.ended(DEADLINE) == -signal.SIGKILL
    other = await fleet.worker()
    await passed(fleet, 6)
    await check(fleet, first, 0.3)
    await fleet.end(other)


async def test_a_runner_that_falls_asleep_between_deciding_and_firing_fires_nothing_twice(fleet: Fleet) -> None:
    sleepy = await fleet.worker(environment={VARIABLE: "before_fire=sleep:2@2"})
    other = await fleet.worker()
    first = await begin(fleet, 0.4)
    await eventually(lambda: "reached failpoint before_fire" in fleet.log(sleepy), DEADLINE)
    seen = len(ticks(fleet))
    await passed(fleet, seen + 8)
    await check(fleet, first, 0.4)
    for worker in (sleepy, other):
        await fleet.end(worker)


async def test_a_server_that_is_restarted_on_the_tick_loses_and_doubles_none(
    persistent_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(persistent_server.url)
    workers = [await fleet.worker() for _ in range(2)]
    first = await begin(fleet, 0.5)
    for n in range(3):
        seen = await passed(fleet, 2 * n + 2)
        # As near to the next tick as can be, on this side of it or on that.
        await asyncio.sleep(max(0.0, (seen[-1] + 500) / 1000 - time.time() + (n - 1) * 0.01))
        persistent_server.kill()
        await persistent_server.start()
    await passed(fleet, 10)
    await check(fleet, first, 0.5)
    for worker in workers:
        await fleet.end(worker)


# -- summer and winter time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "text", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T01:00Z"),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:30Z"),
        ("America/New_York", "30 2 * * *", "2026-03-08T07:00Z"),
        ("America/New_York", "30 1 * * *", "2026-11-01T05:30Z"),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T14:45Z"),
        ("Antarctica/Troll", "30 1 * * *", "2026-03-29T01:00Z"),
        ("Antarctica/Troll", "30 1 * * *", "2026-10-24T23:30Z"),
    ],
)
async def test_a_time_that_is_skipped_or_repeats_when_the_clocks_change_is_fired_once(
    clock: Clock, clocked_server: Server, make_fleet: Callable[..., Fleet], zone: str, text: str, expected: str
) -> None:
    at = datetime.fromisoformat(expected)
    clock.step(at.timestamp() - 1 - time.time())
    fleet = make_fleet(clocked_server.url)
    async with fleet.runner.start():
        made = await fleet.runner.schedule("s", fleet.tasks.quick.job(), cron=text, tz=zone, catch_up="all")
        assert made.next_fire == at
        await passed(fleet, 1)
        for _ in range(6):
            clock.step(1800)
            await eventually(partial(stands_ahead, fleet, clock), DEADLINE)
        [after] = await fleet.runner.schedules()
        assert after.last_fire == at
        assert after.next_fire is not None
        assert after.next_fire > at + timedelta(hours=20)
        await eventually(partial(idle, fleet), DEADLINE)
    assert ticks(fleet, "start") == [round(at.timestamp() * 1000)]


# -- clocks ----------------------------------------------------------------------------------------------------------


async def test_runners_with_wrong_clocks_fire_by_that_of_the_server(
    clock: Clock, fleet: Fleet, own_server: Server
) -> None:
    clock.step(86_400)
    ahead = await fleet.worker(environment=clock.environment)
    first = await begin(fleet, 0.3)
    await passed(fleet, 3)
    clock.step(-2 * 86_400)
    right = await fleet.worker()
    await passed(fleet, 8)
    async with own_server.client() as client:
        now = await server_now(client)
    ran = await check(fleet, first, 0.3)
    assert first <= ran[0]
    assert ran[7] <= now
    for worker in (ahead, right):
        await fleet.end(worker)


async def server_now(client: redis.asyncio.Redis) -> int:
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def test_a_server_clock_that_is_set_forward_and_back_fires_no_tick_twice(
    clock: Clock, clocked_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(clocked_server.url)
    worker = await fleet.worker()
    await begin(fleet, 20.0, "latest")
    for step in (61, -30, 35, -40, 65):
        clock.step(step)
        await eventually(partial(stands_ahead, fleet, clock), DEADLINE)
    await eventually(partial(idle, fleet), DEADLINE)
    assert await fleet.runner.unschedule("s")
    starts = [line.job for line in fleet.journal.lines("start")]
    assert len(starts) == len(set(starts))
    assert len(starts) >= 2
    await fleet.end(worker)


async def stands_ahead(fleet: Fleet, clock: Clock) -> bool:
    """Whether all that is due by the clock as it stands has been fired."""
    [schedule] = await fleet.runner.schedules()
    return schedule.next_fire is not None and schedule.next_fire.timestamp() > time.time() + clock.offset

"""What tests of schedules share: ticks that are due when a test says so, and a look at what stands in the server."""

from __future__ import annotations

from datetime import UTC, datetime

import redis.asyncio

from taskrunner import JobStatus, Schedule, TaskRunner
from taskrunner.store.keys import PartitionKeys

LEFT = ("schedules", "ticks", "fired", "schedule-locks")
"""Keys that stay as long as there are schedules."""


async def make_due(client: redis.asyncio.Redis, keys: PartitionKeys, name: str, ago: float = 0.0) -> int:
    """Lets the next tick of a schedule be so many seconds ago. Returns that instant in ms."""
    seconds, micros = await client.time()
    tick = int(seconds) * 1000 + int(micros) // 1000 - round(ago * 1000)
    [member] = [one for one in await client.zrange(keys.ticks, 0, -1) if one.startswith(name.encode() + b"\n")]
    await client.zadd(keys.ticks, {member: tick})
    await client.publish(keys.wake, "schedule")
    return tick


async def only(runner: TaskRunner) -> Schedule:
    """The schedule that there is."""
    [schedule] = await runner.schedules()
    return schedule


async def fired(runner: TaskRunner, tick: int) -> bool:
    """Whether the only schedule has fired this tick."""
    return (await only(runner)).last_fire == datetime.fromtimestamp(tick / 1000, UTC)


async def ended(runner: TaskRunner, id: str) -> bool:
    """Whether a job has."""
    return await runner.job(id).status() in (JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.EXPIRED)


def ticks_of(ids: list[str]) -> list[int]:
    """The instants in the ids of jobs, in ms."""
    return sorted(int(id.rpartition("@")[2]) for id in ids)

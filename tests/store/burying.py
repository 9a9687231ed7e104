"""Dead letters for tests: of jobs that failed, and as many as one likes, written as the scripts write them."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from taskrunner.envelope import KEPT, TRACKED, Delivery, Draft, Envelope
from taskrunner.outcome import Failed, Failure
from taskrunner.store import wire
from taskrunner.store.graveyard import Grave, Graveyard
from taskrunner.store.keys import PartitionKeys, QueueKeys
from tests.store.conftest import Place

FAILED = Failed(Failure("ValueError", "bad", "trace"), "no retries left")
CHUNK = 1000


async def fail(place: Place, *drafts: Draft) -> None:
    """Dispatches jobs, and has them fail for good."""
    assert await place.dispatch(*drafts) == {}
    await place.settle("one", *((arrival, FAILED) for arrival in await place.fetch()))


async def graveyard(place: Place, worker: str = "one") -> Graveyard:
    return Graveyard(await place.store(worker))


async def the_grave(place: Place, id: str) -> Grave:
    [grave] = await (await graveyard(place)).find(id)
    return grave


async def bring_back(place: Place, *graves: Grave, worker: str = "one") -> dict[int, str]:
    """What a dispatch of these dead letters says."""
    drafts = [grave.draft(await place.now()) for grave in graves]
    return await place.dispatch(*drafts, worker=worker)


def record(id: str, task: str, at: int, queue: str = "default", payload: bytes = b"[[1]]", **extras: Any) -> bytes:
    envelope = Envelope(id, task, at, TRACKED | KEPT, 3, extras, payload)
    return wire.bury(Delivery(envelope, queue, 0, b"1-1", 1, 0.0), FAILED, at)[1]


async def bury(
    client: redis.asyncio.Redis, partition: PartitionKeys, names: QueueKeys, *letters: tuple[str, str, int]
) -> None:
    """Writes dead letters: id, task, instant in ms."""
    await client.sadd(partition.queues, names.queue)
    for start in range(0, len(letters), CHUNK):
        some = letters[start : start + CHUNK]
        await client.zadd(names.dead, {id: at for id, _, at in some})
        await client.hset(names.dead_letters, mapping={id: record(id, task, at, names.queue) for id, task, at in some})
        await client.zadd(names.dead_tasks, {f"{task}\n{at:015}\n{id}": 0 for id, task, at in some})


async def standing(place: Place) -> dict[str, set[str]]:
    """The ids of the dead letters in each of the three keys that speak of them."""
    names, client = place.names, place.client
    tasks = await client.zrange(names.dead_tasks, 0, -1)
    return {
        "dead": {id.decode() for id in await client.zrange(names.dead, 0, -1)},
        "letters": {id.decode() for id in await client.hkeys(names.dead_letters)},
        "tasks": {member.decode().split("\n")[2] for member in tasks},
    }


def in_step(*ids: str) -> dict[str, set[str]]:
    return {"dead": set(ids), "letters": set(ids), "tasks": set(ids)}

"""What tests of the audit of workflows share: whole passes, and the keys that they look at and delete."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.store.keys import PartitionKeys


async def audit(runner: TaskRunner, how: Any = "mend") -> list[str]:
    """A pass over all partitions: what was found, in words of the script's, without repetitions and sorted."""
    store, found = (await runner.opened()).store, set[str]()
    for partition in store.partitions:
        pages = 0
        async for page in store.workflow_auditor(partition).whole(how):
            found |= {what for what, _ in page.damages}
            pages += 1
            assert pages < 1000, "it never ends"
    return sorted(found)


async def keys_of(runner: TaskRunner, id: str = "") -> PartitionKeys:
    """Those of the partition of a workflow, or a job without keys of its own."""
    keyspace = (await runner.opened()).store.keyspace
    return keyspace.partitions[keyspace.partition_of(id)]


async def deliver(runner: TaskRunner) -> None:
    """What the couriers do, until nothing is on its way."""
    store = (await runner.opened()).store
    while any([await store.outbox.deliver(partition) for partition in store.partitions]):
        continue


async def everything(client: redis.asyncio.Redis, namespace: str) -> dict[bytes, Any]:
    """All keys and what they hold, to compare."""
    reads: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }
    keys = [key async for key in client.scan_iter(match=f"*{{{namespace}.*", count=1000) if b"}:batch:" not in key]
    return {key: await reads[await client.type(key)](key) for key in keys}

"""What the server remembers of workers."""

from __future__ import annotations

import redis.asyncio

from taskrunner import TaskRunner


async def alone(client: redis.asyncio.Redis, runner: TaskRunner) -> bool:
    """Whether nobody remembers another worker than this runner's, in its first partition and default queue."""
    partition = runner.session().store.partitions[0]
    consumers = await client.xinfo_consumers(partition.queue("default").stream, "taskrunner")
    return len(consumers) <= 1 and await client.zcard(partition.workers) == 1

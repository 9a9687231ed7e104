"""A task, a dispatch by name, a typed dispatch with a result, and a look at the queue.

    python examples/quickstart.py

It ends by itself. Without ``TASKRUNNER_REDIS_URL`` it starts a server of its own and stops it again.
"""

from __future__ import annotations

import asyncio

from taskrunner import JobContext, QueueStats, TaskRunner

runner = TaskRunner(namespace="example", num_workers=10, batch_size=10, long_queue_threshold=30)


@runner.task(max_retry=10)
async def exampletask(payload: str) -> None:
    print(f"Hello from example task {payload}")


@runner.task(unique=True, unique_key=lambda order_id, **_: str(order_id))
async def charge(ctx: JobContext, order_id: int, customer: str) -> str:
    return f"receipt for {order_id} of {customer}, attempt {ctx.attempt}"


@runner.on_long_queue
async def alert(stats: QueueStats) -> None:
    print(f"{stats.queue} drains in {stats.drain_time:.0f} s")


async def main() -> None:
    async with runner.start():  # consumes here, until the block ends
        for i in range(100):
            await runner.dispatch("exampletask", str(i))  # by name
        job = await charge.dispatch(7, customer="ann")  # typed: checked against the signature
        print(await job.result(timeout=10))
        stats = await runner.stats()
        print(f"{stats.waiting} waiting, {stats.workers} slots in {stats.replicas} process")
    # Leaving the block lets what runs finish; what has not started stays in the queue for the next process.


if __name__ == "__main__":
    asyncio.run(main())

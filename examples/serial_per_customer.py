"""One job of a customer at a time, in the order of the dispatches, while those of other customers run beside it.

    python examples/serial_per_customer.py

The lock holds over all processes and all tasks that name the same key. Between two attempts it is free: when a job of
ann fails, her next ones go on and it comes last. Whoever waits takes no slot of a worker. It ends by itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from taskrunner import Backoff, JobContext, TaskRunner

runner = TaskRunner("embedded://", namespace="serial-example")
steps: dict[str, list[str]] = defaultdict(list)
running: set[str] = set()


@runner.task(lock_key="customer:{customer}", backoff=Backoff.constant(0.5))
async def sync(ctx: JobContext, customer: str, step: str) -> None:
    """A template over the arguments makes the key. ``ctx.fence`` is a larger number for each run of a customer."""
    assert customer not in running, "never two at once"
    running.add(customer)
    try:
        steps[customer].append(step)
        await asyncio.sleep(0.02)
        if (customer, step, ctx.attempt) == ("ann", "address", 1):
            steps[customer][-1] += " (failed)"
            raise ConnectionError("ann's shop is away")
    finally:
        running.discard(customer)


@runner.task(lock_key=lambda customer: f"customer:{customer}")
async def close(customer: str) -> str:
    """Another task with the same key: it waits for what was dispatched before it."""
    return f"{customer} after {len(steps[customer])} steps"


async def main() -> None:
    jobs = []
    for step in ("name", "address", "orders"):
        jobs += [await sync.dispatch(customer, step) for customer in ("ann", "bob")]
    closed = await close.dispatch("ann")
    print(f"{await runner.count(state='blocked')} of {len(jobs) + 1} jobs wait for the lock of their customer")
    async with runner.start():
        print(f"closed {await closed.result(timeout=10)}")  # the failed one has let it by
        for job in jobs:
            await job.result(timeout=10)
    for customer, order in steps.items():
        print(f"{customer}: {', '.join(order)}")


if __name__ == "__main__":
    asyncio.run(main())

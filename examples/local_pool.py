"""Tasks of one process: a pool of workers, retries, a group that ends with its first error, and progress by hooks.

    python examples/local_pool.py

No server, nothing to set up; it ends by itself. What is lost with the process was meant to be.
"""

from __future__ import annotations

import asyncio
import hashlib

from taskrunner.local import LocalTask, RetriesExceeded, Semaphore, StateHooks, TaskTimeout, WorkerPool, current_task


class Shop:
    """Somebody else's service: lets two in at a time, and is away now and then."""

    def __init__(self) -> None:
        self.doors = Semaphore(2)
        self.calls = 0

    async def price(self, article: str) -> int:
        async with self.doors:
            self.calls += 1
            await asyncio.sleep(0.005)
            if self.calls % 4 == 0:
                raise ConnectionError("away")
            return len(article)


def digest(text: str) -> str:
    """A plain function: it runs in a thread, and reports from there."""
    current_task().report(f"{len(text):,} characters")
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def tell(id: str, when: object, attempt: int) -> None:
    if attempt:
        print(f"{id}: attempt {attempt + 1}")


async def prices() -> None:
    shop = Shop()
    hooks = StateHooks(when_pending=tell)
    async with WorkerPool(3, hooks=hooks) as pool:
        articles = ("apple", "fig", "banana", "cherry", "kiwi")
        tasks = [await pool.submit(shop.price, name, id=name, max_retries=3) for name in articles]
    print({task.id: task.result() for task in tasks}, f"{pool.stats().done} done")


async def all_or_none() -> None:
    """The first error of a group cancels the rest, and is raised when all have ended."""

    async def refuse() -> None:
        raise PermissionError("not you")

    long = LocalTask(asyncio.sleep, 60, id="long")
    async with WorkerPool(3) as pool:
        try:
            await pool.submit_group([long, LocalTask(refuse)])
        except PermissionError as error:
            print(f"group: {error}; {long.id} is {long.state}")


async def limits() -> None:
    """What takes too long is cancelled; its worker is free when it has ended, and not before."""
    async with WorkerPool(1) as pool:
        slow = await pool.submit(asyncio.sleep, 60, id="slow", max_duration=0.05)
        try:
            await slow
        except TaskTimeout as error:
            print(f"{error}; {pool.available_workers} worker is free")

        twice = await pool.submit(asyncio.sleep, 60, id="twice", max_duration=0.02, max_retries=1)
        try:
            await twice
        except RetriesExceeded as error:
            print(error)


async def threads() -> None:
    hooks = StateHooks(when_reported=lambda id, when, value: print(f"{id}: {value}"))
    async with WorkerPool(4, hooks=hooks) as pool:
        texts = ("a" * 1000, "b" * 2000)
        tasks = await pool.submit_batch(LocalTask(digest, text, id=text[0]) for text in texts)
    print({task.id: task.result() for task in tasks})


async def main() -> None:
    await prices()
    await all_or_none()
    await limits()
    await threads()


if __name__ == "__main__":
    asyncio.run(main())

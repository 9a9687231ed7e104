"""Somebody else's API, with three connections and a hundred calls a minute for all of our processes together.

    python examples/limited_api.py

First as options of a task: jobs wait on the server, take no slot meanwhile, and nobody asks again and again. Then with
``runner.limiter``, which needs neither task nor worker. A minute is a second here. It ends by itself.
"""

from __future__ import annotations

import asyncio
import time

from taskrunner import Limit, LimitReached, Rate, TaskRunner

MINUTE = 1.0  # 60 in earnest

runner = TaskRunner("embedded://", namespace="api-example", num_workers=50)


class Api:
    """Counts how many call it at once."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    async def call(self, question: str) -> str:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        return question.upper()


places, maps = Api(), Api()


@runner.task(limit=Limit(3), rate_limit=Rate(100, per=MINUTE, burst=20))
async def look_up(place: str) -> str:
    """At most three at once; 100 a minute, of which 20 at once after a rest (``burst``; without it 100)."""
    return await places.call(place)


async def by_jobs() -> None:
    began = time.monotonic()
    async with runner.start():
        jobs = await runner.dispatch_many([look_up.job(f"place {n}") for n in range(170)])
        answers = [await job.result(timeout=30) for job in jobs]
    minutes = (time.monotonic() - began) / MINUTE
    print(f"{len(answers)} calls, {places.most} at once, in {minutes:.1f} minutes")


async def by_hand() -> None:
    """Any code, in any process, a web application for instance. All that use the name count together."""
    limiter = runner.limiter("maps", limit=3, timeout=5)

    async def ask(n: int) -> str:
        async with limiter.slot(f"question {n}", wait=10):  # waits in line; renewed while the block runs
            return await maps.call(f"map {n}")

    answers = await asyncio.gather(*(ask(n) for n in range(30)))
    print(f"{len(answers)} more, {maps.most} at once, without a task")

    taken = [await limiter.acquire(f"request {n}") for n in range(6)]  # never waits
    print(f"acquired: {taken}, holders: {len(await limiter.holders())}")
    try:
        async with limiter.slot("one too many", wait=0):
            print("never")
    except LimitReached as error:
        print(f"refused: {error}")
    print(f"released: {await limiter.release('request 0')}, acquired again: {await limiter.acquire('request 3')}")


async def main() -> None:
    await by_jobs()
    await by_hand()
    await runner.aclose()


if __name__ == "__main__":
    asyncio.run(main())

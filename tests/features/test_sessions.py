"""What is open belongs to one event loop."""

from __future__ import annotations

import asyncio

import redis.asyncio

from taskrunner import TaskRunner


async def test_a_threads_own_loop_leaves_the_runners_session_alone(
    runner: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    @runner.task
    async def leaf(n: int) -> int:
        return n

    @runner.task
    def branch(n: int) -> str:
        async def dispatch() -> str:
            async with runner:  # closes what this loop opened, and nothing else
                return (await leaf.dispatch(n)).id

        return asyncio.run(dispatch())

    async with runner.start():
        session = runner.session()
        jobs = [await branch.dispatch(n) for n in range(5)]
        leaves = [await job.result(10) for job in jobs]
        assert runner.session() is session
        assert sorted([await runner.job(id).result(10) for id in leaves]) == list(range(5))
    assert not [key async for key in redis_client.scan_iter(f"*{{{namespace}.*}}:batch:*")]


async def test_the_session_of_a_closed_loop_is_forgotten(runner: TaskRunner) -> None:
    async def look() -> None:
        runner.session()

    await asyncio.to_thread(asyncio.run, look())
    runner.session()
    assert list(runner._sessions) == [asyncio.get_running_loop()]
    await runner.aclose()

"""One runner, used from one event loop after the other, as scripts with several asyncio.run do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskrunner import TaskRunner
from tests.programs import Program


def test_a_runner_works_in_one_event_loop_after_the_other(url: str, namespace: str) -> None:
    runner = TaskRunner(url, namespace=namespace, reservation_timeout=4)

    @runner.task
    async def echo(n: int) -> int:
        return n

    @runner.task
    def in_a_thread(n: int) -> int:
        return -n

    async def produce(n: int) -> str:
        async with runner:
            return (await echo.dispatch(n)).id

    async def work(id: str) -> tuple[int, int]:
        async with runner.start():
            return await runner.job(id).result(timeout=10), await (await in_a_thread.dispatch(5)).result(timeout=10)

    ids = [asyncio.run(produce(n)) for n in range(2)]
    assert [asyncio.run(work(id)) for id in ids] == [(0, -5), (1, -5)]


async def test_a_loop_that_was_left_without_closing_does_not_spoil_the_next(
    url: str, namespace: str, program: Callable[..., Program]
) -> None:
    script = program(
        """
        import asyncio, os
        from taskrunner import TaskRunner

        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=4)

        @runner.task
        async def echo(n: int) -> int:
            return n

        async def produce(n):
            return (await echo.dispatch(n)).id

        async def work(ids):
            async with runner.start():
                return [await runner.job(id).result(timeout=10) for id in ids]

        print(asyncio.run(work([asyncio.run(produce(n)) for n in range(3)])))
        """,
        URL=url,
        NAMESPACE=namespace,
    )
    assert await script.line() == "[0, 1, 2]"
    assert await script.ended() == 0

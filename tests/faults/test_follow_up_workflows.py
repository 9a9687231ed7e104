"""A worker that is killed while it dispatches the workflow that follows its job: that begins once, whenever it dies."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import GroupJob, TaskRunner
from taskrunner.failpoints import VARIABLE
from taskrunner.store.keys import PartitionKeys
from tests.programs import Program
from tests.waiting import DEADLINE, eventually

pytestmark = pytest.mark.crash

WORKER = """
    import asyncio, os
    from taskrunner import JobContext, TaskRunner, group

    runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=4, reservation_timeout=1)
    large = "x" * 20_000

    @runner.task
    async def member(ctx: JobContext, n: int, text: str) -> str:
        print("member", n, ctx.previous, flush=True)
        return ctx.previous

    @runner.task
    async def last(ctx: JobContext) -> int:
        print("last", len(ctx.previous), flush=True)
        return len(ctx.previous)

    members = [member.job(n, large) for n in range(60)]  # in several parts

    @runner.task(on_success=group(*members, then=last.job()))
    async def work(ctx: JobContext) -> str:
        print("work", flush=True)
        return "the result"

    print("here", flush=True)
    asyncio.run(runner.run())
"""


@pytest.mark.parametrize("point", ["after_stage", "before_dispatch", "after_dispatch", "before_settle"])
async def test_a_worker_that_is_killed_between_the_dispatch_of_the_workflow_and_the_outcome_makes_it_once(
    point: str,
    runner: TaskRunner,
    url: str,
    namespace: str,
    redis_client: redis.asyncio.Redis,
    program: Callable[..., Program],
) -> None:
    job = await runner.declare("work").dispatch()

    def worker(**environment: str) -> Program:
        return program(WORKER, URL=url, NAMESPACE=namespace, **environment)

    victim = worker(**{VARIABLE: f"{point}=kill"})
    assert await victim.ended() == -signal.SIGKILL
    heir = worker()
    assert await job.result(DEADLINE) == "the result"
    following = await runner.workflow(f"{job.id}.success.1")
    assert isinstance(following, GroupJob)
    assert await following.results(DEADLINE) == ["the result"] * 60
    assert following.then is not None
    assert await following.then.result(DEADLINE) == 60
    await eventually(lambda: only_the_heir_is_known(redis_client, namespace))
    heir.signal(signal.SIGTERM)
    assert await heir.ended() == 0
    lines = printed(victim) + printed(heir)
    assert lines.count("work") == 2, "it ran again, as nobody knew how it had ended"
    begun = [line for line in lines if line.startswith("member")]
    assert len(set(begun)) == 60
    assert lines.count("last 60") == 1


async def only_the_heir_is_known(client: redis.asyncio.Redis, namespace: str) -> bool:
    keys = PartitionKeys("taskrunner", namespace, 0)
    consumers = await client.xinfo_consumers(keys.queue("default").stream, "taskrunner")
    return len(consumers) == await client.zcard(keys.workers) == 1


def printed(program: Program) -> list[str]:
    assert program.process.stdout is not None
    return program.process.stdout.read().splitlines()

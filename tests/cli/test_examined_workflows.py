"""The doctor's findings on workflows, and what it mends of them."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio

from taskrunner import JobStatus, TaskRunner, chain, group
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.repair import Repaired
from tests.cli.examining import MakeRunner, everything, findings, mend

RUNS = pytest.mark.leaves("stream:default", "live", "followers", "workflow", "unique:", "outbox:", "dead")


@pytest.fixture
def work(runner: TaskRunner) -> Any:
    return runner.declare("work")


@RUNS
async def test_workflows_under_way_are_no_trouble_and_are_left_alone(
    runner: TaskRunner, work: Any, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    assert "workflows" not in await findings(runner)
    named = work.with_options(id="mine")
    await runner.dispatch(chain(work.job(1), group(named.job(2), work.job(3)), work.job(4)))
    await runner.dispatch(group(*(work.job(n) for n in range(150))))
    before = await everything(redis_client, keys)
    found = await findings(runner)
    assert found["workflows"] == ("ok", "2 workflows under way, none lacks anything")
    assert {found[check][0] for check in ("keys", "orphans", "counts")} == {"ok"}
    assert not {"expiry", "outbox"} & set(found)
    assert await mend(runner) == Repaired()
    assert set(await everything(redis_client, keys)) == set(before)


@RUNS
async def test_a_workflow_that_lacks_a_part_is_a_problem_until_it_is_repaired(
    runner: TaskRunner, work: Any, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    sound = await runner.dispatch(chain(work.job(1), work.job(2)))
    job = await runner.dispatch(chain(work.job(1), work.job(2)))
    await redis_client.hdel(keys.live, f"{job.id}.0")
    await redis_client.hdel(keys.followers, f"{job.id}.0")
    level, text = (await findings(runner))["workflows"]
    assert level == "problem"
    assert text.startswith(f"of 1 workflow a part was deleted ({job.id})")
    assert (await mend(runner)).workflows == 1
    assert (await findings(runner))["workflows"] == ("ok", "1 workflow under way, none lacks anything")
    assert await job.status() is JobStatus.FAILED
    assert await sound.status() is JobStatus.RUNNING


@RUNS
async def test_a_workflow_that_is_not_listed_is_put_there(
    runner: TaskRunner, work: Any, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    job = await runner.dispatch(chain(work.job(1), work.job(2)))
    await redis_client.delete(keys.workflows, keys.followers, keys.live)
    found = await findings(runner)
    assert found["workflows"] == ("warning", "1 workflow not among those that are looked after: it ends as usual, and "
                                  "--repair puts it there")  # fmt: skip
    assert "expiry" not in found
    assert (await mend(runner)).workflows >= 1
    assert await job.status() is JobStatus.FAILED, "and then the job that was lost with it is missed"
    assert not await redis_client.exists(keys.workflows)


@RUNS
async def test_remains_of_a_workflow_without_its_expiry_are_named(
    runner: TaskRunner, work: Any, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    job = await runner.dispatch(chain(work.job(1), work.job(2)))
    hash, nodes, _ = keys.workflow(job.id)
    await redis_client.delete(keys.workflows, hash)
    await redis_client.hset(keys.staged("token"), "a", "1")
    level, text = (await findings(runner))["expiry"]
    assert level == "warning"
    assert text.startswith("2 keys without the expiry")
    assert nodes in text
    assert keys.staged("token") in text
    await redis_client.delete(keys.staged("token"))


@RUNS
async def test_messages_to_a_partition_that_the_runner_has_not_are_a_problem(
    runner: TaskRunner, make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    three = make_runner(partitions=3)
    unique = three.declare("work").with_options(unique=True)
    for n in range(30):
        await three.dispatch(group(unique.job(n), unique.job(n + 100)))
    assert "outbox" not in await findings(three)
    level, text = (await findings(runner))["outbox"]
    assert level == "problem"
    assert "messages of workflows to partitions that this runner has not" in text
    assert "outbox" not in await findings(runner, certain=False)

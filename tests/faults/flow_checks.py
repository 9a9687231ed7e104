"""What must be true of workflows, whoever was killed, and however often something was delivered."""

from __future__ import annotations

import redis.asyncio

from taskrunner import ChainJob, GraphJob, GroupJob
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.store.store import Store
from taskrunner.store.workflows import View
from tests.faults.workshop import Fleet
from tests.waiting import eventually

AnyWorkflowJob = ChainJob[object] | GroupJob[object] | GraphJob
PATIENCE = 45.0
"""Seconds until a workflow must be over: a few reservations, and a busy machine."""


async def store_of(fleet: Fleet) -> Store:
    return (await fleet.runner.opened()).store


async def view_of(fleet: Fleet, id: str) -> View:
    store = await store_of(fleet)
    view = await store.workflows.view(store.keyspace.partition_of(id), id)
    assert view is not None, f"the server does not know workflow {id}"
    return view


async def over(fleet: Fleet, id: str) -> View:
    """How a workflow stands, when all of its nodes have ended, also those aside."""

    async def ended() -> View | None:
        view = await view_of(fleet, id)
        assert view.left >= 0, "more nodes have ended than there are"
        return None if view.left else view

    view: View = await eventually(ended, PATIENCE)
    assert not set(view.states) & {"w", "o"}, f"none is left, and yet there are {view.states}"
    return view


def no_job_began_twice(fleet: Fleet) -> None:
    """Each run of a job was another attempt, or another delivery of its one entry: no job was made twice."""
    runs: dict[str, list[tuple[int, int]]] = {}
    for line in fleet.journal.lines("start", "last"):
        runs.setdefault(line.job, []).append((line.attempt, line.deliveries))
    twice = {job: found for job, found in runs.items() if len(set(found)) < len(found)}
    assert not twice, f"jobs that were begun twice, and the attempts and deliveries of their runs: {twice}"


def partitions(fleet: Fleet, count: int = 1) -> tuple[PartitionKeys, ...]:
    return tuple(Keyspace("taskrunner", fleet.namespace, count).partitions)


MENDED = "workflows a part was deleted"
"""What is logged by a worker whose audit has found one that went wrong, and so brought it to an end."""


async def nothing_is_under_way(client: redis.asyncio.Redis, fleet: Fleet, count: int = 1) -> None:
    """No workflow, no link, nothing left over, no message: for when all workflows are over. And no worker process had
    to mend one."""
    assert not [path for path in fleet.folder.glob("log-*") if MENDED in path.read_text()]
    for keys in partitions(fleet, count):
        assert await client.zrange(keys.workflows, 0, -1) == []
        assert await client.hgetall(keys.followers) == {}
        assert await client.zrange(keys.unfolding, 0, -1) == []
        assert await client.hlen(keys.live) == 0
        for other in range(count):
            assert await client.xlen(keys.outbox(other)) == 0

"""Reads what stands on the server after the drain, and what the processes have logged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import orjson
import redis.asyncio

from taskrunner import TaskRunner
from taskrunner.store import wire
from taskrunner.store.keys import Keyspace
from taskrunner.workflow_state import status_of
from tests.chaos import flow_rules
from tests.chaos.history import Final, History, Record, Stand
from tests.chaos.plan import Plan
from tests.chaos.stage import Stage
from tests.cleanliness import leftovers

STATUS = {"s": "succeeded", "f": "failed", "e": "expired", "c": "cancelled"}
PAGE = 500
BUGS = re.compile(
    r"failed and is started anew|a slot of the executor died|can't be put into words|failed unexpectedly"
    r"|workflows a part was deleted"  # which nobody has done here
)
"""What a worker logs when its own machinery breaks."""


async def read(stage: Stage, history: History, backlog: str) -> Final:
    client, plan = stage.server.client(), stage.plan
    try:
        records = await _records(client, stage.keys, history.ids() | flow_rules.ids(history))
        dead = await _dead(client, stage.keys)
        left = await leftovers(client, plan.runner_options["namespace"], ("dead"))
    finally:
        await client.aclose()
    figures = await _figures(stage.server.url, plan)
    return Final(records, figures, dead, left, backlog, noise(stage), await _flows(stage.server.url, plan, history))


async def _flows(url: str, plan: Plan, history: History) -> dict[str, Stand]:
    """How all workflows stand that are known."""
    found: dict[str, Stand] = {}
    async with TaskRunner(url, **plan.runner_options) as runner:
        store = (await runner.opened()).store
        for id in flow_rules.flows_of(history):
            view = await store.workflows.view(store.keyspace.partition_of(id), id)
            if view is not None:
                found[id] = Stand(status_of(view), view.left, view.states)
    return found


async def _records(client: redis.asyncio.Redis, keys: Keyspace, ids: Iterable[str]) -> dict[str, Record]:
    """The records of all these jobs, in whichever partition."""
    found: dict[str, Record] = {}
    wanted = sorted(ids)
    for partition in keys.partitions:
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            texts = await client.mget([partition.job(id) for id in page])
            found |= {id: _record(text) for id, text in zip(page, texts, strict=True) if text is not None}
    return found


def _record(text: bytes) -> Record:
    ended = wire.read_record(text)
    error, _, _, reason = ended.error or ("", "", "", "")
    result = orjson.loads(ended.result) if ended.result else None
    return Record(STATUS[ended.state], ended.task, ended.attempts, ended.ended_at, result, error, reason)


async def _dead(client: redis.asyncio.Redis, keys: Keyspace) -> dict[str, str]:
    """Dead letters: the reason of each job's."""
    found: dict[str, str] = {}
    for partition in keys.partitions:
        for lane in await client.smembers(partition.queues):
            letters = await client.hgetall(partition.queue(lane.decode()).dead_letters)
            found |= {id.decode(): wire.exhume(text).reason for id, text in letters.items()}
    return found


async def _figures(url: str, plan: Plan) -> dict[str, tuple[int, int, int]]:
    async with TaskRunner(url, **plan.runner_options) as runner:
        figures = (await runner.stats()).per_task
    return {task: (one.succeeded, one.failed, one.waiting) for task, one in figures.items()}


def noise(stage: Stage) -> list[str]:
    """What no process should ever say."""
    found: list[str] = []
    for process in stage.processes:
        if not process.failpoints:  # whose errors are our own doing
            errors = (stage.folder / f"{process.name}.stderr").read_text().strip()
            if errors:
                found.append(f"{process.name} wrote to stderr: {errors[-1500:]}")
            log = stage.folder / f"worker-{process.pid}.log"
            found += [f"{process.name} logged: {line}" for line in _lines(log) if BUGS.search(line)]
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []

"""Workflows of a chaos run: what they look like, how they are made of jobs, and who dispatches and cancels them.

A workflow stands in the journal as a plan, from which the oracle reads what must happen and in which order:

    {"job": 3, "task": "link", "seconds": 0.1, "options": {...}}     3: its number, the node of the workflow
    {"chain": [PLAN, ...]}
    {"group": [PLAN, ...], "then": PLAN or None, "otherwise": PLAN or None, "cancels": bool}
    {"graph": [[PLAN, [places of those before it]], ...]}
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from taskrunner import DispatchUncertain, Graph, RedisError, TaskRunner, WorkflowError, chain, group
from tests.chaos.journal import Journal

Plan = dict[str, Any]
LINK, BROKEN = "link", "broken"
"""Tasks of which workflows are made: one that succeeds, and one that fails."""
LOCKS = 3
MOST = 450
"""Members of a large group: more than one step of the server lets start."""


def number(plan: Plan) -> Plan:
    """Gives each job the number of its node: the entry of a part takes the next one, a group or a graph two, and what
    is in it comes before what follows it aside."""
    _number(plan, count())
    return plan


def _number(plan: Plan, numbers: Iterator[int]) -> None:
    if "job" in plan:
        plan["job"] = next(numbers)
        return
    if "chain" not in plan:
        next(numbers), next(numbers)
    for part in parts(plan):
        _number(part, numbers)


def parts(plan: Plan) -> list[Plan]:
    """What a plan is made of, in the order of their numbers."""
    if "chain" in plan:
        return list(plan["chain"])
    if "group" in plan:
        return [*plan["group"], *(one for one in (plan["then"], plan["otherwise"]) if one)]
    return [part for part, _ in plan.get("graph", ())]


def jobs(plan: Plan) -> Iterator[Plan]:
    if "job" in plan:
        yield plan
    for part in parts(plan):
        yield from jobs(part)


def serial(id: str, job: Plan) -> str:
    return f"{id}:{job['job']}"


def make(runner: TaskRunner, id: str, plan: Plan, top: bool = True) -> Any:
    """What is dispatched for a plan."""
    name = id if top else None
    if "job" in plan:
        task = runner.find(plan["task"]).with_options(**plan["options"])
        return task.job(serial(id, plan), plan["seconds"])
    if "chain" in plan:
        return chain(*(make(runner, id, part, False) for part in plan["chain"]), id=name)
    if "group" in plan:
        aside = {name: make(runner, id, plan[key], False) for name, key in ASIDE.items() if plan[key]}
        members = [make(runner, id, part, False) for part in plan["group"]]
        return group(*members, **aside, cancel_on_failure=plan["cancels"], id=name)
    graph = Graph(id=name)
    nodes: list[Any] = []
    for part, before in plan["graph"]:
        nodes.append(graph.add(make(runner, id, part, False), after=[nodes[one] for one in before]))
    return graph


ASIDE = {"then": "then", "on_failure": "otherwise"}


# -- plans -------------------------------------------------------------------------------------------------------------


class Chance:
    """Plans by chance. ``reservation``: in seconds, what long jobs are measured by."""

    def __init__(self, chance: random.Random, reservation: float) -> None:
        self._chance = chance
        self._reservation = reservation

    def plan(self) -> Plan:
        chance = self._chance
        if chance.random() < 0.03:
            members = [self._job(0.0) for _ in range(chance.randint(MOST // 2, MOST))]
            return number({"group": members, "then": self._job(), "otherwise": self._job(), "cancels": False})
        kind = chance.choice(("chain", "group", "group", "graph", "nested"))
        return number(self._of(kind, 2 if kind == "nested" else 1))

    def _of(self, kind: str, depth: int) -> Plan:
        chance = self._chance
        if kind == "group":
            members = [self._part(depth) for _ in range(chance.randint(0, 6))]
            then, otherwise = (self._part(depth) if chance.random() < 0.7 else None for _ in range(2))
            return {"group": members, "then": then, "otherwise": otherwise, "cancels": chance.random() < 0.3}
        if kind == "graph":
            before = [
                chance.sample(range(place), min(place, chance.randint(0, 3))) for place in range(chance.randint(1, 6))
            ]
            return {"graph": [[self._part(depth), places] for places in before]}
        return {"chain": [self._part(depth) for _ in range(chance.randint(2, 5))]}

    def _part(self, depth: int) -> Plan:
        if depth and self._chance.random() < (0.6 if depth > 1 else 0.2):
            return self._of(self._chance.choice(("chain", "group", "graph")), depth - 1)
        return self._job()

    def _job(self, seconds: float = -1.0) -> Plan:
        chance, options = self._chance, dict[str, Any]()
        if seconds < 0:
            low, high = (0.5, 2.0) if chance.random() < 0.03 else (0.0, 0.1)
            seconds = round(chance.uniform(low, high) * self._reservation, 3)
            if chance.random() < 0.3:
                options["lock_key"] = f"flow-{chance.randrange(LOCKS)}"
            if chance.random() < 0.1:
                options["delay"] = round(chance.uniform(0.0, 0.3), 3)
        return {"job": 0, "task": BROKEN if chance.random() < 0.06 else LINK, "seconds": seconds, "options": options}


# -- their producer ----------------------------------------------------------------------------------------------------


async def dispatch(
    runner: TaskRunner, journal: Journal, name: str, reservation: float, stopping: asyncio.Event
) -> None:
    """Dispatches one workflow after another, some of them twice, and cancels some."""
    chance, tried = random.Random(f"{name} flows"), list[tuple[str, Plan]]()
    plans = Chance(chance, reservation)
    for n in count():
        if stopping.is_set():
            return
        again = bool(tried) and chance.random() < 0.1
        id, plan = chance.choice(tried[-50:]) if again else (f"flow-{name}-{n}", plans.plan())
        tried.append((id, plan))
        await _dispatch(runner, journal, id, plan, chance)
        if chance.random() < 0.15:
            await _cancel(runner, journal, id, chance.uniform(0.0, 0.4) * reservation)
        await asyncio.sleep(chance.uniform(0.05, 0.5))


async def _dispatch(runner: TaskRunner, journal: Journal, id: str, plan: Plan, chance: random.Random) -> None:
    journal.write("flow", id=id, plan=plan)
    patience = chance.uniform(0.2, 2) if chance.random() < 0.2 else 60
    try:
        async with asyncio.timeout(patience):
            job = await runner.dispatch(make(runner, id, plan))
    except (DispatchUncertain, TimeoutError) as error:
        journal.write("flow uncertain", id=id, error=repr(error)[:100])
    except RedisError as error:
        journal.write("flow rejected", id=id, error=repr(error)[:100])  # which is said to mean that nothing was written
    else:
        journal.write("flow deduplicated" if job.deduplicated else "flow accepted", id=id)


async def _cancel(runner: TaskRunner, journal: Journal, id: str, pause: float) -> None:
    await asyncio.sleep(pause)
    try:
        async with asyncio.timeout(60):
            job = await runner.workflow(id)
            journal.write("flow cancelling", id=id)
            journal.write("flow cancel told", id=id, cancelled=await job.cancel())
    except (RedisError, TimeoutError, LookupError, WorkflowError):
        pass

"""What mypy and pyright must know of dispatched workflows. Never run."""

from __future__ import annotations

from typing import Any, assert_type

from taskrunner import (
    ChainInfo,
    ChainJob,
    Graph,
    GraphInfo,
    GraphJob,
    GroupInfo,
    GroupJob,
    Job,
    JobStatus,
    TaskRunner,
    chain,
    group,
)

runner = TaskRunner()


@runner.task
async def count(text: str) -> int:
    return len(text)


@runner.task
async def show(number: int = 0) -> str:
    return str(number)


async def handles() -> None:
    assert_type(await runner.dispatch(count.job("a")), Job[int])

    steps = await runner.dispatch(chain(count.job("a"), show.job()))
    assert_type(steps, ChainJob[str])
    assert_type(await steps.result(timeout=5), str)
    assert_type(await steps.info(), ChainInfo)
    assert_type(await steps.status(), JobStatus)
    assert_type(await steps.cancel(), bool)
    assert_type(steps.steps, list[Job[Any]])

    members = await runner.dispatch(group(count.job("a"), count.job("b"), then=show.job()))
    assert_type(members, GroupJob[int])
    assert_type(await members.results(), list[int])
    assert_type(await members.info(), GroupInfo)
    assert_type((await members.info()).jobs, dict[str, JobStatus])
    assert_type(members.then, Job[Any] | None)
    assert_type(await (await runner.dispatch(group.map(count, ["a", "b"]))).results(), list[int])

    graph = Graph()
    first = graph.add(count.job("a"))
    second = graph.add(group(show.job(1), show.job(2)), after=[first])
    drawn = await runner.dispatch(graph)
    assert_type(drawn, GraphJob)
    assert_type(await drawn.results(), list[Any])
    assert_type(await drawn.info(), GraphInfo)
    assert_type(drawn.job(first), Job[int])
    assert_type(await drawn.job(second).result(), list[str])

    assert_type(await runner.workflow("daily"), ChainJob[Any] | GroupJob[Any] | GraphJob)
    await runner.dispatch(chain(count.job("a"), show.job()), 1)  # type: ignore[call-overload]
    await runner.dispatch(5)  # type: ignore[call-overload]

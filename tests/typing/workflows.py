"""What workflows come to, to a type checker. Checked by mypy and pyright, never run; as ``calls.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, assert_type

from taskrunner import Chain, Graph, GraphNode, Group, JobContext, JobSpec, TaskRunner, chain, group

runner = TaskRunner("redis://localhost", namespace="typing")


@runner.task
async def count(n: int, text: str = "") -> int:
    return n


@runner.task
async def say(ctx: JobContext, text: str) -> str:
    return text


@runner.task
def nothing() -> None: ...


def chains() -> None:
    assert_type(chain(count.job(1), count.job(2)), Chain[int])
    assert_type(chain(count.job(1), say.job("x"), id="mine"), Chain[str])
    assert_type(chain(say.job("x"), nothing.job(), count.with_options(delay=1).job(2)), Chain[int])
    assert_type(chain(nothing.job(), chain(count.job(1), say.job("x"))), Chain[str])
    assert_type(chain(nothing.job(), group(count.job(1), count.job(2))), Chain[list[int]])
    assert_type(chain(nothing.job(), group.map(say, ["x"])), Chain[list[str]])
    assert_type(chain(nothing.job(), Graph()), Chain[list[Any]])
    many = [count.job(n) for n in range(3)]
    assert_type(chain(*many), Chain[int])
    assert_type(chain(*many, say.job("x")), Chain[str])
    mixed: list[JobSpec[int] | Group[str]] = [count.job(1), group(say.job("x"))]
    assert_type(chain(*mixed), Chain[Any])
    chain(count.job(1), count)  # type: ignore[call-overload]
    chain(count, count.job(1))  # type: ignore[call-overload]
    chain(count.job(1), count.job(2), name="x")  # type: ignore[call-overload]


def groups() -> None:
    assert_type(group(count.job(1), count.job(2)), Group[int])
    assert_type(group(count.job(1), chain(say.job("x"), count.job(2))), Group[int])
    assert_type(group(count.job(1), then=say.job("x"), on_failure=chain(nothing.job(), nothing.job())), Group[int])
    assert_type(group(*[count.job(n) for n in range(3)], cancel_on_failure=True, id="mine"), Group[int])
    assert_type(group(group(count.job(1)), group(count.job(2))), Group[list[int]])
    assert_type(group(Graph()), Group[list[Any]])
    assert_type(group(count.job(1), say.job("x")), Group[Any])
    assert_type(group.map(count, range(3)), Group[int])
    assert_type(group.map(count.with_options(delay=1), (n for n in range(3)), then=nothing.job()), Group[int])
    assert_type(len(group(count.job(1))), int)
    group(count)  # type: ignore[call-overload]
    group(count.job(1), then=say)  # type: ignore[call-overload]
    group.map(count, ["one"])  # type: ignore[misc]
    group.map(nothing, [1])  # type: ignore[arg-type]


def graphs() -> None:
    graph = Graph(id="mine")
    a = graph.add(count.job(1))
    assert_type(a, GraphNode[int])
    assert_type(graph.add(group(say.job("x")), after=[a]), GraphNode[list[str]])
    assert_type(graph.add(chain(count.job(1), say.job("x")), after=(a,)), GraphNode[str])
    assert_type(graph.add(Graph()), GraphNode[list[Any]])
    assert_type(graph.connect(a, graph.add(say.job("x"))), None)
    graph.add(count)  # type: ignore[arg-type]
    graph.add(count.job(2), after=a)  # type: ignore[arg-type]


def callbacks() -> None:
    runner.task(on_success=chain(count.job(1), say.job("x")), on_failure=group(nothing.job()), on_start=Graph())(
        nothing
    )
    runner.task(on_retry=[count.job(1)])(nothing)  # type: ignore[call-overload]

"""What a task's calls and results are to a type checker. Checked by mypy and pyright, never run.

A line with ``type: ignore`` is one that must be an error: both checkers complain about an ignore that isn't needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from taskrunner import (
    Backoff,
    FailedJob,
    Job,
    JobContext,
    JobEvent,
    JobInfo,
    JobSpec,
    JobStatus,
    QueueStats,
    Task,
    TaskRunner,
)

runner = TaskRunner("redis://localhost", namespace="typing")


@runner.task
async def plain(n: int, text: str = "") -> float:
    return n * 1.0


@runner.task(max_retry=3, backoff=Backoff.linear(), unique=True, timeout=timedelta(seconds=5))
async def with_context(ctx: JobContext, n: int, *, flag: bool) -> str:
    assert_type(ctx.attempt, int)
    assert_type(ctx.fence, int)
    assert_type(ctx.enqueued_at, datetime)
    return f"{n} {flag}"


@runner.task
def threaded(n: int) -> list[int]:
    return [n]


@runner.task(name="threaded with context")
def threaded_with_context(ctx: JobContext, n: int) -> None: ...


@runner.task()
async def nothing() -> None: ...


async def results() -> None:
    assert_type(await (await plain.dispatch(1)).result(), float)
    assert_type(await (await with_context.dispatch(1, flag=True)).result(timeout=5), str)
    assert_type(await (await threaded.dispatch(1)).result(), list[int])
    assert_type(await nothing.dispatch(), Job[None])
    assert_type(await threaded_with_context.dispatch(1), Job[None])


async def handles() -> None:
    job = await plain.dispatch(1, "x")
    assert_type(job, Job[float])
    assert_type(job.id, str)
    assert_type(job.deduplicated, bool)
    assert_type(await job.status(), JobStatus)
    assert_type(await job.info(), JobInfo)
    assert_type(await job.wait(), None)
    assert_type((await job.info()).due_at, datetime | None)


async def wrong_arguments() -> None:
    await plain.dispatch()  # type: ignore[call-arg]
    await plain.dispatch("one")  # type: ignore[arg-type]
    await plain.dispatch(1, 2)  # type: ignore[arg-type]
    await plain.dispatch(1, wrong=2)  # type: ignore[call-arg]
    await with_context.dispatch(1)  # type: ignore[call-arg]
    await with_context.dispatch(1, True)  # type: ignore[call-arg]
    await nothing.dispatch(1)  # type: ignore[call-arg]
    await threaded.dispatch(None)  # type: ignore[arg-type]
    plain.job("one")  # type: ignore[arg-type]


async def wrong_results() -> None:
    text: str = await (await plain.dispatch(1)).result()  # type: ignore[assignment]
    number: int = await (await with_context.dispatch(1, flag=True)).result()  # type: ignore[assignment]
    print(text, number)


async def the_context_is_no_argument(ctx: JobContext) -> None:
    await with_context.dispatch(ctx, 1, flag=True)  # type: ignore[arg-type, misc]
    await threaded_with_context.dispatch(ctx, 1)  # type: ignore[call-arg, arg-type]


async def options() -> None:
    bound = plain.with_options(delay=5, id="one", headers={"a": "b"}, expires=datetime.now(UTC))
    assert_type(await bound.dispatch(1), Job[float])
    assert_type(bound.job(1), JobSpec[float])
    await bound.dispatch("one")  # type: ignore[arg-type]
    await bound.dispatch(1, 2, 3)  # type: ignore[call-arg, arg-type]
    plain.with_options(dealy=5)  # type: ignore[call-arg]
    plain.with_options(delay="soon")  # type: ignore[arg-type]


async def by_task_and_by_name() -> None:
    assert_type(await runner.dispatch(plain, 1), Job[float])
    assert_type(await runner.dispatch(with_context, 1, flag=True), Job[str])
    assert_type(await runner.dispatch("plain", "anything", goes=True), Job[Any])
    assert_type(await runner.with_options(delay=1).dispatch(plain, 1), Job[float])
    assert_type(await runner.with_options(delay=1).dispatch("plain", 1), Job[Any])
    await runner.dispatch(plain, "one")  # type: ignore[call-overload]
    await runner.with_options(delay="soon").dispatch("plain")  # type: ignore[arg-type]
    await runner.with_options(dealy=1).dispatch("plain")  # type: ignore[call-arg]


async def many() -> None:
    assert_type(plain.job(1), JobSpec[float])
    assert_type(await runner.dispatch_many([plain.job(n) for n in range(3)]), list[Job[float]])
    assert_type(runner.job("id"), Job[Any])
    assert_type(runner.declare("elsewhere", max_retry=0), Task[..., Any])
    assert_type(await runner.declare("another").dispatch(1, x=2), Job[Any])


async def figures_and_dead_letters() -> None:
    stats = await runner.stats()
    assert_type(stats, QueueStats)
    assert_type(stats.drain_time, float)
    assert_type(stats.per_task["plain"].avg_run_time, float)
    assert_type(await runner.dead_letters.list(), list[FailedJob])
    assert_type(await runner.dead_letters.get("id"), FailedJob | None)


@runner.on_failure
async def failed(event: JobEvent) -> None:
    assert_type(event.duration, float)


@runner.on_long_queue(threshold=30)
def long_queue(stats: QueueStats) -> None:
    assert_type(stats.desired_replicas(30), int)


runner.task(max_retries=3)(nothing)  # type: ignore[call-overload]
runner.task(timeout="5")(nothing)  # type: ignore[call-overload]
runner.declare("typed", queue=5)  # type: ignore[arg-type]
assert_type(plain.name, str)

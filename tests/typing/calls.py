"""What a task's calls and results are to a type checker. Checked by mypy and pyright, never run.

A line with ``type: ignore`` is one that must be an error: both checkers complain about an ignore that isn't needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from taskrunner import (
    Backoff,
    CallNext,
    FailedJob,
    Job,
    JobContext,
    JobEvent,
    JobInfo,
    JobProgress,
    JobSpec,
    JobStatus,
    JobUpdate,
    Limit,
    QueueStats,
    Rate,
    Schedule,
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
    assert_type(ctx.lock_key, str | None)
    assert_type(ctx.enqueued_at, datetime)
    return f"{n} {flag}"


@runner.task
def threaded(n: int) -> list[int]:
    return [n]


@runner.task(name="threaded with context")
def threaded_with_context(ctx: JobContext, n: int) -> None: ...


def tenant(n: int) -> str:
    return str(n)


def tenant_or_none(n: int) -> str | None:
    return str(n) if n else None


@runner.task(lock_key="{n}", limit=Limit(3, key="tenant:{n}"), rate_limit=Rate(100, per=timedelta(minutes=1), burst=1))
async def limited(n: int) -> str:
    return str(n)


@runner.task(lock_key=tenant_or_none, mode="locked", limit=Limit(3, tenant), rate_limit=Rate(5, 0.5, key=tenant))
def locked(n: int) -> int:
    return n


runner.task(lock_key=5)  # type: ignore[call-overload]
runner.task(limit=3)  # type: ignore[call-overload]
runner.task(rate_limit=Limit(3))  # type: ignore[call-overload]
runner.task(mode="both")  # type: ignore[call-overload]
Limit("3")  # type: ignore[arg-type]
Limit(3, tenant_or_none)  # type: ignore[arg-type]
Rate(100)  # type: ignore[call-arg]


@runner.task()
async def nothing() -> None: ...


async def results() -> None:
    assert_type(await (await plain.dispatch(1)).result(), float)
    assert_type(await (await with_context.dispatch(1, flag=True)).result(timeout=5), str)
    assert_type(await (await threaded.dispatch(1)).result(), list[int])
    assert_type(await nothing.dispatch(), Job[None])
    assert_type(await (await limited.dispatch(1)).result(), str)
    assert_type(await (await locked.with_options(lock_key=None).dispatch(1)).result(), int)
    assert_type(await (await locked.with_options(lock_key="{n}").dispatch(1)).result(), int)
    assert_type((await (await locked.dispatch(1)).info()).lock_key, str | None)
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
    plain.with_options(unique="debounce", unique_for=5, max_wait=timedelta(minutes=1))
    plain.with_options(unique="newest")  # type: ignore[arg-type]
    plain.with_options(lock_key=5)  # type: ignore[arg-type]
    plain.with_options(limit=Limit(1))  # type: ignore[call-arg]
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
    assert_type(await runner.dead_letters.list("plain", limit=10, after="id"), list[FailedJob])
    assert_type(await runner.dead_letters.retry("id"), Job[Any])
    assert_type(await runner.dead_letters.retry_all("plain"), int)
    assert_type(await runner.dead_letters.delete("id"), bool)
    assert_type(await runner.dead_letters.purge(older_than=timedelta(days=1)), int)


@runner.on_failure
async def failed(event: JobEvent) -> None:
    assert_type(event.duration, float)


@runner.on_cancel
def cancelled(event: JobEvent) -> None:
    assert_type(event.attempt, int)


@runner.middleware
async def around(ctx: JobContext, call_next: CallNext) -> Any:
    assert_type(ctx.cancelled, bool)
    return await call_next()


@runner.middleware  # type: ignore[type-var]
def no_coroutine(ctx: JobContext, call_next: CallNext) -> int:
    return 0


@runner.task(pool="process", on_success=plain.job(1), on_failure=failed)
def in_a_process(ctx: JobContext, n: int) -> list[int]:
    return [n]


async def in_processes(ctx: JobContext) -> None:
    assert_type(await (await in_a_process.dispatch(1)).result(), list[int])
    await in_a_process.dispatch("one")  # type: ignore[arg-type]
    assert_type(await ctx.save({"any": "thing"}), None)


@runner.on_long_queue(threshold=30)
def long_queue(stats: QueueStats) -> None:
    assert_type(stats.desired_replicas(30), int)


runner.task(max_retries=3)(nothing)  # type: ignore[call-overload]
runner.task(unique="latest", max_wait=5)(nothing)
runner.task(unique="newest")(nothing)  # type: ignore[call-overload]
runner.task(timeout="5")(nothing)  # type: ignore[call-overload]
runner.task(pool="fork")(nothing)  # type: ignore[call-overload]
runner.task(on_success="tell me")(nothing)  # type: ignore[call-overload]
runner.declare("typed", queue=5)  # type: ignore[arg-type]
assert_type(plain.name, str)


@runner.cron("@daily", tz="Europe/Berlin", max_retry=3)
async def daily(ctx: JobContext, times: int = 1) -> list[str]:
    return ["x"] * times


@runner.every(timedelta(hours=1), name="hourly")
@runner.task
def hourly() -> int:
    return 1


async def schedules() -> None:
    assert_type(await (await daily.dispatch(2)).result(), list[str])
    assert_type(await (await hourly.dispatch()).result(), int)
    await daily.dispatch("two")  # type: ignore[arg-type]
    made = await runner.schedule("d", daily.job(3), cron="@hourly", catch_up="all", lock_key="k")
    assert_type(made, Schedule)
    assert_type(made.next_fire, datetime | None)
    assert_type(await runner.schedules(), list[Schedule])
    assert_type(await runner.unschedule("d"), bool)
    await runner.schedule("d", daily, every=5)  # type: ignore[arg-type]
    await runner.schedule("d", daily.job(), every=5, catch_up="some")  # type: ignore[arg-type]


async def following(ctx: JobContext) -> None:
    job = await runner.dispatch("typed")
    async for update in job.events():
        assert_type(update, JobUpdate)
        assert_type(update.progress, JobProgress | None)
        assert_type(update.as_dict(), dict[str, Any])
    await ctx.progress(1, 2.5, "text")
    await ctx.progress("one")  # type: ignore[arg-type]
    assert_type(await runner.delete_result(job.id), bool)


runner.cron("@daily", retries=3)  # type: ignore[call-arg]

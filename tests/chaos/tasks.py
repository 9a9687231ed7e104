"""The tasks of a chaos run. Each tells the journal when it starts and what it comes to; the first argument, the serial,
is the number of the dispatch, so that a job is known even when its dispatch never returned."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskrunner import Backoff, JobContext, JobEvent, Limit, Rate, Snooze, TaskRunner
from tests.chaos import flows
from tests.chaos.journal import Journal

RETRY_AFTER = 0.2
"""Seconds between two attempts."""
SNOOZE = 0.1
LOCKED = ("locked", "elsewhere", "relocked", "snoozing", "dropped", "solitary", "both")
"""Kinds of jobs that have a lock key; their first argument after the serial says which."""
ELSEWHERE = "second"
"""The queue of "elsewhere" and "sharing"."""
LIMITS = {"limited": ("shared", 3), "sharing": ("shared", 3), "both": ("own", 2)}
"""Kinds of jobs that are limited: the name of the limit, and how many may run at once."""
RATED = Rate(3, per=1, burst=4)
CANCELLED = ("unwanted", "dropped")
"""Kinds of jobs that their producer cancels."""


def lock_of(serial: str, key: str, *_: Any) -> str:
    """The lock key of a job: what its key ends with, so that kinds share it whatever their other keys are."""
    return f"lock-{key.rpartition('-')[2]}"


class Doomed(Exception):
    """What a failing job raises."""


def _token(ctx: JobContext) -> list[int]:
    """Which run it was: a job's result, so that its record tells which one was recorded."""
    return [os.getpid(), ctx.fence]


@contextmanager
def _told(journal: Journal, ctx: JobContext, serial: str, **more: Any) -> Iterator[None]:
    """Journals a run: its start, with whatever more there is to say, and how it ends."""
    run = {"kind": ctx.task, "serial": serial, "attempt": ctx.attempt, "fence": ctx.fence, "lock": ctx.lock_key or ""}
    journal.write("start", ctx.job_id, **run, deliveries=ctx.deliveries, **more)
    try:
        yield
    except asyncio.CancelledError:
        journal.write("cancelled", ctx.job_id, **run)
        raise
    except Snooze:
        journal.write("snoozed", ctx.job_id, **run)
        raise
    except BaseException as error:
        journal.write("raised", ctx.job_id, **run, error=type(error).__name__)
        raise
    journal.write("end", ctx.job_id, **run)


def register(runner: TaskRunner, journal: Journal, max_retry: int) -> None:
    """Registers all tasks and hooks."""
    _register_lasting(runner, journal)
    _register_locked(runner, journal, max_retry)
    _register_limited(runner, journal)
    _register_failing(runner, journal, max_retry)
    _register_deadly(runner, journal)
    _register_followed(runner, journal)

    def tell(event: str) -> Any:
        return lambda about: _tell(event, about)

    def _tell(event: str, about: JobEvent) -> None:
        journal.write(event, about.job_id, kind=about.task, attempt=about.attempt)

    runner.on_success(tell("on_success"))
    runner.on_failure(tell("on_failure"))


def _register_lasting(runner: TaskRunner, journal: Journal) -> None:
    """Tasks that return, after some seconds."""

    async def sleep(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            await asyncio.sleep(seconds)
        return _token(ctx)

    for name in ("plain", "delayed", "brief", "long", "unwanted"):
        runner.task(name=name)(sleep)

    async def keyed(ctx: JobContext, serial: str, key: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            await asyncio.sleep(seconds)
        return _token(ctx)

    runner.task(name="unique", unique=True, unique_key=lambda serial, key, seconds: key)(keyed)
    runner.task(name="latest", unique="latest", unique_key=lambda serial, key, seconds: key)(keyed)

    @runner.task
    async def blocking(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            time.sleep(seconds)  # noqa: ASYNC251 - that is the point
        return _token(ctx)

    @runner.task
    def threaded(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            time.sleep(seconds)
        return _token(ctx)


def _register_locked(runner: TaskRunner, journal: Journal, max_retry: int) -> None:
    """Tasks of which never two of one key run at once, whatever their names and queues are."""

    async def sleep(ctx: JobContext, serial: str, key: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            await asyncio.sleep(seconds)
        return _token(ctx)

    runner.task(name="locked", lock_key=lock_of)(sleep)
    runner.task(name="dropped", lock_key=lock_of)(sleep)
    runner.task(name="elsewhere", lock_key=lock_of, queue=ELSEWHERE)(sleep)
    if runner.settings.partitions == 1:
        runner.task(name="solitary", lock_key=lock_of, unique=True, unique_key=lambda serial, key, seconds: key)(sleep)
        name, count = LIMITS["both"]
        runner.task(name="both", lock_key=lock_of, limit=Limit(count, key=name))(sleep)

    @runner.task(lock_key=lock_of, max_retry=max_retry, backoff=Backoff.constant(RETRY_AFTER))
    async def relocked(ctx: JobContext, serial: str, key: str, failures: int) -> list[int]:
        with _told(journal, ctx, serial):
            await asyncio.sleep(0.01)
            if ctx.attempt <= failures:
                raise ValueError("not yet")
        return _token(ctx)

    @runner.task(lock_key=lock_of)
    async def snoozing(ctx: JobContext, serial: str, key: str, until: float) -> list[int]:
        """Puts itself off until a wall time."""
        with _told(journal, ctx, serial):
            await asyncio.sleep(0.01)
            if time.time() < until:
                raise Snooze(SNOOZE)
        return _token(ctx)


def _register_limited(runner: TaskRunner, journal: Journal) -> None:
    """Tasks of which only so many run at once, or start in a time."""

    async def sleep(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial):
            await asyncio.sleep(seconds)
        return _token(ctx)

    name, count = LIMITS["limited"]
    runner.task(name="limited", limit=Limit(count, key=name))(sleep)
    runner.task(name="sharing", limit=Limit(count, key=name), queue=ELSEWHERE)(sleep)
    runner.task(name="rated", rate_limit=RATED)(sleep)


def _register_failing(runner: TaskRunner, journal: Journal, max_retry: int) -> None:
    """Tasks that raise."""

    @runner.task(max_retry=max_retry, backoff=Backoff.constant(RETRY_AFTER))
    async def retrying(ctx: JobContext, serial: str, failures: int) -> list[int]:
        with _told(journal, ctx, serial):
            if ctx.attempt <= failures:
                raise ValueError("not yet")
        return _token(ctx)

    @runner.task(max_retry=max_retry, backoff=Backoff.constant(RETRY_AFTER))
    async def failing(ctx: JobContext, serial: str) -> None:
        with _told(journal, ctx, serial):
            raise Doomed("never")


def _register_followed(runner: TaskRunner, journal: Journal) -> None:
    """Tasks of which workflows are made."""

    @runner.task(name=flows.LINK)
    async def link(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        with _told(journal, ctx, serial, previous=ctx.previous):
            await asyncio.sleep(seconds)
        return _token(ctx)

    @runner.task(name=flows.BROKEN, max_retry=0)
    async def broken(ctx: JobContext, serial: str, seconds: float) -> None:
        with _told(journal, ctx, serial, previous=ctx.previous):
            await asyncio.sleep(seconds)
            raise Doomed("never")


def _register_deadly(runner: TaskRunner, journal: Journal) -> None:
    """Tasks that cost a worker its life, or its reservations."""

    @runner.task
    async def poison(ctx: JobContext, serial: str, by_signal: bool) -> None:
        with _told(journal, ctx, serial):
            await asyncio.sleep(0.02)
            if by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)

    @runner.task
    async def wedge(ctx: JobContext, serial: str, seconds: float) -> list[int]:
        """Blocks its first worker's loop for longer than heartbeats go on: its result comes too late."""
        with _told(journal, ctx, serial):
            if ctx.deliveries == 1:
                time.sleep(seconds)  # noqa: ASYNC251 - that is the point
        return _token(ctx)

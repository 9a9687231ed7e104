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

from taskrunner import Backoff, JobContext, JobEvent, TaskRunner
from tests.chaos.journal import Journal

RETRY_AFTER = 0.2
"""Seconds between two attempts."""


class Doomed(Exception):
    """What a failing job raises."""


def _token(ctx: JobContext) -> list[int]:
    """Which run it was: a job's result, so that its record tells which one was recorded."""
    return [os.getpid(), ctx.fence]


@contextmanager
def _told(journal: Journal, ctx: JobContext, serial: str) -> Iterator[None]:
    """Journals a run: its start, and how it ends."""
    run = {"kind": ctx.task, "serial": serial, "attempt": ctx.attempt, "fence": ctx.fence}
    journal.write("start", ctx.job_id, **run, deliveries=ctx.deliveries)
    try:
        yield
    except asyncio.CancelledError:
        journal.write("cancelled", ctx.job_id, **run)
        raise
    except BaseException as error:
        journal.write("raised", ctx.job_id, **run, error=type(error).__name__)
        raise
    journal.write("end", ctx.job_id, **run)


def register(runner: TaskRunner, journal: Journal, max_retry: int) -> None:
    """Registers all tasks and hooks."""
    _register_lasting(runner, journal)
    _register_failing(runner, journal, max_retry)
    _register_deadly(runner, journal)

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

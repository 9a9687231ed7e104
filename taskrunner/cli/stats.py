"""``taskrunner stats``: the figures of queues, as tables or as JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import RedisConfigurationError, RedisError, RedisUnavailable
from ..forecast import QueueStats, TaskStats
from ..runner import TaskRunner
from .console import make_console, make_table
from .durations import show_duration, show_rate
from .printable import printable

EVERY = 1.0
"""Seconds between two looks of ``--watch``."""

OK, FAILURE, USAGE, EXCEEDED = 0, 1, 2, 3


@dataclass(frozen=True)
class Wish:
    """What was asked for. ``queue`` None: all. ``fail_over``: seconds of drain time that are too many, or None."""

    queue: str | None = None
    as_json: bool = False
    watch: bool = False
    fail_over: float | None = None


class UnknownQueue(Exception):
    """Nobody ever dispatched to a queue of that name."""


def show_stats(runner: TaskRunner, wish: Wish) -> int:
    """Prints what was wished for. The exit code: 1 when the server can't be asked, 3 when a drain time is too long."""
    console = make_console()
    try:
        return asyncio.run(_watch(runner, wish, console) if wish.watch else _once(runner, wish, console))
    except (RedisError, UnknownQueue) as error:
        print(f"taskrunner: {error}", file=sys.stderr)
        return USAGE if isinstance(error, RedisConfigurationError) else FAILURE
    except KeyboardInterrupt:
        return OK  # the way to end --watch


async def _once(runner: TaskRunner, wish: Wish, console: Console) -> int:
    async with runner:
        # Not runner.opened(): that waits half a minute for a server to come back.
        await runner.session().store.open()
        found = await read(runner, wish.queue)
    if wish.as_json:
        print(json.dumps(as_json(runner.settings.namespace, found)))
    else:
        console.print(picture(runner.settings.namespace, found, wish.fail_over))
    over = wish.fail_over is not None and any(stats.drain_time > wish.fail_over for stats in found)
    return EXCEEDED if over else OK


async def _watch(runner: TaskRunner, wish: Wish, console: Console) -> int:
    async with runner:
        await runner.session().store.open()
        if wish.as_json or not console.is_terminal:
            while True:
                await _once_more(runner, wish, console)
                await asyncio.sleep(EVERY)
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                try:
                    found = await read(runner, wish.queue)
                    foot = Text(time.strftime("%H:%M:%S") + "   Ctrl-C ends", style="dim")
                    live.update(Group(picture(runner.settings.namespace, found), foot), refresh=True)
                except RedisUnavailable as error:
                    live.update(Text(f"{error}; trying again, Ctrl-C ends", style="red"), refresh=True)
                await asyncio.sleep(EVERY)


async def _once_more(runner: TaskRunner, wish: Wish, console: Console) -> None:
    found = await read(runner, wish.queue)
    if wish.as_json:
        print(json.dumps(as_json(runner.settings.namespace, found)), flush=True)
    else:
        console.print(picture(runner.settings.namespace, found))


async def known_queues(runner: TaskRunner) -> list[str]:
    """The queues that were dispatched to, and those that the runner names."""
    # A runner made from a URL alone names none but the default, which need not exist.
    own = {runner.settings.queue, *(task.queue for task in runner.tasks.values())} if runner.tasks else set[str]()
    return sorted(own | set(await runner.session().store.inspection.queues()))


async def read(runner: TaskRunner, queue: str | None) -> list[QueueStats]:
    """The figures of one queue, or of each that is known.

    Raises RedisError, and UnknownQueue for a queue that is neither.
    """
    known = await known_queues(runner)
    if queue is not None and queue not in known:
        rest = f"there are {', '.join(known)}" if known else "there are no queues at all"
        raise UnknownQueue(
            f"no job was ever dispatched to {queue!r} in namespace {runner.settings.namespace!r}; {rest}"
        )
    return [await runner.stats(name) for name in ([queue] if queue is not None else known)]


def as_json(namespace: str, found: list[QueueStats]) -> dict[str, Any]:
    """The figures as plain data. Seconds and jobs per second; ``drain_time`` null: never, since nobody consumes."""
    return {"namespace": namespace, "queues": {stats.queue: _plain(stats) for stats in found}}


def _plain(stats: QueueStats) -> dict[str, Any]:
    plain = {field.name: getattr(stats, field.name) for field in dataclasses.fields(stats)}
    del plain["queue"], plain["is_long"]  # the first is the key; the second only says something inside a hook
    plain["per_task"] = {name: dataclasses.asdict(task) for name, task in stats.per_task.items()}
    return plain | {"drain_time": stats.drain_time if math.isfinite(stats.drain_time) else None}


def picture(namespace: str, found: list[QueueStats], limit: float | None = None) -> Group:
    """Tables of queues and tasks; drain times over ``limit`` seconds are marked."""
    if not found:
        return Group(Text(f"Nothing was ever dispatched in namespace {namespace!r}."))
    return Group(_queues(namespace, found, limit), Text(), *_tasks(found))


def _queues(namespace: str, found: list[QueueStats], limit: float | None) -> Table:
    table = make_table(f"Queues of {namespace}")
    table.add_column("queue", style="cyan", no_wrap=True)
    for name in ("waiting", "running", "scheduled", "dead"):
        table.add_column(name, justify="right")
    table.add_column("workers", justify="right", no_wrap=True)
    for name in ("arriving", "completing", "oldest wait", "drain time"):
        table.add_column(name, justify="right", no_wrap=True)
    for stats in found:
        over = math.isinf(stats.drain_time) or (limit is not None and stats.drain_time > limit)
        table.add_row(
            f"{stats.queue} (paused)" if stats.paused else stats.queue,
            *(f"{number:,}" for number in (stats.waiting, stats.running, stats.scheduled)),
            Text(f"{stats.dead:,}", style="red" if stats.dead else ""),
            f"{stats.workers} × {stats.replicas}" if stats.replicas else Text("none", style="yellow"),
            show_rate(stats.arrival_rate),
            show_rate(stats.completion_rate),
            show_duration(stats.oldest_wait),
            Text(show_duration(stats.drain_time), style="bold red" if over else "bold"),
        )
    return table


def _tasks(found: list[QueueStats]) -> Iterator[Table]:
    rows = [(stats.queue, name, task) for stats in found for name, task in sorted(stats.per_task.items())]
    if not rows:
        return
    table = make_table("Tasks")
    for name in ("task", "queue"):
        table.add_column(name, style="cyan" if name == "task" else "", no_wrap=True)
    for name in ("waiting", "average", "95 % under", "succeeded", "failed", "retried"):
        table.add_column(name, justify="right", no_wrap=True)
    for queue, name, task in rows:
        table.add_row(Text(printable(name)), Text(queue), f"{task.waiting:,}", *_task_cells(task))
    yield table


def _task_cells(task: TaskStats) -> Iterator[Text]:
    yield Text(show_duration(task.avg_run_time))
    yield Text(show_duration(task.p95_run_time))
    yield Text(f"{task.succeeded:,}")
    yield Text(f"{task.failed:,}", style="red" if task.failed else "")
    yield Text(f"{task.retried:,}", style="yellow" if task.retried else "")

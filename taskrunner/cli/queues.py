"""``taskrunner pause``, ``resume`` and ``purge``: what is done to a whole queue."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ..runner import TaskRunner
from .asking import ask, tell
from .choice import FAILURE, OK, Namespace, Url, Yes, choose, confirm, may_ask, say, split
from .stats import known_queues

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODULE:RUNNER] QUEUE", help="The runner, unless there is --url, and a queue."),
]
All = Annotated[bool, typer.Option("--all", help="All queues of the namespace.")]
WAITING = ("queued", "scheduled", "retrying", "blocked")


def pause(words: Words = None, everything: All = False, url: Url = None, namespace: Namespace = None) -> None:
    """Pause a queue: no worker starts a job of it until it is resumed. What runs goes on, jobs gather."""
    runner, queue = _chosen(words, everything, url, namespace)
    ask(runner, partial(_pause, queue=queue))


async def _pause(runner: TaskRunner, queue: str | None) -> int:
    await runner.pause(queue)
    tell("all queues are paused" if queue is None else f"queue {queue} is paused")
    if queue is not None:
        await _note_unknown(runner, queue)
    return OK


def resume(words: Words = None, everything: All = False, url: Url = None, namespace: Namespace = None) -> None:
    """Let a paused queue go on. With --all, every pause ends."""
    runner, queue = _chosen(words, everything, url, namespace)
    ask(runner, partial(_resume, queue=queue))


async def _resume(runner: TaskRunner, queue: str | None) -> int:
    await runner.resume(queue)
    if queue is not None and (await runner.stats(queue)).paused:
        say(f"queue {queue} stays paused, because all queues are: `taskrunner resume --all`")
        return FAILURE
    tell("all queues go on" if queue is None else f"queue {queue} goes on")
    if queue is not None:
        await _note_unknown(runner, queue)
    return OK


def purge(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[MODULE:RUNNER] QUEUE", help="The runner, unless there is --url, and a queue."),
    ],
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Cancel all jobs of a queue that wait. What runs goes on. Asks back."""
    may_ask(yes)
    runner, queue = _chosen(words, False, url, namespace)
    ask(runner, partial(_purge, queue=queue or "", yes=yes))


async def _purge(runner: TaskRunner, queue: str, yes: bool) -> int:
    if not yes:
        number = sum([await runner.count(queue, state=state) for state in WAITING])
        confirm(f"Cancel the {_some(number)} that wait in {queue} of {runner.settings.namespace}?", yes)
    tell(f"{_some(await runner.purge(queue))} of {queue} cancelled")
    await _note_unknown(runner, queue)
    return OK


def _chosen(
    words: list[str] | None, everything: bool, url: str | None, namespace: str | None
) -> tuple[TaskRunner, str | None]:
    usage = "give the name of one queue or --all; MODULE:RUNNER may stand first"
    number = 0 if everything else 1
    reference, names = split(words, url, usage, number, number)
    return choose(reference, url, namespace), names[0] if names else None


async def _note_unknown(runner: TaskRunner, queue: str) -> None:
    """A queue need not exist to be paused, but most names that nobody uses are mistyped."""
    known = await known_queues(runner)
    if queue not in known:
        rest = f"there are {', '.join(known)}" if known else "there are no queues at all"
        say(f"no job was ever dispatched to {queue!r} in namespace {runner.settings.namespace!r}; {rest}")


def _some(number: int) -> str:
    return f"{number:,} job{'' if number == 1 else 's'}"

"""``taskrunner dead``: jobs that failed for good."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from ..dead_letters import FailedJob
from ..errors import NotFound, PayloadError, UniqueConflict
from ..runner import TaskRunner
from .asking import ask, server_time, tell
from .choice import (
    FAILURE,
    OK,
    Json,
    Namespace,
    Reference,
    Url,
    Yes,
    choose,
    confirm,
    duration,
    fail,
    may_ask,
    say,
    split,
)
from .instants import show_distance, show_instant
from .layout import show_card, show_list
from .printable import printable, shortened, to_json

app = typer.Typer(help="Look at jobs that failed for good, run them again, remove them.", no_args_is_help=True)

Task = Annotated[str | None, typer.Option(help="Only those of this task.")]
ALL = "give IDs or --all, not both; MODULE:RUNNER may stand first"
LONGEST = 4_000
"""Characters of arguments that are shown; ``--json`` has them all."""


@app.command(name="ls")
def list_dead(
    reference: Reference = None,
    task: Task = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this one, the last of a page.")] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""
    ask(choose(reference, url, namespace), partial(_list, task=task, limit=limit, after=after, as_json=as_json))


async def _list(runner: TaskRunner, task: str | None, limit: int, after: str | None, as_json: bool) -> int:
    found = await runner.dead_letters.list(task, limit, after)
    total = await runner.dead_letters.count(task)
    if as_json:
        print(to_json(namespace=runner.settings.namespace, count=total, dead_letters=found))
        return OK
    now = server_time(runner)
    rows = [
        [one.id, one.task, one.queue, show_distance(one.failed_at, now), str(one.attempts), _error(one)]
        for one in found
    ]
    title = f"Dead letters of {runner.settings.namespace}: {len(found):,} of {total:,}"
    nothing = f"There are no {'more ' if after else ''}dead letters{f' of {task}' if task else ''}."
    show_list(title, ["id", "task", "queue", "failed", "attempts", "error"], rows, nothing)
    return OK


def _error(dead: FailedJob) -> str:
    return shortened(f"{dead.error_type}: {dead.message}" if dead.message else dead.error_type or dead.reason, 120)


@app.command()
def show(
    words: Annotated[
        list[str], typer.Argument(metavar="[MODULE:RUNNER] ID", help="The runner, unless there is --url, and an ID.")
    ],
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter, with its arguments, error and traceback."""
    reference, [id] = split(words, url, "give the ID of one dead letter: MODULE:RUNNER ID, or --url URL ID", most=1)
    ask(choose(reference, url, namespace), partial(_show, id=id, as_json=as_json))


async def _show(runner: TaskRunner, id: str, as_json: bool) -> int:
    dead = await runner.dead_letters.get(id)
    if dead is None:
        say(f"there is no dead letter {id!r}; `taskrunner dead ls` lists them")
        return FAILURE
    if as_json:
        print(to_json(**{name: getattr(dead, name) for name in FailedJob.__slots__}))
        return OK
    fields = [
        ("task", dead.task),
        ("queue", dead.queue),
        ("attempts", str(dead.attempts)),
        ("failed", show_instant(dead.failed_at)),
        ("reason", dead.reason),
        ("error", f"{dead.error_type}: {dead.message}" if dead.message else dead.error_type),
        *((f"argument {number}", _value(value)) for number, value in enumerate(dead.args, 1)),
        *((f"{printable(name)}=", _value(value)) for name, value in dead.kwargs.items()),
        *(("raw", _value(part)) for part in dead.raw),
    ]
    show_card(f"Dead letter {id}", fields, [("traceback", dead.traceback)])
    return OK


def _value(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters; --json has all)"


@app.command()
def retry(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE:RUNNER] [ID]...", help="The runner, and whom to run again.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All, or all of --task.")] = False,
    task: Task = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Run dead letters again: same IDs, arguments and options, attempts from zero."""
    if task is not None and not everything:
        fail("--task goes with --all")
    reference, ids = split(words, url, ALL, *((0, 0) if everything else (1,)))
    question = partial(_retry_all, task=task) if everything else partial(_retry, ids=ids)
    ask(choose(reference, url, namespace), question)


async def _retry(runner: TaskRunner, ids: Sequence[str]) -> int:
    code = OK
    for id in ids:
        try:
            await runner.dead_letters.retry(id)
        except (NotFound, UniqueConflict, PayloadError) as error:
            say(str(error))
            code = FAILURE
        else:
            tell(f"job {id} runs again")
    return code


async def _retry_all(runner: TaskRunner, task: str | None) -> int:
    number = await runner.dead_letters.retry_all(task)
    tell(f"{_some(number)} run again")
    if left := await runner.dead_letters.count(task):
        say(f"{_some(left)} stay: an equal job is alive, or they can't be run, or have failed again meanwhile")
    return OK


@app.command(name="rm")
def remove(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE:RUNNER] [ID]...", help="The runner, and whom to remove.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="DURATION", help="All that failed longer ago than this, such as 7d or 12h.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All.")] = False,
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Remove dead letters for good. Asks back before it removes more than one."""
    age = duration(older_than, "--older-than")
    if age is not None and everything:
        fail("give --older-than or --all, not both")
    by_age = everything or age is not None
    usage = "give IDs, --older-than or --all, and only one of these; MODULE:RUNNER may stand first"
    reference, ids = split(words, url, usage, *((0, 0) if by_age else (1,)))
    if by_age or len(ids) > 1:
        may_ask(yes)
    question = partial(_purge, age=age, yes=yes) if by_age else partial(_remove, ids=ids, yes=yes)
    ask(choose(reference, url, namespace), question)


async def _remove(runner: TaskRunner, ids: Sequence[str], yes: bool) -> int:
    if len(ids) > 1:
        confirm(f"Remove {_some(len(ids))} for good?", yes)
    code = OK
    for id in ids:
        if await runner.dead_letters.delete(id):
            tell(f"dead letter {id} is removed")
        else:
            say(f"there is no dead letter {id!r}")
            code = FAILURE
    return code


async def _purge(runner: TaskRunner, age: float | None, yes: bool) -> int:
    total = _some(await runner.dead_letters.count())
    which = f"all {total}" if age is None else f"those of {total} that are older"
    confirm(f"Namespace {runner.settings.namespace}: remove {which} for good?", yes)
    tell(f"{_some(await runner.dead_letters.purge(age))} removed")
    return OK


def _some(number: int) -> str:
    return f"{number:,} dead letter{'' if number == 1 else 's'}"

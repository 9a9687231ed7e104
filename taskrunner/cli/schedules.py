"""``taskrunner schedules``: what fires when."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import NotFound
from ..runner import TaskRunner
from ..schedule import Schedule
from .asking import ask, server_time, tell
from .choice import FAILURE, OK, Json, Namespace, Reference, Url, choose, say, split
from .instants import show_distance, show_instant, zone_of
from .layout import show_list
from .printable import to_json


class ListedByDefault(TyperGroup):
    """Commands of which ``ls`` is meant when none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["ls", *args])


app = typer.Typer(
    cls=ListedByDefault,
    help="List schedules (or `ls`), pause them, let them go on, remove them.",
    no_args_is_help=False,
)

Words = Annotated[
    list[str], typer.Argument(metavar="[MODULE:RUNNER] NAME", help="The runner, unless there is --url, and a schedule.")
]
ONE_NAME = "give the name of one schedule: MODULE:RUNNER NAME, or --url URL NAME"


@app.command(name="ls")
def list_schedules(
    reference: Reference = None, url: Url = None, namespace: Namespace = None, as_json: Json = False
) -> None:
    """List schedules, with their next and last firing."""
    ask(choose(reference, url, namespace), partial(_list, as_json=as_json))


async def _list(runner: TaskRunner, as_json: bool) -> int:
    found = await runner.schedules()
    if as_json:
        print(to_json(namespace=runner.settings.namespace, schedules=found))
        return OK
    now = server_time(runner)
    rows = []
    for one in found:
        if one.paused:
            then = "paused"
        elif one.next_fire is None:
            then = "never again"
        else:
            then = f"{show_instant(one.next_fire, zone_of(one.tz))}, {show_distance(one.next_fire, now)}"
        last = show_distance(one.last_fire, now)
        rows.append([one.name, one.task, one.lock_key or "", _timing(one), one.tz, last, then])
    columns = ["name", "task", "lock key", "when", "zone", "last", "next"]
    where = runner.settings.namespace
    show_list(f"Schedules of {where}", columns, rows, f"There are no schedules in {where}.")
    return OK


def _timing(schedule: Schedule) -> str:
    if schedule.every is None:
        return schedule.cron or ""
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if schedule.every % seconds == 0:
            return f"every {schedule.every / seconds:.0f} {unit}"
    return f"every {schedule.every:.10g} s"


@app.command()
def pause(words: Words, url: Url = None, namespace: Namespace = None) -> None:
    """Pause a schedule: it fires nothing until it is resumed."""
    reference, [name] = split(words, url, ONE_NAME, most=1)
    ask(choose(reference, url, namespace), partial(_pause, name=name))


async def _pause(runner: TaskRunner, name: str) -> int:
    try:
        await runner.pause_schedule(name)
    except NotFound:
        return _unknown(name)
    tell(f"schedule {name} is paused")
    return OK


@app.command()
def resume(words: Words, url: Url = None, namespace: Namespace = None) -> None:
    """Let a paused schedule go on, with its next tick from now."""
    reference, [name] = split(words, url, ONE_NAME, most=1)
    ask(choose(reference, url, namespace), partial(_resume, name=name))


async def _resume(runner: TaskRunner, name: str) -> int:
    try:
        await runner.resume_schedule(name)
    except NotFound:
        return _unknown(name)
    tell(f"schedule {name} goes on")
    return OK


@app.command(name="rm")
def remove(words: Words, url: Url = None, namespace: Namespace = None) -> None:
    """Remove a schedule. Jobs that it has fired go on."""
    reference, [name] = split(words, url, ONE_NAME, most=1)
    ask(choose(reference, url, namespace), partial(_remove, name=name))


async def _remove(runner: TaskRunner, name: str) -> int:
    declared = any(one.name == name and one.declared for one in await runner.schedules())
    if not await runner.unschedule(name):
        return _unknown(name)
    tell(f"schedule {name} is removed")
    if declared:
        say(f"a runner that declares {name} puts it back when it starts: remove the decorator too")
    return OK


def _unknown(name: str) -> int:
    say(f"there is no schedule {name!r}; `taskrunner schedules` lists them")
    return FAILURE

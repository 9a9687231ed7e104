"""``taskrunner doctor``: what an examination has found, as a table or as JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import Any

from rich.console import Group
from rich.text import Text

from ..errors import RedisConfigurationError, RedisError
from ..runner import TaskRunner
from ..store.examine import Subject, examine
from ..store.finding import Finding, some
from ..store.repair import Repaired, repair
from .console import make_console, make_table

OK, FAILURE, USAGE = 0, 1, 2
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "dim"}


def show_doctor(runner: TaskRunner, *, certain: bool, mend: bool, as_json: bool) -> int:
    """Examines and prints; mends before, if asked. The exit code: 1 when there are problems, or the server is away.

    ``certain``: the runner is the application's, and not one of default settings.
    """
    try:
        repaired, found = asyncio.run(_examine(runner, certain, mend))
    except RedisError as error:
        print(f"taskrunner: {error}", file=sys.stderr)
        return USAGE if isinstance(error, RedisConfigurationError) else FAILURE
    namespace = runner.settings.namespace
    if as_json:
        print(json.dumps(plain(namespace, found, repaired)))
    else:
        make_console().print(picture(namespace, found, repaired))
    return FAILURE if any(finding.level == "problem" for finding in found) else OK


async def _examine(runner: TaskRunner, certain: bool, mend: bool) -> tuple[Repaired | None, list[Finding]]:
    async with runner:
        store = runner.session().store
        await store.open()  # not runner.opened(): that waits half a minute for a server to come back
        subject = Subject(store, runner.settings.durability, certain)
        repaired = await repair(subject) if mend else None
        return repaired, await examine(subject)


def plain(namespace: str, found: list[Finding], repaired: Repaired | None) -> dict[str, Any]:
    """The findings as plain data; ``repaired`` is null unless asked for."""
    return {
        "namespace": namespace,
        "findings": [dataclasses.asdict(finding) for finding in found],
        "repaired": None if repaired is None else dataclasses.asdict(repaired),
    }


def picture(namespace: str, found: list[Finding], repaired: Repaired | None) -> Group:
    """One line per finding, after what was mended."""
    table = make_table(f"Examination of {namespace}")
    table.add_column("check", style="cyan", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in found:
        table.add_row(finding.check, Text(finding.level, style=STYLES[finding.level]), Text(finding.text))
    return Group(*([] if repaired is None else [Text(mended(repaired)), Text()]), table)


def mended(repaired: Repaired) -> str:
    """What a repair has done, in words."""
    numbers = (
        (repaired.readded, f"{some(repaired.readded, 'job')} put back into the queue"),
        (repaired.orphaned, f"{some(repaired.orphaned, 'job')} without entry or letter ended as failed"),
        (repaired.consumers, f"{some(repaired.consumers, 'consumer')} of workers that are gone removed"),
        (repaired.unique, f"{some(repaired.unique, 'unique key')} freed"),
        (repaired.seats, f"{some(repaired.seats, 'seat')} of locks and limits freed"),
        (repaired.workflows, f"{some(repaired.workflows, 'workflow')} that lacked a part seen to"),
        (repaired.counts, f"{some(repaired.counts, 'count')} corrected"),
    )
    done = [text for number, text in numbers if number] or ["nothing was to be done"]
    busy = f"; the counts of {', '.join(repaired.busy)} change too fast to correct them now" if repaired.busy else ""
    return f"Repaired: {', '.join(done)}{busy}."

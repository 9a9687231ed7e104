"""``taskrunner job``: one job, or those in a state."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ..errors import JobFailed, JobNotFound
from ..job import JobInfo, JobStatus
from ..progress import JobProgress
from ..runner import TaskRunner
from .asking import ask, server_time, tell
from .choice import FAILURE, OK, Json, Namespace, Reference, Url, choose, say, split
from .durations import show_duration
from .instants import show_distance, show_instant
from .layout import show_card, show_list
from .printable import shortened, to_json

app = typer.Typer(help="Look at jobs, cancel them, run dead ones again.", no_args_is_help=True)

Words = Annotated[
    list[str], typer.Argument(metavar="[MODULE:RUNNER] ID", help="The runner, unless there is --url, and a job's ID.")
]
ONE_ID = "give the ID of one job: MODULE:RUNNER ID, or --url URL ID"


@app.command()
def show(words: Words, url: Url = None, namespace: Namespace = None, as_json: Json = False) -> None:
    """Show where a job stands."""
    reference, [id] = split(words, url, ONE_ID, most=1)
    ask(choose(reference, url, namespace), partial(_show, id=id, as_json=as_json))


async def _show(runner: TaskRunner, id: str, as_json: bool) -> int:
    try:
        info = await runner.job(id).info()
    except JobNotFound:
        dead = await runner.dead_letters.get(id)
        if dead is None:
            raise
        error = JobFailed(dead.error_type, dead.message, dead.traceback, dead.attempts, dead.reason)
        info = JobInfo(id, dead.task, dead.queue, JobStatus.FAILED, dead.attempts, ended_at=dead.failed_at, error=error)
    if as_json:
        print(to_json(**{name: getattr(info, name) for name in JobInfo.__slots__}))
        return OK
    failed, saved = info.error, "" if info.saved is None else repr(info.saved)
    fields = [
        ("task", info.task),
        ("queue", info.queue),
        ("status", info.status),
        ("attempts", str(info.attempts)),
        ("deliveries", str(info.deliveries or "")),
        ("enqueued", show_instant(info.enqueued_at)),
        ("due", show_instant(info.due_at)),
        ("ended", show_instant(info.ended_at)),
        ("run time", "" if info.run_time is None else show_duration(info.run_time)),
        ("worker", info.worker or ""),
        ("progress", _show_progress(info.progress)),
        ("saved", saved),
        ("error", str(failed or "")),
        ("reason", failed.reason if failed else ""),
    ]
    show_card(f"Job {id}", fields, [("traceback", failed.traceback)] if failed else [])
    return OK


def _show_progress(progress: JobProgress | None) -> str:
    if progress is None:
        return ""
    total = "" if progress.total is None else f" of {progress.total:g}"
    fraction = "" if progress.fraction is None else f" ({progress.fraction:.0%})"
    return f"{progress.done:g}{total}{fraction}" + (f": {progress.message}" if progress.message else "")


@app.command()
def cancel(words: Words, url: Url = None, namespace: Namespace = None) -> None:
    """Cancel a job: one that waits never runs, one that runs is cut, wherever it is."""
    reference, [id] = split(words, url, ONE_ID, most=1)
    ask(choose(reference, url, namespace), partial(_cancel, id=id))


async def _cancel(runner: TaskRunner, id: str) -> int:
    job = runner.job(id)
    if await job.cancel():
        tell(f"job {id} is cancelled")
        return OK
    say(f"job {id} has ended already, it is {await job.status()}")
    return FAILURE


@app.command()
def retry(words: Words, url: Url = None, namespace: Namespace = None) -> None:
    """Run a job again that failed for good: same ID, arguments and options, attempts from zero."""
    reference, [id] = split(words, url, ONE_ID, most=1)
    ask(choose(reference, url, namespace), partial(_retry, id=id))


async def _retry(runner: TaskRunner, id: str) -> int:
    await runner.dead_letters.retry(id)
    tell(f"job {id} runs again")
    return OK


@app.command(name="ls")
def list_jobs(
    reference: Reference = None,
    state: Annotated[JobStatus, typer.Option(help="The state that they are in.")] = JobStatus.QUEUED,
    queue: Annotated[str | None, typer.Option(help="Only those of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """List jobs in a state: those that wait next first, those that have ended newest first."""
    ask(choose(reference, url, namespace), partial(_list, state=state, queue=queue, limit=limit, as_json=as_json))


async def _list(runner: TaskRunner, state: JobStatus, queue: str | None, limit: int, as_json: bool) -> int:
    found = await runner.jobs(state.value, queue, limit)
    if as_json:
        print(to_json(namespace=runner.settings.namespace, state=state, jobs=found))
        return OK
    now = server_time(runner)
    rows = [
        [
            info.id,
            info.task,
            info.queue,
            str(info.attempts),
            show_distance(info.due_at, now),
            show_distance(info.enqueued_at, now),
            show_distance(info.ended_at, now),
            info.worker or (shortened(str(info.error), 120) if info.error else ""),
        ]
        for info in found
    ]
    columns = ["id", "task", "queue", "attempt", "due", "enqueued", "ended", "error" if state == "failed" else "worker"]
    where = runner.settings.namespace if queue is None else f"{queue} in {runner.settings.namespace}"
    show_list(f"Jobs of {where}: {state}", columns, rows, f"No job of {where} is {state}.")
    return OK

"""What can be typed: the commands, and the groups and commands of other modules.

Each command here reads its arguments and does its work in a module of its own."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .. import __version__
from . import dead, job, queues, schedules
from .choice import Json, Namespace, Reference, Url, choose, duration, fail

app = typer.Typer(
    help="Background jobs for asyncio on Redis Streams.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 threshold exceeded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(job.app, name="job")
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"taskrunner {__version__}")
        raise typer.Exit


@app.callback()
def taskrunner(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    reference: Annotated[
        str, typer.Argument(metavar="MODULE:RUNNER", help="Where the TaskRunner is, such as app:runner.")
    ],
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="How many worker processes.")] = 1,
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these queues; else the default one and those of the tasks.")
    ] = None,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Use uvloop, which must be installed.")] = False,
) -> None:
    """Run workers. A dead one is replaced; SIGTERM or Ctrl-C drains all of them, a second one hands back what runs."""
    if os.name == "nt":
        fail("`taskrunner run` needs Linux or macOS; call `asyncio.run(runner.run())` in a program of your own")
    from .run import run as run_workers

    raise typer.Exit(run_workers(reference, processes, uvloop, queues))


@app.command()
def stats(
    reference: Reference = None,
    url: Url = None,
    namespace: Namespace = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; a drain time of null is never, as nobody consumes.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again each second, until Ctrl-C.")] = False,
    fail_over: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Exit with 3 when a drain time is over this, such as 30s or 5m."),
    ] = None,
) -> None:
    """Show how long the queues are, and how long they will take to drain."""
    from .stats import Wish, show_stats

    limit = duration(fail_over, "--fail-over")
    if limit is not None and watch:
        fail("give --watch or --fail-over, not both: the one goes on, the other ends with a verdict")
    runner = choose(reference, url, namespace)
    raise typer.Exit(show_stats(runner, Wish(queue, as_json, watch, limit)))


@app.command()
def doctor(
    reference: Reference = None,
    url: Url = None,
    namespace: Namespace = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put back or end what can't go on, and tidy up; workers may go on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Examine the server and what is in it: settings, rights, clock, leftovers, jobs that are cut off."""
    from .doctor import show_doctor

    runner = choose(reference, url, namespace)
    raise typer.Exit(show_doctor(runner, certain=reference is not None, mend=repair, as_json=as_json))


for command in (queues.pause, queues.resume, queues.purge):
    app.command()(command)


@app.command()
def demo(
    stay: Annotated[
        bool, typer.Option("--stay", help="Then go on with a steady stream of jobs, until Ctrl-C.")
    ] = False,
) -> None:
    """See it work: real jobs in two processes, one of which is killed on the way, and every result checked."""
    if os.name == "nt":
        fail("the demo needs Linux or macOS, for its embedded server")
    from .demo.play import play

    raise typer.Exit(play(stay))

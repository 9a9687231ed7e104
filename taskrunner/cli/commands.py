"""What can be typed. Each command reads its arguments here and does its work in a module of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .. import __version__
from ..errors import RedisConfigurationError, TaskOptionError
from ..runner import TaskRunner
from .durations import parse_duration
from .reference import BadReference, load_runner

app = typer.Typer(
    help="Background jobs for asyncio on Redis Streams.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 threshold exceeded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Reference = Annotated[str, typer.Argument(metavar="MODULE:RUNNER", help="Where the TaskRunner is, such as app:runner.")]


def _fail(text: str, code: int = 2) -> NoReturn:
    print(f"taskrunner: {text}", file=sys.stderr)
    raise typer.Exit(code)


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
    reference: Reference,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="How many worker processes.")] = 1,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Use uvloop, which must be installed.")] = False,
) -> None:
    """Run workers. A dead one is replaced; SIGTERM or Ctrl-C drains all of them, a second one hands back what runs."""
    if os.name == "nt":
        _fail("`taskrunner run` needs Linux or macOS; call `asyncio.run(runner.run())` in a program of your own")
    from .run import run as run_workers

    raise typer.Exit(run_workers(reference, processes, uvloop))


@app.command()
def stats(
    reference: Annotated[
        str | None, typer.Argument(metavar="MODULE:RUNNER", help="The runner to ask about; or give --url.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The server; a runner of default settings.", envvar="TASKRUNNER_REDIS_URL")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="With --url; `taskrunner` if not given.")] = None,
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

    limit = None
    if fail_over is not None:
        try:
            limit = parse_duration(fail_over)
        except ValueError as error:
            _fail(f"--fail-over: {error}")
        if watch:
            _fail("give --watch or --fail-over, not both: the one goes on, the other ends with a verdict")
    runner = _runner_to_ask(reference, url, namespace)
    raise typer.Exit(show_stats(runner, Wish(queue, as_json, watch, limit)))


@app.command()
def doctor(
    reference: Annotated[
        str | None, typer.Argument(metavar="MODULE:RUNNER", help="The runner to examine; or give --url.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The server; a runner of default settings.", envvar="TASKRUNNER_REDIS_URL")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="With --url; `taskrunner` if not given.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put back or end what can't go on, and tidy up; workers may go on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Examine the server and what is in it: settings, rights, clock, leftovers, jobs that are cut off."""
    from .doctor import show_doctor

    runner = _runner_to_ask(reference, url, namespace)
    raise typer.Exit(show_doctor(runner, certain=reference is not None, mend=repair, as_json=as_json))


def _runner_to_ask(reference: str | None, url: str | None, namespace: str | None) -> TaskRunner:
    if reference is not None:
        if namespace is not None:
            _fail("give MODULE:RUNNER or --namespace, not both: the runner has its own")
        try:
            runner = load_runner(reference)
        except BadReference as problem:
            _fail(str(problem))
    elif url is None:
        _fail("which server? Give MODULE:RUNNER, or --url, or set TASKRUNNER_REDIS_URL")
    else:
        try:
            runner = TaskRunner(url) if namespace is None else TaskRunner(url, namespace=namespace)
        except (RedisConfigurationError, TaskOptionError) as problem:
            _fail(str(problem))
        folder = url.removeprefix("embedded://")
        if folder.startswith("/") and folder != url and not Path(folder, "taskrunner-valkey").is_dir():
            _fail(f"no embedded server ever kept its data in {folder}", code=1)
    if runner.owns_server and "TASKRUNNER_EMBEDDED_URL" not in os.environ:
        _fail("the server of embedded:// is seen by its own process only; use embedded:///folder, or a server's URL")
    return runner


@app.command()
def demo(
    stay: Annotated[
        bool, typer.Option("--stay", help="Then go on with a steady stream of jobs, until Ctrl-C.")
    ] = False,
) -> None:
    """See it work: real jobs in two processes, one of which is killed on the way, and every result checked."""
    if os.name == "nt":
        _fail("the demo needs Linux or macOS, for its embedded server")
    from .demo.play import play

    raise typer.Exit(play(stay))

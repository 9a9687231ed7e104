"""What commands have in common to type: the runner that they are about, and ids or names after it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..errors import RedisConfigurationError, TaskOptionError
from ..runner import TaskRunner
from .durations import parse_duration
from .printable import printable
from .reference import BadReference, load_runner

OK, FAILURE, USAGE = 0, 1, 2

Reference = Annotated[
    str | None, typer.Argument(metavar="MODULE:RUNNER", help="The runner to ask about; or give --url.")
]
Url = Annotated[
    str | None, typer.Option("--url", help="The server; a runner of default settings.", envvar="TASKRUNNER_REDIS_URL")
]
Namespace = Annotated[str | None, typer.Option("--namespace", help="With --url; `taskrunner` if not given.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask back.")]

LIKE_REFERENCE = re.compile(r"[\w./-]+:[^\W\d][\w.]*")


def fail(text: str, code: int = USAGE) -> NoReturn:
    """Ends the command with one line."""
    say(text)
    raise typer.Exit(code)


def say(text: str) -> None:
    """One line on standard error."""
    print(f"taskrunner: {printable(text)}", file=sys.stderr)


def choose(reference: str | None, url: str | None, namespace: str | None) -> TaskRunner:
    """The runner that was named, or one of default settings for a URL. Ends the command when there is none."""
    if reference is not None:
        if namespace is not None:
            fail("give MODULE:RUNNER or --namespace, not both: the runner has its own")
        try:
            runner = load_runner(reference)
        except BadReference as problem:
            fail(str(problem))
    elif url is None:
        fail("which server? Give MODULE:RUNNER, or --url, or set TASKRUNNER_REDIS_URL")
    else:
        try:
            runner = TaskRunner(url) if namespace is None else TaskRunner(url, namespace=namespace)
        except (RedisConfigurationError, TaskOptionError) as problem:
            fail(str(problem))
        folder = url.removeprefix("embedded://")
        if folder.startswith("/") and folder != url and not Path(folder, "taskrunner-valkey").is_dir():
            fail(f"no embedded server ever kept its data in {folder}", code=FAILURE)
    if runner.owns_server and "TASKRUNNER_EMBEDDED_URL" not in os.environ:
        fail("the server of embedded:// is seen by its own process only; use embedded:///folder, or a server's URL")
    return runner


def duration(text: str | None, option: str) -> float | None:
    """The seconds that an option was given, if it was."""
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        fail(f"{option}: {error}")


def split(
    words: Sequence[str] | None, url: str | None, usage: str, least: int = 1, most: int | None = None
) -> tuple[str | None, list[str]]:
    """The reference of a runner, if one stands first, and what follows it: ``least`` to ``most`` ids or names.

    ``usage`` is said to who gives too many or too few. The id of a job may look like a reference: it is one when there
    would be too many words else, or, where any number will do, unless the URL was typed.
    """
    given = list(words or ())
    typed = url is not None and url != os.environ.get("TASKRUNNER_REDIS_URL")
    like = bool(given) and LIKE_REFERENCE.fullmatch(given[0]) is not None
    leads = like and len(given) > (least if most is None else most) and not (most is None and typed)
    rest = given[1:] if leads else given
    nameless = like and not leads and url is None
    if nameless or len(rest) < least or (most is not None and len(rest) > most):
        fail(usage)
    return (given[0] if leads else None), rest


def confirm(text: str, yes: bool) -> None:
    """Asks back unless ``yes``. Ends the command when the answer is no, or nobody can be asked."""
    if yes:
        return
    may_ask(yes)
    # Not typer.confirm(), which writes to standard output too.
    print(f"{printable(text)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("nothing was done", code=FAILURE)


def may_ask(yes: bool) -> None:
    """Ends the command when it needs an answer that nobody can give. To be called before anything is connected."""
    if not yes and not (sys.stdin and sys.stdin.isatty()):
        fail("this removes what can't be had back: confirm it with --yes")

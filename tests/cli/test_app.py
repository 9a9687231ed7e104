"""The door of the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import taskrunner
from tests.cli.terminal import Command
from tests.programs import Program


@pytest.mark.parametrize("missing", ["typer", "rich"])
async def test_without_the_extra_one_sentence_names_it(program: Callable[..., Program], missing: str) -> None:
    started = program(f"""
        import sys
        sys.stderr = sys.stdout
        sys.modules[{missing!r}] = None
        from taskrunner.cli.app import main
        main()
    """)
    line = await started.line()
    assert line == f"The command line needs {missing}: pip install 'taskrunner-streams[cli]'"
    assert await started.ended() == 2


async def test_version_and_help_say_what_there_is(command: Callable[..., Command]) -> None:
    version = command("--version")
    assert await version.ended() == 0
    assert version.out == [f"taskrunner {taskrunner.__version__}"]
    shown = command("--help")
    assert await shown.ended() == 0
    text = "\n".join(shown.out)
    assert all(name in text for name in ("run", "stats", "demo", "Exit codes"))


async def test_what_is_no_command_is_a_usage_error(command: Callable[..., Command]) -> None:
    assert await command("dance").ended() == 2

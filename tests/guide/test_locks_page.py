"""What docs/locks.md says, where no other test shows it, and whether the tests exist that it names."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskrunner import TaskRunner
from taskrunner.needs import fence
from tests.guide.references import is_there
from tests.programs import Program

PAGE = (Path(__file__).parents[2] / "docs" / "locks.md").read_text("utf-8")

WRITER = """
    import asyncio, os, sqlite3
    from taskrunner import GiveUp, JobContext, TaskRunner

    runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=1, reservation_timeout=1)
    database = sqlite3.connect(os.environ["DATABASE"], isolation_level=None, timeout=20, check_same_thread=False)
    mine = os.environ["TEXT"]

    def write(text, fence):
        query = "UPDATE report SET text = ?, fence = ? WHERE fence <= ?"
        return database.execute(query, (text, fence, fence)).rowcount == 1

    @runner.task(lock_key="report")
    def work(ctx: JobContext) -> str:  # in a thread, which can't be cut
        print("begins", write("claimed", ctx.fence), flush=True)
        input()
        print("wrote", write(mine, ctx.fence), flush=True)
        return mine

    asyncio.run(runner.run())
"""


async def test_a_writer_that_was_stopped_while_its_lock_went_on_is_refused(
    runner: TaskRunner, url: str, namespace: str, program: Callable[..., Program], tmp_path: Path
) -> None:
    path = str(tmp_path / "reports")
    database = sqlite3.connect(path, isolation_level=None, timeout=20)
    database.execute("CREATE TABLE report (text TEXT, fence BIGINT)")
    database.execute("INSERT INTO report VALUES ('', 0)")
    job = await runner.declare("work", lock_key="report").dispatch()

    def writer(text: str) -> Program:
        return program(WRITER, URL=url, NAMESPACE=namespace, DATABASE=path, TEXT=text)

    late = writer("late")
    assert await late.line() == "begins True"
    late.signal(signal.SIGSTOP)
    heir = writer("heir")
    assert await heir.line() == "begins True", "it took the job over"
    late.signal(signal.SIGCONT)
    go_on(late)
    assert await late.line() == "wrote False"
    go_on(heir)
    assert await heir.line() == "wrote True"
    assert await job.result(timeout=20) == "heir"
    assert database.execute("SELECT text FROM report").fetchall() == [("heir",)]
    database.close()
    for one in (late, heir):
        one.signal(signal.SIGTERM)
        assert await one.ended() == 0


def go_on(program: Program) -> None:
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()


def test_a_fence_fits_a_signed_column_of_64_bits_until_2039() -> None:
    def at(year: int) -> int:
        return fence(round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1_000_000))

    assert at(2026) < at(2039) < 2**63


NAMED = re.findall(r"`([a-z_/]+\.py::\w+)`", PAGE)


@pytest.mark.parametrize("reference", sorted(set(NAMED)))
def test_the_tests_that_the_page_names_exist(reference: str) -> None:
    assert is_there(reference)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 30

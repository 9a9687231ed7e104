"""An import of several steps, and a clean-up that runs when one of them has failed for good.

    python examples/import_with_cleanup.py

Rows go into a table of their own first, and only when all are there and right into the real one. A step that fails is
retried like any job; when it fails for good, the steps after it never run, and what is left of the import is removed.
It ends by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

from taskrunner import Backoff, GiveUp, GroupJob, JobContext, JobFailed, TaskRunner, chain, group

runner = TaskRunner("embedded://", namespace="import-example")
database = sqlite3.connect(":memory:", isolation_level=None)
database.execute("CREATE TABLE customer (name TEXT PRIMARY KEY)")
database.execute("CREATE TABLE staged (import TEXT, line INTEGER, name TEXT, PRIMARY KEY (import, line))")

FILES = {"monday": ["ann", "bob", "cleo"], "tuesday": ["dora", "", "emil"]}


@runner.task
async def read(name: str) -> int:
    """Steps may run twice, when their worker dies; so each writes what it would write again."""
    rows = [(name, line, text) for line, text in enumerate(FILES[name], 1)]
    database.executemany("INSERT OR REPLACE INTO staged VALUES (?, ?, ?)", rows)
    return len(rows)


@runner.task(max_retry=2, backoff=Backoff.constant(0.05))
async def check(ctx: JobContext, name: str) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("the register is away")  # is tried again, and is no failure of the import
    for line, text in database.execute("SELECT line, name FROM staged WHERE import = ?", (name,)):
        if not text:
            raise GiveUp(f"line {line} of {name} has no name")  # no use in trying again
    return int(ctx.previous)


@runner.task
async def take_over(ctx: JobContext, name: str) -> str:
    database.execute("INSERT OR REPLACE INTO customer SELECT name FROM staged WHERE import = ?", (name,))
    database.execute("DELETE FROM staged WHERE import = ?", (name,))
    return f"{ctx.previous} customers of {name}"


@runner.task
async def announce(ctx: JobContext) -> None:
    [text] = ctx.previous
    print(f"imported: {text}")


@runner.task
async def clean_up(name: str) -> str:
    gone = database.execute("DELETE FROM staged WHERE import = ?", (name,)).rowcount
    return f"{gone} staged rows of {name} removed"


async def start_import(name: str) -> GroupJob[Any]:
    """A group of one, for a group is what has ``then`` and ``on_failure``. With this id there is one import of a name,
    however often somebody asks for it."""
    steps = chain(read.job(name), check.job(name), take_over.job(name))
    return await runner.dispatch(group(steps, then=announce.job(), on_failure=clean_up.job(name), id=f"import-{name}"))


async def main() -> None:
    async with runner.start():
        good = await start_import("monday")
        assert good.then is not None
        await good.then.wait(timeout=10)

        bad = await start_import("tuesday")
        try:
            await bad.results(timeout=10)
        except JobFailed as failure:
            print(f"failed: {failure.message}, after {failure.attempts} attempts")
        assert bad.on_failure is not None
        print(f"cleaned up: {await bad.on_failure.result(timeout=10)}")
        info = await bad.info()
        print(f"{info.id} has {info.status}: {', '.join(info.jobs.values())}")

        again = await start_import("tuesday")
        print(f"asked for again: deduplicated={again.deduplicated}")
        [letter] = await runner.dead_letters.list()
        print(f"dead letter: {letter.task} {letter.args}")
    customers = [name for (name,) in database.execute("SELECT name FROM customer ORDER BY name")]
    staged = database.execute("SELECT count(*) FROM staged").fetchone()[0]
    print(f"customers: {', '.join(customers)}; staged: {staged}")


if __name__ == "__main__":
    asyncio.run(main())

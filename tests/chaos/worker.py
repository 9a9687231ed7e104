"""The worker process of a chaos run: consumes until SIGTERM, or until it is killed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

from taskrunner import TaskRunner
from tests.chaos import standstills, tasks
from tests.chaos.journal import Journal

LOG_FORMAT = "%(created).6f %(levelname)s %(name)s %(message)s"


def main() -> None:
    folder = Path(os.environ["CHAOS_FOLDER"])
    logging.basicConfig(filename=folder / f"worker-{os.getpid()}.log", level=logging.INFO, format=LOG_FORMAT)
    journal = Journal(folder, "worker")
    runner = TaskRunner(os.environ["CHAOS_URL"], **json.loads(os.environ["CHAOS_OPTIONS"]))
    tasks.register(runner, journal, int(os.environ["CHAOS_MAX_RETRY"]))
    runner.on_startup(lambda: journal.write("worker up"))
    runner.on_shutdown(lambda: journal.write("worker down"))
    asyncio.run(_consume(runner, journal))


async def _consume(runner: TaskRunner, journal: Journal) -> None:
    watch = asyncio.create_task(standstills.watch(journal))
    await runner.run()
    watch.cancel()


if __name__ == "__main__":
    main()

"""Two programs that share no code: one dispatches by name, the other has the function.

    python examples/producer_only.py

The producer is this process; it starts the worker as a process of its own, so that there is something to see. In
earnest the two would be in different code bases, and the worker would be started by ``taskrunner run module:runner``.
It ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile

from taskrunner import JobFailed, TaskRunner


async def produce(url: str) -> None:
    """The side without the function. It needs the name of the task, and nothing else of the other side."""
    async with TaskRunner(url, namespace="thumbnails") as runner:
        # Options that belong to the dispatch are declared here; how often to retry is decided where the job runs.
        thumbnail = runner.declare("thumbnail", unique=True, queue="images")
        jobs = [await thumbnail.dispatch(f"picture-{n}.png", width=200) for n in range(3)]
        jobs.append(await runner.dispatch("thumbnail", "notes.txt", width=200))  # a declared task is known by name
        for job in jobs:
            try:
                print(f"producer: got {await job.result(timeout=20)}")
            except JobFailed as failure:
                print(f"producer: {failure.message} ({failure.reason})")


async def work(url: str) -> None:
    """The side with the function."""
    runner = TaskRunner(url, namespace="thumbnails")

    @runner.task(queue="images", max_retry=0)
    async def thumbnail(path: str, width: int) -> dict[str, object]:
        if not path.endswith(".png"):
            raise ValueError(f"{path} is no picture")
        return {"path": path.replace(".png", f"-{width}.png"), "worker": os.getpid()}

    await runner.run()  # until SIGTERM or SIGINT


def main() -> None:
    if sys.argv[1:]:
        asyncio.run(work(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        # Any Redis will do. Processes that name the same embedded:///folder share one server.
        url = os.environ.get("TASKRUNNER_REDIS_URL") or f"embedded://{folder}"
        worker = subprocess.Popen([sys.executable, __file__, url])
        try:
            print(f"producer is process {os.getpid()}, worker is process {worker.pid}", flush=True)
            asyncio.run(produce(url))
        finally:
            worker.terminate()  # the worker drains, then ends
            worker.wait(timeout=30)


if __name__ == "__main__":
    main()

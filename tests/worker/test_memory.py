"""Memory: what waits behind a worker is the server's business."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

from taskrunner import TaskRunner
from tests.programs import Program
from tests.servers import Server

WAITING = 100_000
LIMIT = 20 * 1024 * 1024

# Runs so many jobs, tells, holds the next ones until it reads a line, and so on.
WORKER = """
import asyncio, os, sys
from taskrunner import TaskRunner

runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=50)
ran, pause, go_on = 0, 2_000, asyncio.Event()

@runner.task
async def noop(text: str) -> None:
    global ran
    ran += 1
    if ran == pause:
        print("paused", flush=True)
    if ran >= pause:
        await go_on.wait()

async def main():
    global pause
    async with runner.start():
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        pause += 20_000
        go_on.set()
        go_on.clear()
        await asyncio.to_thread(sys.stdin.readline)
        os._exit(0)

asyncio.run(main())
"""


async def test_a_worker_with_a_hundred_thousand_jobs_behind_it_grows_by_less_than_20_mb(
    own_server: Server, namespace: str, make_runner: Callable[..., TaskRunner], program: Callable[..., Program]
) -> None:
    producer = make_runner(own_server.url)
    noop = producer.declare("noop", ignore_result=True)
    worker = program(WORKER, URL=own_server.url, NAMESPACE=namespace)
    assert await worker.line() == "started"
    process = psutil.Process(worker.pid)
    await producer.dispatch_many([noop.job("x" * 100)] * 2_000)
    assert await worker.line() == "paused"
    before = process.memory_info().rss

    await producer.dispatch_many([noop.job("x" * 100)] * (WAITING + 20_000))
    seen = [process.memory_info().rss]
    running = asyncio.create_task(worker.line())
    assert worker.process.stdin is not None
    print(file=worker.process.stdin, flush=True)
    while not running.done():
        seen.append(process.memory_info().rss)
        await asyncio.sleep(0.01)
    assert await running == "paused"
    assert (await producer.stats("default")).waiting > WAITING * 0.9
    assert len(seen) > 10
    assert max(seen) - before < LIMIT, f"it grew by {(max(seen) - before) / 1024 / 1024:.0f} MB"

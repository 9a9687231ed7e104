"""Memory: what waits behind a worker is the server's business."""

from __future__ import annotations

import gc
from collections.abc import Callable

import psutil
import pytest

from taskrunner import TaskRunner
from tests.faults.servers import Server
from tests.programs import Program
from tests.waiting import eventually

WAITING = 100_000
LIMIT = 20 * 1024 * 1024

WORKER = """
import asyncio, os, sys
from taskrunner import TaskRunner

runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=50)
ran, enough = 0, asyncio.Event()

@runner.task
async def noop(text: str) -> None:
    global ran
    ran += 1
    if ran == 20_000:
        print("enough", flush=True)
    if ran >= 20_000:
        await asyncio.sleep(3600)

async def main():
    async with runner.start():
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    os._exit(0)

asyncio.run(main())
"""

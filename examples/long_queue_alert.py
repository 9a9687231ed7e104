"""An alert that scales: while the queue would take too long to drain, more worker processes are started.

    python examples/long_queue_alert.py

This process holds few slots and a long queue. The hook fires when the expected drain time is over the threshold, and
starts as many processes as would drain the queue in time; it is called once more when the drain time has fallen to
``clear``, and stops them. It ends by itself when the queue is empty.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile

from taskrunner import QueueStats, Task, TaskRunner

THRESHOLD, CLEAR = 2.0, 0.5
"""Seconds of drain time."""
MOST = 2
"""Further processes at the same time."""


async def resize(picture: int) -> None:
    await asyncio.sleep(0.05)


def make_runner(url: str) -> tuple[TaskRunner, Task[[int], None]]:
    runner = TaskRunner(url, namespace="long-queue", num_workers=5, batch_size=5)
    return runner, runner.task(resize)


class Fleet:
    """The worker processes beside this one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.working: list[subprocess.Popen[bytes]] = []
        self._stopped: list[subprocess.Popen[bytes]] = []
        self.cleared = asyncio.Event()

    def scale(self, stats: QueueStats) -> None:
        """The hook; it may as well be async. ``is_long`` is False in the one call that ends an alert."""
        if not stats.is_long:
            print(f"alert cleared: {stats.waiting} waiting, {stats.drain_time:.1f} s to drain", flush=True)
            self.stop()
            self.cleared.set()
            return
        wanted = min(stats.desired_replicas(target=THRESHOLD) - 1, MOST)
        print(
            f"alert: {stats.waiting} waiting, {stats.drain_time:.1f} s to drain with {stats.replicas} process(es); "
            f"{wanted} more wanted, {len(self.working)} there",
            flush=True,
        )
        while len(self.working) < wanted:
            self.working.append(subprocess.Popen([sys.executable, __file__, self._url]))
            print(f"started process {self.working[-1].pid}", flush=True)

    def stop(self) -> None:
        """A process that gets SIGTERM hands back what has not started, finishes what runs, and signs off."""
        for process in self.working:
            process.terminate()
            print(f"stopping process {process.pid}", flush=True)
        self._stopped += self.working
        self.working.clear()

    def close(self) -> None:
        self.stop()
        for process in self._stopped:
            process.wait(timeout=40)


async def main(url: str) -> None:
    (runner, task), fleet = make_runner(url), Fleet(url)
    runner.on_long_queue(threshold=THRESHOLD, clear=CLEAR)(fleet.scale)
    try:
        async with runner.start():
            jobs = await runner.dispatch_many([task.job(n) for n in range(600)])
            await fleet.cleared.wait()
            for job in jobs:
                await job.wait(timeout=30)
            print("the queue is empty", flush=True)
    finally:
        await asyncio.to_thread(fleet.close)


async def work(url: str) -> None:
    await make_runner(url)[0].run()  # until SIGTERM


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(work(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(os.environ.get("TASKRUNNER_REDIS_URL") or f"embedded://{folder}"))

"""Tasks that fault tests run, in the test's process and in workers that are killed, and the journal that they write."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio

from taskrunner import Backoff, JobContext, Limit, TaskRunner, TaskStats
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.worker import inventory
from tests.faults.flows import Flows
from tests.faults.rude import Rude
from tests.programs import Program
from tests.waiting import eventually

POLL = 0.01
FEW = 3
"""How many of the limited tasks may run at once."""


@dataclass(frozen=True)
class Line:
    """What a handler wrote: its event, its job, its process, and when (``time.monotonic()``, one clock for all)."""

    event: str
    job: str
    pid: int
    attempt: int
    deliveries: int
    at: float
    fence: int


class Journal:
    """What happened, told outside of Redis: each line is one write to a file opened with O_APPEND, so that it stands
    whoever is killed afterwards."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, job: JobContext) -> None:
        line = [event, job.job_id, os.getpid(), job.attempt, job.deliveries, time.monotonic(), job.fence]
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def lines(self, *events: str, job: str = "", pid: int = 0) -> list[Line]:
        """The lines of these events; of one job or process, when given."""
        whole, _, _ = self._path.read_text().rpartition("\n")  # another process may be in the middle of a line
        found = (Line(*json.loads(text)) for text in whole.splitlines())
        return [line for line in found if line.event in events and job in ("", line.job) and pid in (0, line.pid)]

    def count(self, event: str) -> int:
        """How many lines have this event; cheap, for those who look again and again."""
        return self._path.read_bytes().count(f'["{event}",'.encode())

    def close(self) -> None:
        os.close(self._file)


class Workshop:
    """Registers the tasks with a runner. ``folder`` holds the journal, and the gates: files that tasks wait for."""

    def __init__(self, runner: TaskRunner, folder: Path) -> None:
        self.runner = runner
        self.folder = folder
        self.journal = journal = Journal(folder)
        is_open = self._is_open
        self._holding = 0

        @runner.task
        async def quick(ctx: JobContext, value: Any = None) -> Any:
            journal.write("start", ctx)
            journal.write("end", ctx)
            return value

        @runner.task(max_retry=3, backoff=Backoff.constant(0.1))
        async def flaky(ctx: JobContext, value: Any = None) -> Any:
            """Fails in its first attempt; the second is soon."""
            journal.write("start", ctx)
            if ctx.attempt == 1:
                raise ValueError("the first time")
            journal.write("end", ctx)
            return value

        @runner.task(max_retry=3, backoff=Backoff.constant(0.1))
        async def relay(ctx: JobContext, value: Any = None, delay: float = 0.0, expires: float | None = None) -> str:
            """Dispatches another job, the same one however often it runs."""
            journal.write("start", ctx)
            job = await quick.with_options(id=f"{ctx.job_id}-next", delay=delay, expires=expires).dispatch(value)
            journal.write("end", ctx)
            return job.id

        async def nap(ctx: JobContext, seconds: float) -> int:
            journal.write("start", ctx)
            await asyncio.sleep(seconds)
            journal.write("end", ctx)
            return os.getpid()

        sip = runner.task(name="sip", limit=Limit(FEW))(nap)

        async def hold(ctx: JobContext, gate: str) -> int:
            """Runs until its gate is open, for all or for its process."""
            journal.write("start", ctx)
            self._holding += 1
            try:
                while not is_open(gate):  # noqa: ASYNC110 - others open it, from other processes
                    # A thousand that look a hundred times a second would take all of a processor.
                    await asyncio.sleep(POLL * (1 + self._holding // 20))
            except asyncio.CancelledError:
                journal.write("cancelled", ctx)
                raise
            finally:
                self._holding -= 1
            journal.write("end", ctx)
            return os.getpid()

        limited = runner.task(name="limited", limit=Limit(FEW))(hold)

        @runner.task
        async def block(ctx: JobContext, gate: str) -> int:
            """The same, but it keeps the event loop to itself."""
            journal.write("start", ctx)
            while not is_open(gate):
                time.sleep(POLL)  # noqa: ASYNC251 - that is the point
            journal.write("end", ctx)
            return os.getpid()

        @runner.task
        async def block_for(ctx: JobContext, seconds: float) -> int:
            journal.write("start", ctx)
            time.sleep(seconds)  # noqa: ASYNC251 - that is the point
            journal.write("end", ctx)
            return os.getpid()

        @runner.task
        async def die(ctx: JobContext, code: int = 3) -> None:
            journal.write("start", ctx)
            os._exit(code)

        self.quick, self.nap, self.sip, self.hold, self.limited = (
            quick,
            runner.task(nap),
            sip,
            runner.task(hold),
            limited,
        )
        self.block, self.block_for, self.die, self.flaky, self.relay = block, block_for, die, flaky, relay
        self.rude = Rude(runner, folder, journal.write, is_open)
        self.flows = Flows(runner, journal.write)

    def open_gate(self, gate: str, pid: int = 0) -> None:
        """Lets through those who wait for this gate; with ``pid`` only those in that process."""
        (self.folder / (f"{gate}-{pid}" if pid else gate)).touch()

    def _is_open(self, gate: str) -> bool:
        return (self.folder / gate).exists() or (self.folder / f"{gate}-{os.getpid()}").exists()

    async def seen(self, count: int, *events: str, job: str = "", pid: int = 0) -> list[Line]:
        """The lines of these events, when there are so many."""

        def enough() -> list[Line] | None:
            lines = self.journal.lines(*events, job=job, pid=pid)
            return lines if len(lines) >= count else None

        found: list[Line] = await eventually(enough)
        return found


class Fleet:
    """Worker processes that share a namespace, and a runner in this process that has the same tasks."""

    def __init__(
        self,
        url: str,
        namespace: str,
        folder: Path,
        program: Callable[..., Program],
        make_runner: Callable[..., TaskRunner],
        **options: Any,
    ) -> None:
        self._program = program
        self._options = {"reservation_timeout": 1, "shutdown_timeout": 5} | options
        self.url, self.namespace, self.folder = url, namespace, folder
        self.runner = make_runner(url, **self._options)
        self.tasks = Workshop(self.runner, folder)
        self.journal = self.tasks.journal

    async def worker(
        self, *, prefetch: int = 0, url: str = "", environment: Mapping[str, str] | None = None, **options: Any
    ) -> Program:
        """A worker process that consumes; with ``prefetch`` one that always takes so many jobs more than it has slots
        for, as others do while they are fast; with ``url`` by another way, and with an ``environment`` of its own."""
        started = self._program(
            "from tests.faults.workshop import work; work()",
            URL=url or self.url,
            NAMESPACE=self.namespace,
            FOLDER=str(self.folder),
            OPTIONS=json.dumps(self._options | options),
            PREFETCH=str(prefetch),
            **(environment or {}),
        )
        assert await started.line() == "started"
        return started

    async def end(self, worker: Program) -> None:
        """Ends a worker process as an operator does."""
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0

    @property
    def keys(self) -> PartitionKeys:
        return Keyspace("taskrunner", self.namespace, 1).partitions[0]

    @property
    def stream(self) -> str:
        return self.keys.queue("default").stream

    async def pending(self, client: redis.asyncio.Redis) -> int:
        """How many jobs are in the hands of workers, as the server sees it."""
        summary = await client.xpending(self.stream, "taskrunner")
        return int(summary["pending"])

    async def alone(self, client: redis.asyncio.Redis) -> bool:
        """Whether one worker is left, and the dead have been tidied away from all streams."""
        workers, consumers = set(await client.zrange(self.keys.workers, 0, -1)), set[bytes]()
        async for stream in client.scan_iter(match=f"{self.keys.prefix}stream:*", count=1000):
            for group in await client.xinfo_groups(stream):
                consumers |= {one["name"] for one in await client.xinfo_consumers(stream, group["name"])}
        # Before 7.2 a read that brings nothing makes no consumer.
        return len(workers) == 1 and consumers <= workers

    async def figures(self, task: str) -> TaskStats:
        """What the server has counted for a task."""
        return (await self.runner.stats("default")).per_task[task]

    def log(self, worker: Program) -> str:
        """What a worker process has logged."""
        return (self.folder / f"log-{worker.pid}").read_text()


def work() -> None:
    """The main program of a worker process: consumes until SIGTERM, or until it is killed."""
    folder = Path(os.environ["FOLDER"])
    logging.basicConfig(filename=folder / f"log-{os.getpid()}", level=logging.INFO)
    prefetch = int(os.environ["PREFETCH"])
    if prefetch:
        inventory.Meter.rate = lambda self, now: (prefetch + 0.5) / inventory.READ_AHEAD
    runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], **json.loads(os.environ["OPTIONS"]))
    Workshop(runner, folder)
    runner.on_startup(lambda: print("started", flush=True))
    asyncio.run(runner.run())

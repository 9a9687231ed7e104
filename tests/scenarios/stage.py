"""Where a scenario plays: a server, worker processes and a journal of its own, and what did not hold."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from taskrunner import Job, TaskRunner
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

RESERVATION = 2.0
SLOTS = 10
LOST_AFTER = 90.0
"""Seconds after which a job that has not ended counts as lost."""
RESTART_AFTER = 0.5
"""Seconds after which a supervisor replaces a worker that has ended."""

Figures = Mapping[str, float | str]


class Stage:
    """One play of one scenario. ``workers`` are those that should be alive; ``problems`` is what did not hold."""

    def __init__(self, server: Server, folder: Path, seed: int) -> None:
        self._programs: list[Program] = []
        self._runners: list[TaskRunner] = []
        self._namespace = "scenario-" + secrets.token_hex(4)
        self.server = server
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.workers: list[Program] = []
        options = {"reservation_timeout": RESERVATION, "num_workers": SLOTS, "shutdown_timeout": 30}
        self.fleet = Fleet(server.url, self._namespace, folder, self.program, self._make_runner, **options)
        self.tasks, self.journal = self.fleet.tasks, self.fleet.journal

    def program(self, source: str, **environment: str) -> Program:
        """A process that does not outlive the play."""
        self._programs.append(Program(source, **environment))
        return self._programs[-1]

    def _make_runner(self, url: str, **options: Any) -> TaskRunner:
        self._runners.append(TaskRunner(url, namespace=self._namespace, **options))
        return self._runners[-1]

    def expect(self, holds: object, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    # -- workers ---------------------------------------------------------------------------------------------

    async def worker(self, **options: Any) -> Program:
        """A new worker process, which consumes."""
        worker = await self.fleet.worker(**options)
        self.workers.append(worker)
        return worker

    def by_pid(self, pid: int) -> Program:
        return next(one for one in self.workers if one.pid == pid)

    async def kill(self, worker: Program) -> int:
        """Ends a worker as a crash does. Returns how many jobs it had in hand, as the server sees it."""
        self.workers.remove(worker)
        worker.signal(signal.SIGKILL)
        await worker.ended()
        async with self.server.client() as client:
            summary = await client.xpending(self.fleet.stream, "taskrunner")
        name = (await self.names()).get(worker.pid, "").encode()
        return sum(one["pending"] for one in summary["consumers"] if one["name"] == name)

    async def _facts(self) -> dict[str, dict[str, Any]]:
        """What the registry tells of the workers, by consumer name."""
        async with self.server.client() as client:
            facts = await client.hgetall(self.fleet.keys.worker_facts)
        return {name.decode(): orjson.loads(text) for name, text in facts.items()}

    async def names(self) -> dict[int, str]:
        """The consumer names of the workers, by pid."""
        return {facts["pid"]: name for name, facts in (await self._facts()).items()}

    async def noticed_loss(self, worker: Program) -> None:
        """Waits until a worker tells that it lost a job to another one."""

        async def noticed() -> bool:
            return any(one["pid"] == worker.pid and one["lost"] for one in (await self._facts()).values())

        await eventually(noticed)

    def exits(self) -> int:
        """How many workers have ended though nobody asked them to."""
        return sum(worker.process.poll() is not None for worker in self.workers)

    @asynccontextmanager
    async def supervised(self, count: int) -> AsyncIterator[None]:
        """So many workers, each replaced when it ends, until the block does."""
        seats = [asyncio.create_task(self._seat()) for _ in range(count)]
        try:
            yield
        finally:
            for seat in seats:
                seat.cancel()
            for ended in await asyncio.gather(*seats, return_exceptions=True):
                self.expect(isinstance(ended, asyncio.CancelledError), f"a worker could not be replaced: {ended!r}")

    async def _seat(self) -> None:
        while True:
            worker = await self.worker()
            while worker.process.poll() is None:  # noqa: ASYNC110 - a process of its own sets no event
                await asyncio.sleep(0.05)
            self.workers.remove(worker)
            await asyncio.sleep(RESTART_AFTER)

    # -- what has come of the jobs ---------------------------------------------------------------------------

    async def progress(self, ends: int) -> None:
        """Waits until so many runs have ended."""
        await eventually(lambda: self.journal.count("end") >= ends, LOST_AFTER)

    async def drained(self) -> None:
        """Waits until the queue holds nothing; no longer than until what it holds counts as lost."""

        async def empty() -> bool:
            async with self.server.client() as client:
                await asyncio.sleep(0.05)
                return not await client.xlen(self.fleet.stream)

        try:
            await eventually(empty, LOST_AFTER)
        except AssertionError:
            self.problems.append(f"the queue was not empty after {LOST_AFTER:.0f} s")

    def account(self, jobs: Iterable[Job[Any]]) -> tuple[int, int]:
        """How many of these jobs were lost, and how often one ran to its end again."""
        ends = Counter(line.job for line in self.journal.lines("end"))
        counts = [ends[job.id] for job in jobs]
        lost = counts.count(0)
        self.expect(not lost, f"{lost} jobs were lost")
        return lost, sum(counts) - (len(counts) - lost)

    async def recorded_once(self, task: str, jobs: int) -> None:
        """The server must have counted each job's success, and none twice, however often it ran."""
        figures = await self.fleet.figures(task)
        self.expect(figures.succeeded == jobs, f"{figures.succeeded} successes were recorded for {jobs} jobs")

    # -- the end ---------------------------------------------------------------------------------------------

    async def leave(self, *allowed: str) -> None:
        """Ends all workers as an operator does; then nothing may be left of them, those that were killed included."""
        self.expect(not self.exits(), f"{self.exits()} workers ended by themselves")
        alive = {worker.pid for worker in self.workers}
        try:
            await eventually(lambda: self._only(alive))
        except AssertionError:
            self.problems.append("the consumers of dead workers are still there")
        for worker in self.workers:
            if worker.process.poll() is None:
                await self.fleet.end(worker)
        self.workers.clear()
        for runner in self._runners:
            await runner.aclose()
        async with self.server.client() as client:
            self.problems += await leftovers(client, self._namespace, allowed)

    async def _only(self, pids: set[int]) -> bool:
        await asyncio.sleep(0.1)
        facts = await self._facts()
        async with self.server.client() as client:
            consumers = await client.xinfo_consumers(self.fleet.stream, "taskrunner")
        known = {one["pid"] for one in facts.values()}
        return known <= pids and {one["name"].decode() for one in consumers} <= facts.keys()

    async def close(self) -> None:
        for program in self._programs:
            program.close()
        for runner in self._runners:
            await runner.aclose()
        self.journal.close()


@asynccontextmanager
async def stage(folder: Path, seed: int, *, durable: bool = False) -> AsyncIterator[Stage]:
    """A stage on a server of its own; ``durable``: one that has every write on its disk before it answers."""
    always = ["--appendfsync", "always"] if durable else []
    async with Server(folder / "server", *always, persistent=durable) as server:
        opened = Stage(server, folder, seed)
        try:
            yield opened
        finally:
            await opened.close()

"""Dispatching the jobs and collecting their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import JobError
from ...job import Job, JobStatus
from .scene import Process, Scene
from .work import RESERVATION, Report, count_file, runner

WAITERS = 64
"""Results that are waited for at once. Jobs end about in the order of dispatch, so that is where the next ones come."""
RESULT_LIMIT = 90.0
"""Seconds for all results: far more than they take, so that the demo ends even if a job never does."""
QUEUED_IN_A_ROW = 50
"""Jobs that nobody has taken, one after the other, after which those behind them need no look."""


@dataclass
class Harvest:
    """What the jobs came to, by path. ``held``: what the killed worker held then. Each path must come exactly once."""

    reports: dict[str, Report] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    victim: int = 0


class Jobs:
    """The dispatched jobs, and what has come of them so far."""

    def __init__(self, scene: Scene) -> None:
        self.harvest = Harvest()
        self._scene = scene
        self._jobs: dict[str, Job[Report]] = {}
        self._grown = asyncio.Event()

    async def dispatch(self, paths: list[str]) -> None:
        """One job per file, all at once."""
        self._scene.dispatched = time.monotonic()
        jobs = await runner.dispatch_many([count_file.job(path) for path in paths])
        self._jobs = dict(zip(paths, jobs, strict=True))
        self._scene.tell(f"{len(paths):,} jobs dispatched in {self._scene.work_time * 1000:.0f} ms")

    async def collect(self) -> None:
        """Waits for all results."""
        waiting = iter(self._jobs.items())
        await asyncio.gather(*(self._collect_from(waiting) for _ in range(WAITERS)))

    async def until_done(self, number: int) -> None:
        """Waits until so many results are there."""
        while self._scene.done < number:
            self._grown.clear()
            await self._grown.wait()

    async def note_held(self, victim: Process) -> None:
        """Asks the server which jobs the killed worker holds. Raises RedisError."""
        queued = 0
        for path, job in self._jobs.items():
            if path in self.harvest.reports:
                continue
            info = await job.info()
            if info.status is JobStatus.RUNNING and (info.worker or "").startswith(f"worker-{victim.pid}-"):
                self.harvest.held.append(path)
            queued = queued + 1 if info.status is JobStatus.QUEUED else 0
            if queued == QUEUED_IN_A_ROW:
                break
        self.harvest.victim, victim.held = victim.pid, len(self.harvest.held)
        self._scene.tell(
            f"worker {victim.pid} held {victim.held} jobs, which nobody else may run for {RESERVATION:g} s"
        )

    async def _collect_from(self, waiting: Iterator[tuple[str, Job[Report]]]) -> None:
        for path, job in waiting:
            try:
                report = await job.result(timeout=max(0.1, RESULT_LIMIT - self._scene.work_time))
            except JobError as error:
                self.harvest.failed[path] = f"{type(error).__name__}: {error}"
            else:
                self._add(path, report)
            self._scene.done += 1
            self._grown.set()

    def _add(self, path: str, report: Report) -> None:
        if path in self.harvest.reports:
            self.harvest.twice.append(path)
        self.harvest.reports[path] = report
        self._scene.bytes_done += report.count.size
        self._scene.sampled += report.count.sampled
        self._scene.packed += report.count.packed
        process = self._scene.processes.get(report.pid)
        if process is not None:
            process.done += 1
            process.taken_over += report.deliveries > 1
        self._note_handed_over(path)

    def _note_handed_over(self, path: str) -> None:
        held = self.harvest.held
        if path in held and all(one in self.harvest.reports for one in held):
            self._scene.tell(
                f"all {len(held)} jobs that worker {self.harvest.victim} held have run elsewhere", "magenta"
            )

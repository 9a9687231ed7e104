"""The stage of a run: a server of its own, proxies on the ways to it, and worker and producer processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from taskrunner import TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys
from tests.chaos import tasks
from tests.chaos.journal import Journal, Line, read
from tests.chaos.plan import Plan
from tests.chaos.producer import Intent, Producer
from tests.faults.proxy import Proxy
from tests.servers import Server

ROOT = Path(__file__).parents[2]
STOP_DEADLINE = 60.0
"""Seconds that a process gets to end after SIGTERM: more than all the deadlines of a stop together."""
SUICIDE = 3
"""The code that poison exits with."""


@dataclass(eq=False)
class Process:
    """A worker or producer process."""

    kind: str
    name: str
    popen: subprocess.Popen[bytes]
    failpoints: str = ""
    expected: bool = False
    """Its end is our own doing, or a matter of whoever ends it."""

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def pid(self) -> int:
        return self.popen.pid


class Stage:
    """``async with Stage(plan, folder) as stage:`` has everything running."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.journal = Journal(folder, "driver")
        self.server = Server(folder / "server", persistent=True, fsync=plan.fsync)
        self.proxies = [Proxy(self.server.port) for _ in range(3)]
        self.processes: list[Process] = []
        self.keys = Keyspace("taskrunner", plan.runner_options["namespace"], plan.partitions)
        self.noscript: dict[str, int] = {}  # run id of the server -> NOSCRIPT replies so far
        self.noscript_before: int | None = None  # in the first of them, before scripts were first flushed
        self.graces: set[tuple[int, int]] = set()
        self._chance = random.Random(f"{plan.seed} stage")
        self._started = 0
        self._open = AsyncExitStack()
        self._tending: list[asyncio.Task[Any]] = []
        self._retired = set[str]()

    # -- beginning and end -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Stage:
        self.journal.write("plan", **self.plan.as_dict())
        await self._open.enter_async_context(self.server)
        for proxy in self.proxies:
            await self._open.enter_async_context(proxy)
        self._admin = self.server.client()
        self._runner = TaskRunner(self.server.url, **self.plan.runner_options)
        tasks.register(self._runner, self.journal, self.plan.max_retry)
        self.producer = Producer(self._runner, self.journal, f"d{self.plan.seed}", self.plan.reservation)
        for _ in range(self.plan.workers):
            self.start_worker()
        for _ in range(self.plan.producers):
            self.start_producer()
        self._tending = [asyncio.create_task(self._tend()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        for process in self.processes:
            if process.alive:
                process.popen.kill()
            process.popen.wait()
        await self._runner.aclose()
        await self._admin.aclose()
        await self._open.aclose()
        self.journal.close()

    # -- processes -------------------------------------------------------------------------------------------

    def start_worker(self, failpoints: str = "") -> Process:
        """Half of the workers reach the server through one proxy, the other half through another."""
        self._started += 1
        environment = {"CHAOS_URL": self.proxies[self._started % 2].url, "TASKRUNNER_FAILPOINTS": failpoints}
        return self._start("worker", f"w{self._started}", environment, failpoints)

    def start_producer(self) -> Process:
        """Producers take turns in having a proxy in between."""
        plan = self.plan
        self._started += 1
        name = f"p{plan.seed}-{self._started}"
        load = {
            "name": name,
            "weights": dict(plan.weights),
            "pause": plan.pause,
            "senders": plan.senders,
            "max_retry": plan.max_retry,
        }
        url = self.server.url if self._started % 2 else self.proxies[2].url
        return self._start("producer", name, {"CHAOS_URL": url, "CHAOS_LOAD": json.dumps(load)})

    def _start(self, kind: str, name: str, more: dict[str, str], failpoints: str = "") -> Process:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_OPTIONS": json.dumps(self.plan.runner_options),
            "CHAOS_MAX_RETRY": str(self.plan.max_retry),
            **more,
        }
        with (self.folder / f"{name}.stderr").open("wb") as errors:
            popen = subprocess.Popen(
                [sys.executable, "-m", f"tests.chaos.{kind}"], env=environment, stderr=errors, cwd=self.folder
            )
        process = Process(kind, name, popen, failpoints)
        self.processes.append(process)
        self.journal.write("started", process=name, kind=kind, of=popen.pid, failpoints=failpoints)
        return process

    def alive(self, kind: str) -> list[Process]:
        return [one for one in self.processes if one.kind == kind and one.alive]

    async def stop(self, process: Process) -> None:
        """Ends a process as an operator does."""
        process.expected = True
        process.popen.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(process.popen.wait, STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            code = None
        self.journal.write("stopped", process=process.name, of=process.pid, code=code)

    async def stop_all(self, kind: str) -> None:
        """Ends all processes of a kind; none takes their place."""
        self._retired.add(kind)
        await asyncio.gather(*(self.stop(one) for one in self.alive(kind) if not one.expected))

    async def _tend(self) -> None:
        """Notes who died, and replaces them after a moment."""
        noted = set[Process]()
        while True:
            for process in [one for one in self.processes if not one.alive and one not in noted]:
                noted.add(process)
                code = process.popen.returncode
                if not process.expected:
                    self.journal.write("died", process=process.name, of=process.pid, code=code)
                if process.failpoints:
                    continue
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))
                if process.kind not in self._retired:
                    (self.start_worker if process.kind == "worker" else self.start_producer)()
            await asyncio.sleep(0.05)

    # -- jobs of our own -------------------------------------------------------------------------------------

    async def dispatch(self, kind: str, *arguments: Any) -> None:
        """Dispatches a job that is part of a fault."""
        self._started += 1
        intent = Intent(kind, f"d{self.plan.seed}-{self._started}", list(arguments))
        await self.producer.send_one(intent, self._chance, patience=60)

    # -- looking at the server -------------------------------------------------------------------------------

    async def command(self, *words: Any) -> Any:
        return await self._admin.execute_command(*words)

    def lines(self) -> list[Line]:
        return read(self.folder)

    async def look(self) -> None:
        """Reads figures of the server that end with its process, and the grace period."""
        async with asyncio.timeout(1):
            figures = await self._admin.info("everything")
            count = int(figures.get("errorstat_NOSCRIPT", {}).get("count", 0))
            self.noscript[figures["run_id"]] = count
            for partition in self.keys.partitions:
                grace = await self._admin.hget(partition.janitor, "grace")
                if grace:
                    self.graces.add((partition.number, int(grace)))

    async def before_flush(self) -> None:
        """To be called before scripts are flushed: what the server didn't know so far, it had never seen."""
        await self.look()
        if self.noscript_before is None:
            self.noscript_before = sum(self.noscript.values())

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError):
                pass  # that is what the faults are about
            await asyncio.sleep(0.25)

    @property
    def noscript_fallbacks(self) -> int:
        """NOSCRIPT replies to calls of scripts that the server had known, before a flush or a restart."""
        first, *later = self.noscript.values()
        before = first if self.noscript_before is None else self.noscript_before
        return max(0, first - before) + sum(later)

    # -- waiting ---------------------------------------------------------------------------------------------

    async def backlog(self) -> str:
        """What is not at rest yet, in words; "" when everything is."""
        found: list[str] = []
        for partition in self.keys.partitions:
            due = 0
            for lane in await self._admin.smembers(partition.queues):
                queue = partition.queue(lane.decode())
                found += await self._in_stream(queue.stream)
                due += await self._admin.zcard(queue.due)
            for what, count in (
                ("due jobs", due),
                ("live records", await self._admin.hlen(partition.live)),
                ("workflows", await self._admin.zcard(partition.workflows)),
                ("jobs that others wait for", await self._admin.hlen(partition.followers)),
                ("leftovers of workflows", await self._admin.zcard(partition.unfolding)),
                ("messages", sum([await self._admin.xlen(partition.outbox(n)) for n in range(self.plan.partitions)])),
                ("leases", await self._leases(partition)),
                ("strangers in the registry", await self._strangers(partition)),
            ):
                if count > 0:
                    found.append(f"{count} {what}")
        return ", ".join(found)

    async def _leases(self, partition: PartitionKeys) -> int:
        """How many locks and limits somebody holds or waits for."""
        return sum([1 async for _ in self._admin.scan_iter(match=f"{partition.prefix}lease:*", count=1000)])

    async def _strangers(self, partition: PartitionKeys) -> int:
        """How many in the registry are dead. By their pids: a worker that just started may not be there yet."""
        living = {one.pid for one in self.alive("worker")}
        facts = await self._admin.hvals(partition.worker_facts)
        return sum(json.loads(one)["pid"] not in living for one in facts)

    async def _in_stream(self, stream: str) -> list[str]:
        found = [f"{count} entries"] if (count := await self._admin.xlen(stream)) else []
        for group in await self._admin.xinfo_groups(stream):
            if group["pending"]:
                found.append(f"{group['pending']} pending")
            if group["consumers"] > len(self.alive("worker")):
                found.append(f"{group['consumers']} consumers")
        return found

    async def at_work(self, deadline: float) -> None:
        """Waits until each of the first workers has run something, and everybody's first grace period was seen."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            at_work = {line.pid for line in self.lines() if line.event == "start"}
            if len(self.graces) == len(self.keys.partitions) and all(
                one.pid in at_work for one in self.alive("worker")
            ):
                return

    async def at_few(self, jobs: int, deadline: float) -> None:
        """Waits until no more than so many jobs live."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if sum([await self._admin.hlen(partition.live) for partition in self.keys.partitions]) <= jobs:
                return
            await asyncio.sleep(0.1)

    async def at_rest(self, deadline: float) -> str:
        """Waits until everything is; returns what is not in time."""
        end = time.monotonic() + deadline
        while (backlog := await self.backlog()) and time.monotonic() < end:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.1)
        return backlog

    async def roll_call(self, deadline: float) -> None:
        """Waits until each worker that lives has ended a run."""
        began = time.monotonic()
        while time.monotonic() < began + deadline:
            await asyncio.sleep(0.5)
            at_work = {line.pid for line in self.lines() if line.at > began and line.event in ("end", "raised")}
            if all(one.pid in at_work for one in self.alive("worker")):
                break
        for one in self.alive("worker"):
            self.journal.write("called", of=one.pid, began=began)

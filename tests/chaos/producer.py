"""The producer process of a chaos run: dispatches until SIGTERM, whatever happens to the server, and keeps account.

Per dispatch one line says what was intended, and one what came of it: ``accepted``, ``deduplicated``, ``rejected``
(certainly nothing was written) or ``uncertain``. A producer that was killed in between leaves only the first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskrunner import DispatchUncertain, Job, JobError, RedisError, TaskRunner
from tests.chaos import flows, slots, standstills
from tests.chaos.journal import Journal
from tests.chaos.tasks import CANCELLED, ELSEWHERE, LOCKED, lock_of, register

KEYS = 4
"""Unique keys per run: few, so that they are fought for."""
KEYED = ("unique", "latest", "solitary")
"""Kinds of jobs that have one."""
LOCKS = 3
"""Lock keys per run."""
PRIORITIES = ("high", "low")
REMEMBERED = 500


@dataclass
class Intent:
    """A job that is to be dispatched."""

    kind: str
    serial: str
    arguments: list[Any]
    options: dict[str, Any] = field(default_factory=dict)

    def told(self, call: int) -> dict[str, Any]:
        """What the journal keeps of a call that dispatches it."""
        key = self.arguments[0] if self.kind in KEYED else ""
        lock = lock_of(self.serial, *self.arguments) if self.kind in LOCKED else ""
        own, delay = self.options.get("id", ""), self.options.get("delay", 0.0)
        lane = f"{ELSEWHERE if self.kind == 'elsewhere' else 'default'}/{self.options.get('priority', 'normal')}"
        about = {"call": call, "kind": self.kind, "serial": self.serial, "key": key, "id": own, "delay": delay}
        return about | {"lock": lock, "lane": lane}


class Producer:
    """Senders that dispatch one job after another, as their seed says."""

    def __init__(self, runner: TaskRunner, journal: Journal, name: str, reservation: float) -> None:
        self._runner = runner
        self._journal = journal
        self._name = name
        self._reservation = reservation
        self._count = 0
        self._calls = 0
        self._own: list[Intent] = []
        self._accepted: list[str] = []
        self.stopping = asyncio.Event()

    async def send(self, number: int, weights: Mapping[str, float], pause: float) -> None:
        chance = random.Random(f"{self._name} {number}")
        kinds, shares = list(weights), list(weights.values())
        while not self.stopping.is_set():
            if chance.random() < 0.03:
                await self.send_many([self._intend("plain", chance) for _ in range(chance.randint(2, 30))])
            elif self._own and chance.random() < 0.04:
                await self.send_one(chance.choice(self._own), chance)  # the same once more, under the same id
            else:
                await self.send_one(self._intend(chance.choices(kinds, shares)[0], chance), chance)
            if self._accepted and chance.random() < 0.1:
                await self._look(chance.choice(self._accepted), chance)
            await asyncio.sleep(pause * chance.uniform(0.2, 1.8))

    def _intend(self, kind: str, chance: random.Random) -> Intent:
        self._count += 1
        serial = f"{self._name}-{self._count}"
        intent = Intent(kind, serial, self._arguments(kind, chance))
        if kind == "delayed":
            intent.options["delay"] = round(chance.uniform(0.1, 3.0), 3)
        elif kind in CANCELLED and chance.random() < 0.3:
            intent.options["delay"] = round(chance.uniform(0.0, 0.5) * self._reservation, 3)
        elif kind == "brief":
            intent.options["expires"] = round(chance.uniform(0.05, 1.0), 3)
        if kind in LOCKED and chance.random() < 0.3:
            intent.options["priority"] = chance.choice(PRIORITIES)
        if kind not in (*KEYED, *CANCELLED, "brief") and chance.random() < 0.3:
            intent.options["id"] = f"own-{serial}"
            self._own = [*self._own[-REMEMBERED:], intent]
        return intent

    def _arguments(self, kind: str, chance: random.Random) -> list[Any]:
        """The arguments after the serial."""
        reservation = self._reservation
        if kind in LOCKED:
            return [f"{kind}-{chance.randrange(LOCKS)}", self._third(kind, chance)]
        if kind in KEYED:
            return [f"{kind}-{chance.randrange(KEYS)}", round(chance.uniform(0.0, 0.3), 3)]
        if kind == "retrying":
            return [chance.randint(1, 3)]
        if kind == "failing":
            return []
        bounds = {"long": (1.5, 5.0), "blocking": (0.2, 1.5), "threaded": (0.05, 1.2), "unwanted": (0.0, 0.5)}
        bounds |= {"limited": (0.0, 0.2), "sharing": (0.0, 0.2)}
        low, high = bounds.get(kind, (0.0, 0.03))
        return [round(chance.uniform(low, high) * reservation, 3)]

    def _third(self, kind: str, chance: random.Random) -> float:
        """What a locked job takes beside its key: failures, the time from which it works, or how long it takes."""
        if kind == "relocked":
            return chance.randint(1, 3)
        if kind == "snoozing":
            return round(time.time() + chance.uniform(0.0, 0.5), 3)
        # Short, as they come one after the other; some outlast a fault.
        low, high = (0.3, 1.2) if chance.random() < 0.02 else (0.0, 0.04)
        return round(chance.uniform(low, high) * self._reservation, 3)

    async def send_one(self, intent: Intent, chance: random.Random, patience: float = 0.0) -> None:
        """Dispatches a job, or gives up after ``patience`` seconds (0: as chance will have it)."""
        call = self._begin(intent)
        task = self._runner.with_options(**intent.options)
        # Some don't wait for long: a dispatch that is given up may have been accepted.
        patience = patience or (chance.uniform(0.2, 2) if chance.random() < 0.2 else 60)
        try:
            async with asyncio.timeout(patience):
                job = await task.dispatch(intent.kind, intent.serial, *intent.arguments)
        except (DispatchUncertain, TimeoutError) as error:
            self._fail(intent, call, "uncertain", error)
        except RedisError as error:
            self._fail(intent, call, "rejected", error)  # which is said to mean that nothing was written
        else:
            self._succeed(intent, call, job)
            if intent.kind in CANCELLED:
                await self._cancel(job, chance.uniform(0.0, 0.4) * self._reservation)

    async def _cancel(self, job: Job[Any], pause: float) -> None:
        """What is written down before is that somebody may have cancelled it; afterwards, what came of it."""
        await asyncio.sleep(pause)
        self._journal.write("cancelling", job.id)
        try:
            self._journal.write("cancel told", job.id, cancelled=await job.cancel())
        except RedisError as error:
            self._journal.write("cancel failed", job.id, error=repr(error)[:100])

    async def send_many(self, intents: list[Intent]) -> None:
        """Dispatches several jobs in one call."""
        calls = [self._begin(one) for one in intents]
        tasks = [self._runner.find(one.kind).with_options(**one.options) for one in intents]
        specs = [task.job(one.serial, *one.arguments) for task, one in zip(tasks, intents, strict=True)]
        try:
            jobs = await self._runner.dispatch_many(specs)
        except RedisError as error:
            for intent, call in zip(intents, calls, strict=True):
                self._fail(intent, call, "uncertain", error)
        else:
            for intent, call, job in zip(intents, calls, jobs, strict=True):
                self._succeed(intent, call, job)

    def _begin(self, intent: Intent) -> int:
        self._calls += 1
        self._journal.write("intended", **intent.told(self._calls))
        return self._calls

    def _fail(self, intent: Intent, call: int, event: str, error: Exception) -> None:
        self._journal.write(event, **intent.told(call), error=repr(error)[:100])

    def _succeed(self, intent: Intent, call: int, job: Job[Any]) -> None:
        self._journal.write("deduplicated" if job.deduplicated else "accepted", job.id, **intent.told(call))
        if not job.deduplicated:
            self._accepted = [*self._accepted[-REMEMBERED:], job.id]

    async def _look(self, id: str, chance: random.Random) -> None:
        """Reads the record of a job that may have ended: it must be the same ever after."""
        job = self._runner.job(id)
        try:
            async with asyncio.timeout(60):
                if chance.random() < 0.3:
                    await job.wait(chance.uniform(0.0, 0.5))
                info = await job.info()
                result = await job.result(5) if info.status == "succeeded" else None
        except (RedisError, TimeoutError):
            return
        except JobError as error:
            self._journal.write("gone", id, error=repr(error)[:100])
            return
        if info.ended_at is not None:
            ended = round(info.ended_at.timestamp() * 1000)
            self._journal.write("seen", id, status=info.status, attempts=info.attempts, ended=ended, result=result)


async def produce() -> None:
    environment = os.environ
    folder = Path(environment["CHAOS_FOLDER"])
    logging.basicConfig(filename=folder / f"producer-{os.getpid()}.log", level=logging.INFO)
    journal = Journal(folder, "producer")
    options = json.loads(environment["CHAOS_OPTIONS"])
    load = json.loads(environment["CHAOS_LOAD"])
    runner = TaskRunner(environment["CHAOS_URL"], **options)
    register(runner, journal, load["max_retry"])
    producer = Producer(runner, journal, load["name"], options["reservation_timeout"])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.stopping.set)
    journal.write("producer up")
    async with runner:
        senders = [producer.send(number, load["weights"], load["pause"]) for number in range(load["senders"])]
        holders = [
            slots.hold(runner, journal, f"{load['name']}-{number}", options["reservation_timeout"], producer.stopping)
            for number in range(slots.HOLDERS)
        ]
        watch = asyncio.create_task(standstills.watch(journal))
        weaving = flows.dispatch(runner, journal, load["name"], options["reservation_timeout"], producer.stopping)
        await asyncio.gather(*senders, *holders, weaving)
        watch.cancel()
    journal.write("producer down")


if __name__ == "__main__":
    asyncio.run(produce())

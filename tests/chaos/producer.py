"""The producer process of a chaos run: dispatches until SIGTERM, whatever happens to the server, and keeps account.

Per dispatch one line says what was intended, and one what came of it: ``accepted``, ``deduplicated``, ``rejected``
(certainly nothing was written) or ``uncertain``. A producer that was killed in between leaves only the first.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskrunner import Job, JobError, QueueFull, RedisError, TaskRunner
from tests.chaos import tasks
from tests.chaos.journal import Journal

KEYS = 4
"""Unique keys per run: few, so that they are fought for."""
REMEMBERED = 500


@dataclass
class Intent:
    """A job that is to be dispatched."""

    kind: str
    serial: str
    arguments: list[Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def more(self) -> dict[str, Any]:
        key = self.arguments[0] if self.kind == "unique" else ""
        delay = self.options.get("delay", 0.0)
        return {"kind": self.kind, "serial": self.serial, "key": key, "id": self.options.get("id", ""), "delay": delay}


class Producer:
    """Senders that dispatch one job after another, as their seed says."""

    def __init__(self, runner: TaskRunner, journal: Journal, name: str, reservation: float) -> None:
        self._runner = runner
        self._journal = journal
        self._name = name
        self._reservation = reservation
        self._count = 0
        self._own: list[Intent] = []
        self._accepted: list[str] = []
        self.stopping = asyncio.Event()

    async def send(self, number: int, weights: Mapping[str, float], pause: float) -> None:
        chance = random.Random(f"{self._name} {number}")
        kinds, shares = list(weights), list(weights.values())
        while not self.stopping.is_set():
            if chance.random() < 0.03:
                await self._send_many([self._intend("plain", chance) for _ in range(chance.randint(2, 30))])
            elif self._own and chance.random() < 0.04:
                await self._send(chance.choice(self._own), chance)  # the same once more, under the same id
            else:
                await self._send(self._intend(chance.choices(kinds, shares)[0], chance), chance)
            if self._accepted and chance.random() < 0.1:
                await self._look(chance.choice(self._accepted), chance)
            await asyncio.sleep(pause * chance.uniform(0.2, 1.8))

    def _intend(self, kind: str, chance: random.Random) -> Intent:
        self._count += 1
        serial = f"{self._name}-{self._count}"
        intent = Intent(kind, serial, self._arguments(kind, chance))
        if kind == "delayed":
            intent.options["delay"] = round(chance.uniform(0.1, 3.0), 3)
        elif kind == "brief":
            intent.options["expires"] = round(chance.uniform(0.05, 1.0), 3)
        if kind not in ("unique", "brief") and chance.random() < 0.3:
            intent.options["id"] = f"own-{serial}"
            self._own = [*self._own[-REMEMBERED:], intent]
        return intent

    def _arguments(self, kind: str, chance: random.Random) -> list[Any]:
        """The arguments after the serial."""
        reservation = self._reservation
        if kind == "unique":
            return [f"key-{chance.randrange(KEYS)}", round(chance.uniform(0.0, 0.3), 3)]
        if kind == "retrying":
            return [chance.randint(1, 3)]
        if kind == "failing":
            return []
        low, high = {"long": (1.5, 3.5), "blocking": (0.2, 1.5), "threaded": (0.05, 1.2)}.get(kind, (0.0, 0.03))
        return [round(chance.uniform(low, high) * reservation, 3)]

    async def _send(self, intent: Intent, chance: random.Random) -> None:
        journal, more = self._journal, intent.more
        journal.write("intended", intent.options.get("id", ""), **more)
        task = self._runner.with_options(**intent.options)
        try:
            # Some don't wait for long: a dispatch that is given up may have been accepted.
            async with asyncio.timeout(chance.uniform(0.2, 2) if chance.random() < 0.2 else 60):
                job = await task.dispatch(intent.kind, intent.serial, *intent.arguments)
        except QueueFull:
            journal.write("rejected", intent.options.get("id", ""), **more)
        except (RedisError, TimeoutError) as error:
            journal.write("uncertain", intent.options.get("id", ""), **more, error=repr(error)[:100])
        else:
            self._note(intent, job)

    async def _send_many(self, intents: list[Intent]) -> None:
        for intent in intents:
            self._journal.write("intended", intent.options.get("id", ""), **intent.more)
        specs = [self._runner.find(one.kind).with_options(**one.options).job(one.serial, *one.arguments) for one in intents]
        try:
            jobs = await self._runner.dispatch_many(specs)
        except RedisError as error:
            for intent in intents:
                event = "uncertain"
                self._journal.write(event, intent.options.get("id", ""), **intent.more, error=repr(error)[:100])
        else:
            for intent, job in zip(intents, jobs, strict=True):
                self._note(intent, job)

    def _note(self, intent: Intent, job: Job[Any]) -> None:
        self._journal.write("deduplicated" if job.deduplicated else "accepted", job.id, **intent.more)
        if not job.deduplicated:
            self._accepted = [*self._accepted[-REMEMBERED:], job.id]

    async def _look(self, id: str, chance: random.Random) -> None:
        """Reads the record of a job that may have ended: it must be the same ever after."""
        job = self._runner.job(id)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(60):
                if chance.random() < 0.3:
                    await job.wait(chance.uniform(0.0, 0.5))
                info = await job.info()
                result = await job.result(5) if info.status == "succeeded" else None
        except (RedisError, TimeoutError):
            return
        except JobError as error:
            self._journal.write("gone", id, error=repr(error)[:100], began=began)
            return
        if info.ended_at is not None:
            ended = round(info.ended_at.timestamp() * 1000)
            self._journal.write("seen", id, status=info.status, attempts=info.attempts, ended=ended, result=result)


async def produce() -> None:
    environment = os.environ
    journal = Journal(Path(environment["CHAOS_FOLDER"]), "producer")
    options = json.loads(environment["CHAOS_OPTIONS"])
    load = json.loads(environment["CHAOS_LOAD"])
    runner = TaskRunner(environment["CHAOS_URL"], **options)
    tasks.register(runner, journal, load["max_retry"])
    producer = Producer(runner, journal, load["name"], options["reservation_timeout"])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.stopping.set)
    journal.write("producer up")
    async with runner:
        senders = [producer.send(number, load["weights"], load["pause"]) for number in range(load["senders"])]
        await asyncio.gather(*senders)
    journal.write("producer down")


if __name__ == "__main__":
    asyncio.run(produce())

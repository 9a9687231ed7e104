"""What was fetched long ago may be another worker's by now: it is not started."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from taskrunner.envelope import Delivery, Envelope
from taskrunner.feature import Recipe
from taskrunner.options import Options
from taskrunner.outcome import Failed, Failure
from taskrunner.worker.executor import Executor
from taskrunner.worker.inventory import Inventory
from tests.waiting import eventually

RESERVATION = 100.0


class Slots:
    """An executor with two slots, whose last confirmed heartbeat began ``beat_ago`` seconds ago."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.beat_ago = 0.0
        self.inventory = Inventory(2)
        recipe = Recipe("work", Options({}), self._run, lambda *_: Failed(Failure("", ""), ""), lambda _: b"", None)
        self.executor = Executor(
            self.inventory,
            {"work": recipe},
            lambda _: recipe,
            None,
            lambda: 0,
            lambda: time.monotonic() - self.beat_ago,
            RESERVATION,
            4,
        )

    async def _run(self, delivery: Delivery) -> None:
        self.ran.append(delivery.envelope.id)

    async def take(self, id: str, fetched_ago: float) -> None:
        envelope = Envelope(id, "work", 0, 0, 1, {}, b"")
        self.inventory.take([Delivery(envelope, "default", 0, id.encode(), 1, time.monotonic() - fetched_ago)])
        await eventually(self.inventory.idle.is_set)


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    made = Slots()
    made.executor.open(2)
    yield made
    await made.executor.close()


async def test_a_job_that_has_lain_here_without_a_confirmed_beat_is_left_to_others(slots: Slots) -> None:
    slots.beat_ago = RESERVATION * 0.8
    await slots.take("stale", fetched_ago=RESERVATION * 0.8)
    assert slots.ran == []
    assert slots.inventory.lost == 1
    assert not slots.inventory.outbox, "it has no outcome of ours"
    assert not slots.inventory.held, "and no heartbeats"


async def test_a_job_that_was_kept_alive_meanwhile_is_started_however_long_it_lay(slots: Slots) -> None:
    slots.beat_ago = RESERVATION * 0.3
    await slots.take("kept", fetched_ago=RESERVATION * 5)
    assert slots.ran == ["kept"]


async def test_a_job_that_has_just_come_is_started_although_no_beat_was_confirmed_for_long(slots: Slots) -> None:
    slots.beat_ago = RESERVATION * 5
    await slots.take("fresh", fetched_ago=RESERVATION * 0.1)
    assert slots.ran == ["fresh"]
    assert slots.inventory.lost == 0

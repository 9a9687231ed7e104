"""Stops at a bad time: before the start has ended, while a job waits for its next attempt."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskrunner import Job, JobStatus
from tests.cleanliness import leftovers
from tests.faults.workshop import Fleet
from tests.programs import Program
from tests.servers import Server, free_port
from tests.waiting import eventually

pytestmark = pytest.mark.crash

RUN = """
import asyncio, os
from taskrunner import TaskRunner

runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], shutdown_timeout=300)

@runner.on_startup
async def started():
    print("in the hook", flush=True)
    if os.environ.get("HANG"):
        await asyncio.Event().wait()

asyncio.run(runner.run())
print("ended", flush=True)
"""


@dataclass
class Silence:
    """A server that takes connections and says nothing."""

    url: str = ""
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        await self.ended.wait()
        writer.transport.abort()


@pytest.fixture
async def silence() -> AsyncIterator[Silence]:
    made = Silence()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    yield made
    made.ended.set()
    server.close()


async def ends_in_order(process: Program) -> None:
    process.signal(signal.SIGTERM)
    assert await process.line() == "ended"
    assert await process.ended() == 0


async def test_a_signal_while_a_hook_of_the_start_hangs_ends_the_process(
    url: str, namespace: str, program: Callable[..., Program]
) -> None:
    process = program(RUN, URL=url, NAMESPACE=namespace, HANG="yes")
    assert await process.line() == "in the hook"
    await ends_in_order(process)


async def test_a_signal_while_the_server_does_not_answer_ends_the_process(
    silence: Silence, namespace: str, program: Callable[..., Program]
) -> None:
    process = program(RUN, URL=silence.url, NAMESPACE=namespace)
    await asyncio.wait_for(silence.connected.wait(), 20)
    await ends_in_order(process)


async def test_a_signal_while_there_is_no_server_ends_the_process(
    namespace: str, program: Callable[..., Program]
) -> None:
    process = program(RUN, URL=f"redis://127.0.0.1:{free_port()}/0", NAMESPACE=namespace)
    assert await process.line() == "in the hook"
    await ends_in_order(process)


async def test_a_stop_does_not_wait_for_a_retry_and_the_retry_runs_elsewhere(
    make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, reservation_timeout=300, shutdown_timeout=300)
    worker = await fleet.worker()
    job = await fleet.tasks.rude.stumble.dispatch()
    await eventually(lambda: _is_retrying(job))
    await fleet.end(worker)
    async with own_server.client() as client:
        assert await client.zadd(fleet.keys.queue("default").due, {job.id: 0}, xx=True, ch=True) == 1, "it was not kept"
        async with fleet.runner.start():
            assert await job.result(20) == os.getpid()
        assert not await leftovers(client, fleet.namespace)
    runs = fleet.journal.lines("start", job=job.id)
    assert [(run.pid, run.attempt, run.deliveries) for run in runs] == [(worker.pid, 1, 1), (os.getpid(), 2, 1)]


async def _is_retrying(job: Job[Any]) -> bool:
    return await job.status() is JobStatus.RETRYING

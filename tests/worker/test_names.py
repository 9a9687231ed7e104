"""Names of workers: two processes that are started alike are two workers all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.workshop import Fleet
from tests.servers import Server


@pytest.mark.crash
async def test_two_workers_that_were_given_one_name_share_no_consumer_and_no_fate(
    own_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(own_server.url, consumers_prefix="twin")
    tasks = fleet.tasks
    twins = [await fleet.worker(num_workers=1) for _ in range(2)]
    jobs = [await tasks.hold.dispatch("gate") for _ in range(2)]
    owner = {line.pid: line.job for line in await tasks.seen(2, "start")}
    assert set(owner) == {twin.pid for twin in twins}, "one has both jobs"
    async with own_server.client() as client:
        consumers = await client.xinfo_consumers(fleet.stream, "taskrunner")
    assert len({one["name"] for one in consumers}) == 2
    assert [one["name"].startswith(b"twin-") and one["pending"] == 1 for one in consumers] == [True, True]

    twins[0].signal(signal.SIGKILL)
    async with fleet.runner.start():
        await tasks.seen(1, "start", job=owner[twins[0].pid], pid=os.getpid())
        tasks.open_gate("gate")
        results = {job.id: await job.result(20) for job in jobs}
    assert results == {owner[twins[0].pid]: os.getpid(), owner[twins[1].pid]: twins[1].pid}
    assert len(tasks.journal.lines("start")) == 3

"""A limit under demand: never more at once than it says, and never a seat that is free while a job waits for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from tests.faults.test_lock_holders import most_at_once, nothing_is_left
from tests.faults.workshop import FEW, Fleet
from tests.servers import Server
from tests.waiting import eventually

pytestmark = pytest.mark.crash

RACING = 200
LOOKS, WAVES = 100, 40
"""So often it is looked while there are enough to run; who has raced is followed by as many until that is so."""
LOOK = """
local running, on_their_way = redis.call('ZCOUNT', KEYS[1], '-inf', '(0'), 0
local line = redis.call('ZRANGEBYSCORE', KEYS[1], '0', '+inf')
for n = 1, #line do
  if string.match(redis.call('HGET', KEYS[2], line[n]) or '', '^q ') then on_their_way = on_their_way + 1 end
end
return {running, on_their_way, running + #line}
"""
"""In one step: how many run, how many more may come for a seat, as they stand in the stream, and how many there are."""


async def look(client: redis.asyncio.Redis, fleet: Fleet) -> tuple[int, int, int]:
    leases = [key async for key in client.scan_iter(match=f"{fleet.keys.prefix}lease:*")]
    if not leases:
        return 0, 0, 0
    running, coming, all_of_them = await client.eval(LOOK, 2, leases[0], fleet.keys.live)
    return running, coming, all_of_them


class Watch:
    """Looks at the lease all the time."""

    def __init__(self, client: redis.asyncio.Redis, fleet: Fleet) -> None:
        self.looks: list[tuple[int, int, int]] = []
        self.full = 0  # looks at which all seats could have been taken
        self.over = False
        self._client, self._fleet = client, fleet

    async def run(self) -> None:
        while not self.over:  # no cancellation: a client may swallow it in the middle of a call
            self.looks.append(await look(self._client, self._fleet))
            self.full += self.looks[-1][2] >= FEW

    def check(self) -> None:
        assert self.full >= LOOKS, "it did not look often enough to have seen anything"
        assert max(running for running, _, _ in self.looks) == FEW
        for running, coming, all_of_them in self.looks:
            assert running <= FEW
            assert running + coming >= min(FEW, all_of_them), "a seat was free, and nobody who waits was let go"


@pytest.mark.parametrize("deaths", [0, 2])
async def test_of_two_hundred_who_race_for_three_seats_three_run_or_are_on_their_way_at_every_instant(
    deaths: int, make_fleet: Callable[..., Fleet], own_server: Server
) -> None:
    fleet = make_fleet(own_server.url, num_workers=20)
    workers = [await fleet.worker() for _ in range(2)]
    async with own_server.client() as client, fleet.runner.start():
        watch = Watch(client, fleet)
        looking = asyncio.create_task(watch.run())
        raced = 0
        while raced < RACING or (watch.full < LOOKS and raced < WAVES * RACING):
            jobs = await asyncio.gather(*(fleet.tasks.sip.dispatch(0.01) for _ in range(RACING)))
            for n in range(0 if raced else deaths):
                await fleet.tasks.seen((n + 1) * RACING // 5, "end")
                workers[n].signal(signal.SIGKILL)
            for job in jobs:
                await job.wait(60)
            raced += RACING
        watch.over = True
        await looking
        watch.check()
    assert (await fleet.figures("sip")).succeeded == raced
    assert most_at_once(fleet) == FEW
    await nothing_is_left(fleet, own_server)


async def test_a_seat_that_an_end_or_a_cancellation_gives_up_is_the_next_ones(fleet: Fleet, own_server: Server) -> None:
    async def all_run() -> Any:
        return await look(client, fleet) == (FEW, 0, 2 * FEW - left)

    left = 0
    async with own_server.client() as client, fleet.runner.start():
        jobs = [await fleet.tasks.limited.dispatch(f"gate {n}") for n in range(2 * FEW)]
        await fleet.tasks.seen(FEW, "start")
        assert await all_run()
        assert await jobs[0].cancel()  # a run that has still to end
        left = 1
        await fleet.tasks.seen(FEW + 1, "start")
        await eventually(all_run)
        fleet.tasks.open_gate("gate 1")
        left = 2
        await fleet.tasks.seen(FEW + 2, "start")
        await eventually(all_run)
        for n in range(2 * FEW):
            fleet.tasks.open_gate(f"gate {n}")
        for job in jobs[1:]:
            await job.wait(20)
    assert [line.job for line in fleet.journal.lines("start")] == [job.id for job in jobs]
    await nothing_is_left(fleet, own_server)

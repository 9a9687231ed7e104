"""Two hundred acquirers in four processes: never four at once, and never fewer than three while somebody waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from taskrunner import TaskRunner
from tests.limiter.books import Books
from tests.limiter.conftest import MakeLimiter
from tests.programs import Program
from tests.servers import Server

PROGRAM = """
import asyncio, json, os, sys
import redis.asyncio
from taskrunner import LimitReached, TaskRunner
from tests.limiter.books import Books

HOW, NAME, URL = os.environ["HOW"], os.environ["NAME"], os.environ["URL"]

async def main():
    client = redis.asyncio.Redis.from_url(URL, protocol=2)
    books, inside, seen, done = Books(client, "race"), [], [], 0

    async def look():
        inside.append(await client.incr("inside"))  # one counter for all processes
        seen.append(await books.counts())
        await asyncio.sleep(0)
        await client.decr("inside")

    async def acquire(limiter, id):
        nonlocal done
        while not await limiter.acquire(id):
            await asyncio.sleep(0.005)
        await look()
        assert await limiter.release(id)
        done += 1

    async def wait(limiter, id):
        nonlocal done
        async with limiter.slot(id):
            await look()
        done += 1

    async with TaskRunner(URL, namespace="race") as runner:
        limiters = [runner.limiter("places", limit=3, timeout=60) for _ in range(50)]
        work = {"acquire": acquire, "slot": wait}[HOW]
        jobs = [asyncio.create_task(work(limiter, f"{NAME} {n}")) for n, limiter in enumerate(limiters)]
        print("ready")
        await asyncio.gather(*jobs)
    print(json.dumps([done, inside, seen]))
    await client.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["acquire", "slot"])
async def test_two_hundred_acquirers_in_four_processes_are_never_four_at_once_and_never_fewer_than_three(
    how: str, own_server: Server, program: Callable[..., Program]
) -> None:
    async with own_server.client() as client, TaskRunner(own_server.url, namespace="race") as runner:
        books, limiter = Books(client, "race"), runner.limiter("places", limit=3, timeout=60)
        for n in range(3):  # until all are there, so that the demand is constant
            assert await limiter.acquire(f"held {n}")
        programs = [program(PROGRAM, URL=own_server.url, NAME=str(n), HOW=how) for n in range(4)]
        for one in programs:
            assert await one.line() == "ready"
        if how == "slot":
            await books.waits(200)
        for n in range(3):
            assert await limiter.release(f"held {n}")
        told = [json.loads(await one.line(50)) for one in programs]
        assert sum(done for done, _, _ in told) == 200
        inside = [count for _, counts, _ in told for count in counts]
        assert len(inside) == 200
        assert max(inside) <= 3
        snapshots = [tuple(one) for _, _, seen in told for one in seen]
        assert all(held <= 3 for held, _ in snapshots)
        if how == "slot":
            waited = [held for held, waiting in snapshots if waiting]
            assert len(waited) > 100
            assert set(waited) == {3}, "a slot was free while somebody waited"
        assert await books.all() == []


async def test_many_at_the_limit_from_one_process_are_exact_to_the_last_slot(make_limiter: MakeLimiter) -> None:
    limiters = [make_limiter(limit=25) for _ in range(8)]
    taken = await asyncio.gather(*(limiters[n % 8].acquire(f"id {n}") for n in range(200)))
    assert sum(taken) == 25

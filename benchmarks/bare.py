"""The bare redis-py loops that ours are compared with: no framework, the least that could be called a job queue.

Default options of ``redis.asyncio`` apart from the protocol, which is ours (RESP2). An entry carries the same bytes as
one of ours, made beforehand. The drain reads XREADGROUP COUNT 100 and sends, per batch, one variadic XACK and one
variadic XDEL in one pipeline, so two round trips per batch; its handler is empty, not even called.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from .workload import Stopwatch, Tally

BATCH = 100
GROUP = "bare"


class Bare:
    """Everything that a child process may be asked to do with a bare client; see ``children``."""

    def __init__(self, url: str, namespace: str) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(url, protocol=2)
        self._stream = f"bare:{{{namespace}.0}}:stream"
        self._model = f"taskrunner:{{{namespace}.0}}:stream:default"
        self._consumer = f"bare-{os.getpid()}"
        self._entry: dict[bytes, bytes] = {}
        self._tally = Tally()
        self._lags: list[float] = []
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def imitate(self) -> int:
        """Takes an entry of our stream as the model of all bare ones. Returns its size in bytes."""
        rows = await self._redis.xrange(self._model, count=1)
        self._entry = rows[0][1]
        return sum(map(len, self._entry.values()))

    # -- producing -----------------------------------------------------------------------------------------------------

    async def one_by_one(self, count: int) -> dict[str, float]:
        with Stopwatch() as watch:
            for _ in range(count):
                await self._redis.xadd(self._stream, self._entry)
        return watch.report(count)

    async def pipelined(self, count: int) -> dict[str, float]:
        with Stopwatch() as watch:
            for start in range(0, count, BATCH):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for _ in range(start, min(start + BATCH, count)):
                        pipe.xadd(self._stream, self._entry)
                    await pipe.execute()
        return watch.report(count)

    async def ping(self) -> float:
        """Seconds of one round trip."""
        began = time.perf_counter()
        await self._redis.ping()
        return time.perf_counter() - began

    async def send_instant(self) -> None:
        await self._redis.xadd(self._stream, {b"t": repr(time.monotonic())})

    # -- consuming -----------------------------------------------------------------------------------------------------

    async def start(self, timed: bool = False) -> None:
        """Begins to drain. ``timed``: the entries say when they were sent."""
        try:
            await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._tally, self._lags, self._stopping = Tally(), [], False
        self._task = asyncio.create_task(self._drain(timed))

    async def stop(self) -> dict[str, Any]:
        """Ends the drain, and tells what was done."""
        self._stopping = True
        assert self._task is not None
        await self._task
        return self._tally.report() | {"lags": self._lags}

    async def _drain(self, timed: bool) -> None:
        client, stream, tally = self._redis, self._stream, self._tally
        while not self._stopping:
            reply = await client.xreadgroup(GROUP, self._consumer, {stream: ">"}, count=BATCH, block=100)
            if not reply:
                continue
            entries = reply[0][1]
            if timed:
                now = time.monotonic()
                self._lags += (now - float(fields[b"t"]) for _, fields in entries)
            tally.add(len(entries))
            ids = [id for id, _ in entries]
            async with client.pipeline(transaction=False) as pipe:
                pipe.xack(stream, GROUP, *ids)
                pipe.xdel(stream, *ids)
                await pipe.execute()

    async def aclose(self) -> None:
        await self._redis.aclose()

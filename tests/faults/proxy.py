"""A TCP proxy between clients and a server, which spoils what a test tells it to.

It can tell connections apart by what they send: ``BEAT.sha`` stands in every request of a heartbeat's connection,
``XREADGROUP`` in every one of a fetcher's.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

from tests.faults.rules import REPLIES, REQUESTS, Loss, Rule

CHUNK = 1_048_576
"""Bytes that are passed on at once, as one packet: more than a request of these tests has, so that none waits twice."""
STEP = 0.02
"""Seconds between the pieces of what passes slowly."""


class Connection:
    """One client and its way to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._request = b""  # what was asked since the last reply
        self._recognised: set[Rule] = set()
        self._loss: tuple[Loss, int] | None = None  # the one that concerns this exchange, and the bytes still to pass
        self._dead = False
        self.reset = False

    async def serve(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.server_port, limit=CHUNK)
        except OSError:
            self._writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(REQUESTS, self._reader, writer)),
            asyncio.create_task(self._carry(REPLIES, reader, self._writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, self._writer):
                if self.reset:
                    linger = struct.pack("ii", 1, 0)  # closing it then sends RST instead of FIN
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self._proxy.silent or self._dead:
                continue
            if way == REQUESTS:
                self._request += data
                self._recognised.update(rule for rule in self._proxy.rules if rule.role in self._request)
            data, ends = self._spoil(way, data)
            if way == REPLIES:
                self._request = b""
            await self._pass(way, data, writer)
            if ends:
                return
        await self._pass(way, b"", writer)  # its end

    def _spoil(self, way: str, data: bytes) -> tuple[bytes, bool]:
        """What of it passes, and whether that is the end of the connection."""
        if self._loss is not None and self._loss[0].way != way:
            self._loss = None  # the request, or the reply before, was not long enough
        if self._loss is None:
            reply = data if way == REPLIES else b""
            wanting = (loss for loss in self._proxy.losses if loss.wants(way, self._request, reply))
            loss = next(wanting, None)
            if loss is None:
                return data, False
            before = len(self._request) - len(data) if way == REQUESTS else 0
            self._loss = loss, max(0, loss.after - before)
        loss, left = self._loss
        self._loss = loss, left - len(data)
        if left > len(data):
            return data, False
        loss.lost += 1
        self._dead, self.reset = loss.silent, loss.reset
        return data[:left], not loss.silent

    def _rules(self, way: str) -> Iterator[Rule]:
        for rule in self._proxy.rules:
            if rule.way in (None, way) and not rule.over.is_set() and (not rule.role or rule in self._recognised):
                yield rule

    async def _pass(self, way: str, data: bytes, writer: asyncio.StreamWriter) -> None:
        rate = math.inf
        for rule in self._rules(way):
            rate = min(rate, await rule.apply(len(data)))
        step = len(data) if rate == math.inf else max(1, int(rate * STEP))
        for start in range(0, len(data), step or 1):
            if start:
                await asyncio.sleep(step / rate)
            writer.write(data[start : start + step])
            await writer.drain()


class Proxy:
    """``async with Proxy(port) as proxy:`` listens on ``proxy.url`` and passes on to the server at that port.

    ``server_port`` may change; connections that are made afterwards go there.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.losses: list[Loss] = []
        self.rules: list[Rule] = []
        self.silent = False
        """True: nothing passes, and nobody is told: a network that swallows everything."""
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._listening: asyncio.Server | None = None
        self.port = 0
        self.url = ""

    def lose(self, request: bytes, reply: bytes = b"", *, times: int = 1, silent: bool = False, skip: int = 0) -> Loss:
        """Loses the next replies of a kind, after the first ``skip``; see ``Loss``."""
        self.losses.append(Loss(request, reply, times, silent, skip=skip))
        return self.losses[-1]

    def sever(self, request: bytes, way: str, after: int, *, reset: bool = False, silent: bool = False) -> Loss:
        """Breaks the next exchange of a kind after so many bytes of its request or of its reply; see ``Loss``."""
        self.losses.append(Loss(request, silent=silent, way=way, after=after, reset=reset))
        return self.losses[-1]

    def slow(
        self,
        delay: float = 0.0,
        *,
        jitter: float = 0.0,
        rate: float = math.inf,
        role: bytes = b"",
        way: str | None = None,
        seed: int = 0,
    ) -> Rule:
        """Delays what passes by ``delay`` to ``delay + jitter`` seconds each way, and lets ``rate`` bytes pass per
        second and connection, until ``end()`` of the rule."""
        self.rules.append(Rule(role, way, delay, jitter, rate, seed=seed))
        return self.rules[-1]

    def swallow(self, role: bytes = b"", way: str | None = None) -> Rule:
        """A black hole for connections that send ``role`` from now on, or for all, until ``end()`` of the rule."""
        self.rules.append(Rule(role, way, hole=True))
        return self.rules[-1]

    def cut(self, *, reset: bool = False) -> None:
        """Ends all connections that there are."""
        for task, connection in self._serving.items():
            connection.reset = reset
            task.cancel()

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._listening.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._listening.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = self._serving[task] = Connection(self, reader, writer)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # by cut(): the task belongs to asyncio's server, which would report it as an error
        finally:
            del self._serving[task]
            writer.transport.abort()

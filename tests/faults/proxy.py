"""A TCP proxy between clients and a server, which spoils what a test tells it to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

CHUNK = 65_536


@dataclass
class Loss:
    """Replies to lose: those to requests with ``request`` in them, which have ``reply`` in them themselves.

    The request goes through; the reply does not, and neither does anything else on that connection: it is cut, or with
    ``silent`` left open and dead. ``lost`` counts.
    """

    request: bytes
    reply: bytes = b""
    times: int = 1
    silent: bool = False
    lost: int = 0

    def wants(self, request: bytes, reply: bytes) -> bool:
        # The script that the server does not know is sent again as text: that is no reply to be lost.
        if self.lost == self.times or reply.startswith(b"-NOSCRIPT"):
            return False
        return self.request in request and self.reply in reply


class Connection:
    """One client and its way to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._request = b""  # what was asked since the last reply
        self._dead = False

    async def serve(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.server_port)
        except OSError:
            self._writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._ask(self._reader, writer)),
            asyncio.create_task(self._answer(reader, self._writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, self._writer):
                end.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if not self._proxy.silent:
                self._request += data
                writer.write(data)
                await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            for loss in self._proxy.losses:
                if not self._dead and loss.wants(self._request, data):
                    loss.lost += 1
                    self._dead = True
                    if not loss.silent:
                        return
            self._request = b""
            if not self._dead and not self._proxy.silent:
                writer.write(data)
                await writer.drain()


class Proxy:
    """``async with Proxy(port) as proxy:`` listens on ``proxy.url`` and passes on to the server at that port."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.losses: list[Loss] = []
        self.silent = False
        """True: nothing passes, and nobody is told: a network that swallows everything."""
        self._serving: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self.url = ""

    def lose(self, request: bytes, reply: bytes = b"", *, times: int = 1, silent: bool = False) -> Loss:
        """Loses the next replies of a kind; see ``Loss``."""
        self.losses.append(Loss(request, reply, times, silent))
        return self.losses[-1]

    def cut(self) -> None:
        """Ends all connections that there are."""
        for task in self._serving:
            task.cancel()

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
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
        self._serving.add(task)
        try:
            await Connection(self, reader, writer).serve()
        except asyncio.CancelledError:
            pass  # by cut(): the task belongs to asyncio's server, which would report it as an error
        finally:
            self._serving.discard(task)
            writer.transport.abort()

"""The proxy and the clock do what they say; what they are used for stands in other tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.faults.clock import Clock
from tests.faults.proxy import Proxy
from tests.faults.rules import REPLIES, REQUESTS
from tests.servers import Server, free_port
from tests.waiting import eventually

LONG = 20.0
"""Seconds for what must come, and takes none."""
MOMENT = 0.1
"""Seconds in which nothing must come. Too short a moment can only hide a fault, never show a wrong one."""


class Line:
    """A bare connection, on which a test sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, *words: str) -> None:
        self._writer.write(request(*words))

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), LONG)

    async def rest(self) -> bytes:
        """What comes until the connection ends."""
        return await asyncio.wait_for(self._reader.read(), LONG)

    async def ask(self, *words: str) -> bytes:
        self.send(*words)
        return await self.line()

    async def quiet(self) -> bool:
        """Whether nothing comes for a moment, not even an end."""
        try:
            await asyncio.wait_for(self._reader.read(1), MOMENT)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._writer.close()


class Lines:
    """Opens such connections to the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._open: list[Line] = []

    async def __call__(self) -> Line:
        self._open.append(Line(*await asyncio.open_connection("127.0.0.1", self._proxy.port)))
        return self._open[-1]

    def close(self) -> None:
        for line in self._open:
            line.close()


def request(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Lines]:
    lines = Lines(proxy)
    yield lines
    lines.close()


async def test_a_reply_that_is_lost_ends_its_connection_and_no_other(proxy: Proxy, connect: Lines) -> None:
    one, other = await connect(), await connect()
    loss = proxy.lose(b"SET")
    one.send("SET", "key", "value")
    assert await one.rest() == b""
    assert loss.lost == 1
    assert await other.ask("GETRANGE", "key", "0", "-1") == b"$5\r\n"


async def test_the_nth_reply_is_lost(proxy: Proxy, connect: Lines) -> None:
    line, loss = await connect(), proxy.lose(b"INCR", skip=2)
    assert [await line.ask("INCR", "key") for _ in range(2)] == [b":1\r\n", b":2\r\n"]
    line.send("INCR", "key")
    assert await line.rest() == b""
    assert loss.lost == 1
    assert await (await connect()).ask("INCR", "key") == b":4\r\n"


@pytest.mark.parametrize("after", range(len(b":1\r\n") + 1))
async def test_a_reply_is_cut_after_any_of_its_bytes(after: int, proxy: Proxy, connect: Lines) -> None:
    line, loss = await connect(), proxy.sever(b"INCR", REPLIES, after)
    line.send("INCR", "key")
    assert await line.rest() == b":1\r\n"[:after]
    assert loss.lost == 1
    assert await (await connect()).ask("INCR", "key") == b":2\r\n"


async def test_a_request_is_cut_after_any_of_its_bytes(proxy: Proxy, connect: Lines) -> None:
    whole = len(request("INCR", "key"))
    for after in range(whole + 1):
        line, loss = await connect(), proxy.sever(b"INCR", REQUESTS, after)
        line.send("INCR", "key")
        assert await line.rest() == b""
        assert loss.lost == 1
    # Only the one that went through whole was done; the server may still be busy with its end.
    last = await connect()
    assert await last.ask("INCR", "key") == b":2\r\n"


async def test_what_is_shorter_than_the_bytes_that_may_pass_is_left_alone(proxy: Proxy, connect: Lines) -> None:
    line = await connect()
    losses = [proxy.sever(b"INCR", REQUESTS, 1000), proxy.sever(b"INCR", REPLIES, 1000)]
    assert [await line.ask("INCR", "key") for _ in range(2)] == [b":1\r\n", b":2\r\n"]
    assert [loss.lost for loss in losses] == [0, 0]


@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
async def test_a_silent_cut_leaves_the_connection_open_and_dead(way: str, proxy: Proxy, connect: Lines) -> None:
    line, loss = await connect(), proxy.sever(b"INCR", way, 0, silent=True)
    line.send("INCR", "key")
    assert await line.quiet()
    assert loss.lost == 1
    line.send("INCR", "key")
    assert await line.quiet()
    done = 1 if way == REPLIES else 0
    assert await (await connect()).ask("INCR", "key") == b":%d\r\n" % (done + 1)


async def test_a_reset_is_no_orderly_end(proxy: Proxy, connect: Lines) -> None:
    line = await connect()
    proxy.sever(b"INCR", REPLIES, 2, reset=True)
    line.send("INCR", "key")
    with pytest.raises(ConnectionResetError):
        await line.rest()
    line = await connect()
    assert await line.ask("PING") == b"+PONG\r\n"
    proxy.cut(reset=True)
    with pytest.raises(ConnectionResetError):
        await line.rest()


async def test_a_delay_holds_up_requests_and_replies(proxy: Proxy, connect: Lines) -> None:
    line = await connect()
    rule = proxy.slow(0.05, jitter=0.02, seed=7)
    began = time.monotonic()
    assert await line.ask("PING") == b"+PONG\r\n"
    assert time.monotonic() - began >= 0.1
    assert rule.taken == len(request("PING") + b"+PONG\r\n")
    rule.end()
    assert await line.ask("PING") == b"+PONG\r\n"
    assert rule.taken == len(request("PING") + b"+PONG\r\n")


async def test_a_narrow_line_lets_so_many_bytes_pass_per_second(proxy: Proxy, connect: Lines) -> None:
    line = await connect()
    proxy.slow(rate=20_000, way=REQUESTS)
    began = time.monotonic()
    assert await line.ask("ECHO", "x" * 6_000) == b"$6000\r\n"
    assert time.monotonic() - began >= 0.25
    assert await line.line() == b"x" * 6_000 + b"\r\n"


async def test_a_black_hole_takes_the_connections_of_its_role(proxy: Proxy, connect: Lines) -> None:
    one, other = await connect(), await connect()
    hole = proxy.swallow(b"INCR")
    one.send("INCR", "key")
    assert await one.quiet()
    assert await other.ask("EXISTS", "key") == b":0\r\n"
    hole.end()
    assert await one.line() == b":1\r\n", "a network that is there again delivers what it has taken"


async def test_a_black_hole_for_replies_lets_requests_through(proxy: Proxy, connect: Lines) -> None:
    one, other = await connect(), await connect()
    hole = proxy.swallow(b"INCR", REPLIES)
    one.send("INCR", "key")
    assert await one.quiet()
    assert await other.ask("EXISTS", "key") == b":1\r\n"
    hole.end()
    assert await one.line() == b":1\r\n"


async def test_nobody_is_told_of_an_end_through_a_black_hole(proxy: Proxy, connect: Lines, own_server: Server) -> None:
    line = await connect()
    assert await line.ask("PING") == b"+PONG\r\n"
    hole = proxy.swallow()
    own_server.kill()
    assert await line.quiet()
    hole.end()
    assert await line.rest() == b""


async def test_a_request_out_of_a_black_hole_arrives_after_its_sender_has_gone(proxy: Proxy, connect: Lines) -> None:
    one, other = await connect(), await connect()
    hole = proxy.swallow(b"INCR")
    one.send("INCR", "key")
    assert await one.quiet()
    one.close()
    await asyncio.sleep(MOMENT)
    assert await other.ask("EXISTS", "key") == b":0\r\n"
    hole.end()
    for _ in range(200):
        if await other.ask("EXISTS", "key") == b":1\r\n":
            return
        await asyncio.sleep(0.05)
    pytest.fail("the request never arrived")


async def test_the_server_behind_the_proxy_may_move_to_another_port(proxy: Proxy, connect: Lines) -> None:
    proxy.server_port = free_port()
    assert await (await connect()).rest() == b"", "nobody listens there yet"
    arrived = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        writer.write(b"+HERE\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", proxy.server_port):
        assert await (await connect()).line() == b"+HERE\r\n"
    assert arrived.is_set()


async def test_the_clock_of_a_server_is_set_forward_and_back(clock: Clock, clocked_server: Server) -> None:
    async def is_off_by(seconds: float) -> bool:
        before = time.time()
        told = (await clocked_server.command("TIME"))[0]
        return bool(before + seconds - 1 <= told <= time.time() + seconds + 1)

    for step, offset in ((0, 0), (60, 60), (-180, -120), (120, 0)):
        clock.step(step)
        await eventually(partial(is_off_by, offset))  # a server looks at its clock once in a while


async def test_what_a_server_calls_idle_moves_with_its_clock(clock: Clock, clocked_server: Server) -> None:
    async with clocked_server.client() as client:
        await client.xgroup_create("stream", "group", "0", mkstream=True)
        await client.xadd("stream", {"a": "b"})
        await client.xreadgroup("group", "somebody", {"stream": ">"})

        async def idle() -> int:
            [row] = await client.xpending_range("stream", "group", "-", "+", 10)
            return int(row["time_since_delivered"])

        async def is_long() -> bool:
            return await idle() >= 60_000

        async def is_none() -> bool:
            return await idle() <= 0

        clock.step(60)
        await eventually(is_long)
        clock.step(-120)
        await eventually(is_none)


def test_the_clock_of_a_program_is_set_and_its_monotonic_clocks_are_not(clock: Clock) -> None:
    source = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
    clock.step(-300)
    before = time.time() - 300, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    program = subprocess.run(
        [sys.executable, "-c", source], env={**os.environ, **clock.environment}, capture_output=True, check=True
    )
    after = time.time() - 300, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    told = [float(word) for word in program.stdout.split()]
    assert all(low <= one <= high for low, one, high in zip(before, told, after, strict=True))

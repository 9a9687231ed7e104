"""What the server and the network say, and what we make of it, case by case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.exceptions

from taskrunner import QueueFull, RedisConfigurationError, RedisUnavailable
from taskrunner.errors import RedisError
from taskrunner.store.connect import connect
from taskrunner.store.links import Link
from taskrunner.store.scripts import STATS
from taskrunner.store.translate import GroupMissing, Redirection, Unanswered, redirection
from tests.servers import free_port


class Parrot:
    """A server that says the same to every command."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.connections = 0
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(65_536):
                self.heard.append(data)
                if b"SETINFO" in data:  # the client introduces itself when it connects
                    writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
                elif self.says == b"(close)":
                    return
                elif self.says != b"(silence)":
                    writer.write(self.says)
        except OSError:
            pass
        finally:
            writer.transport.abort()


@pytest.fixture
async def parrot() -> AsyncIterator[Callable[[bytes], Any]]:
    """``await parrot(b"...")``: a server that says this, and a link to it."""
    servers: list[asyncio.Server] = []
    links: list[Link] = []

    async def start(says: bytes, scheme: str = "redis") -> tuple[Parrot, Link]:
        made = Parrot(says)
        servers.append(await asyncio.start_server(made.serve, "127.0.0.1", 0))
        port = servers[-1].sockets[0].getsockname()[1]
        links.append(Link(connect(f"{scheme}://127.0.0.1:{port}/0"), ""))
        return made, links[-1]

    yield start
    for link in links:
        await link.close()
    for server in servers:
        server.close()


OUTAGES = [
    b"-LOADING Redis is loading the dataset in memory",
    b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"-CLUSTERDOWN Hash slot not served",
    b"-TRYAGAIN Multiple keys request during rehashing of slot",
    b"-UNBLOCKED client unblocked via CLIENT UNBLOCK",
    b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    b"-NOREPLICAS Not enough good replicas to write.",
    b"-READONLY You can't write against a read only replica.",
    b"-ERR max number of clients reached",
    b"-ERR something that nobody has heard of yet",
    b"-STALE batch 3 came after 4",
    b"(close)",
    b"(silence)",
    b"$100\r\nthe beginning of a reply",
    b"HTTP/1.1 400 Bad Request",
]


@pytest.mark.parametrize("says", OUTAGES, ids=lambda says: says.decode()[:14].strip())
async def test_what_ends_by_itself_or_by_an_operators_hand_is_an_outage(says: bytes, parrot: Any) -> None:
    _, link = await parrot(says if says.startswith((b"(", b"$")) else says + b"\r\n")
    with pytest.raises(RedisUnavailable) as raised:
        await link.call(b"GET", b"key", timeout=0.5)
    assert type(raised.value) in (RedisUnavailable, Unanswered)
    assert "\n" not in str(raised.value)


async def test_nobody_who_listens_is_an_outage() -> None:
    link = Link(connect(f"redis://127.0.0.1:{free_port()}/0"), "")
    with pytest.raises(RedisUnavailable):
        await link.call(b"PING")


REFUSALS: list[tuple[bytes, type[RedisError], str]] = [
    (b"-OOM command not allowed when used memory > 'maxmemory'.", QueueFull, "out of memory"),
    (b"-NOGROUP No such key 'x' or consumer group 'y' in XREADGROUP with GROUP option", GroupMissing, "group is gone"),
    (b"-WRONGTYPE Operation against a key holding the wrong kind of value", RedisConfigurationError, "foreign data"),
    (b"-NOAUTH Authentication required.", RedisConfigurationError, "password"),
    (b"-ERR Protocol error: unauthenticated multibulk length", RedisConfigurationError, "password"),
    (b"-ERR Protocol error: unauthenticated multibulk length", RedisConfigurationError, "password"),
    (b"-WRONGPASS invalid username-password pair or user is disabled.", RedisConfigurationError, "password"),
    (b"-NOPERM User x has no permissions to run the 'xadd' command", RedisConfigurationError, "ACL"),
    (b"-ERR ACL failure in script: User x has no permissions to run the 'xadd' command script: 0f, on @user_script:1.",
     RedisConfigurationError, "ACL"),
    (b"-ERR unknown command 'XAUTOCLAIM', with args beginning with: 'x'", RedisConfigurationError, "too old"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("says", "kind", "text"), REFUSALS, ids=[f"{row[0].decode()[1:16]}" for row in REFUSALS]
)  # fmt: skip
async def test_what_an_operator_must_mend_is_told_as_such(
    says: bytes, kind: type[RedisError], text: str, parrot: Any
) -> None:
    said, link = await parrot(says + b"\r\n")
    for _ in range(2):
        with pytest.raises(kind, match=text) as raised:
            await link.call(b"GET", b"key")
        assert type(raised.value) is kind
    assert said.connections <= 2


@pytest.mark.parametrize(
    "says", [b"-READONLY You can't write.", b"-LOADING soon", b"-UNBLOCKED by somebody", b"(close)"]
)
async def test_after_a_change_of_the_server_the_connection_is_a_new_one(says: bytes, parrot: Any) -> None:
    said, link = await parrot(says + b"\r\n" if says != b"(close)" else says)
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await link.call(b"GET", b"key")
    assert said.connections == 2


async def test_after_an_ordinary_refusal_the_connection_stays(parrot: Any) -> None:
    said, link = await parrot(b"-ERR something that nobody has heard of yet\r\n")
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await link.call(b"GET", b"key")
    assert said.connections == 1


async def test_a_reply_that_came_too_late_never_meets_the_next_caller(parrot: Any) -> None:
    said, link = await parrot(b"(silence)")
    with pytest.raises(RedisUnavailable):
        await link.call(b"GET", b"first", timeout=0.1)
    said.says = b"+second\r\n"
    assert await link.call(b"GET", b"second") == b"second"
    assert said.connections == 2


async def test_a_script_that_the_server_does_not_know_is_sent_as_text_at_once(parrot: Any) -> None:
    said, link = await parrot(b"-NOSCRIPT No matching script.\r\n")
    with pytest.raises(redis.exceptions.NoScriptError):
        await link.run(STATS, [], [])
    assert [b"EVALSHA" in said.heard[-2], STATS.text in said.heard[-1]] == [True, True]


async def test_plain_where_tls_is_asked_for_is_told_as_such(parrot: Any) -> None:
    _, link = await parrot(b"-ERR unknown command\r\n", "rediss")
    with pytest.raises(RedisConfigurationError, match="TLS"):
        await link.call(b"PING")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (redis.exceptions.ResponseError("MOVED 10734 127.0.0.1:13294"), Redirection(True, "127.0.0.1", 13294)),
        (redis.exceptions.ResponseError("ASK 10734 ::1:13294"), Redirection(False, "::1", 13294)),
        (redis.exceptions.ResponseError("MOVED 10734 :6379"), Redirection(True, "", 6379)),
        (redis.exceptions.MovedError("10734 127.0.0.1:13294"), Redirection(True, "127.0.0.1", 13294)),
        (redis.exceptions.AskError("10734 127.0.0.1:13294"), Redirection(False, "127.0.0.1", 13294)),
        (redis.exceptions.ResponseError("MOVED on"), None),
        (redis.exceptions.ConnectionError("MOVED 10734 127.0.0.1:13294"), None),
        ([b"MOVED"], None),
    ],
)
def test_where_to_go_in_a_cluster_is_read_whether_the_client_knows_the_reply_or_not(error: Any, told: Any) -> None:
    assert redirection(error) == told

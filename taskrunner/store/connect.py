"""Connections. Each role has its own, does one call at a time on it, and sets every option that redis-py would choose.

Why not a client: redis-py 8 sends each command again up to ten times after a timeout, and an XADD that is sent again is
a second job; its pool shares connections between a blocking read and a heartbeat. What is sent again here, is sent by
us, and numbered (``store.Batches``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hiredis
import redis.asyncio as redis_asyncio
from redis import connection as blocking
from redis import exceptions as theirs
from redis.asyncio import connection as asynchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from ..errors import EmbeddedServerError, QueueFull, RedisConfigurationError, RedisError, RedisUnavailable
from .scripts import Script

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
CALL_TIMEOUT = 10.0
"""Seconds after which a call that got no answer has failed. A script takes milliseconds; this is for dead networks."""
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between attempts while the server can't be reached; doubled from the first to the longest, with jitter."""

Locate = Callable[[], str]
"""Gives the server's present URL; may block and start it (an embedded server)."""


class GroupMissing(RedisUnavailable):
    """The stream has no consumer group (any more): the server was emptied. The caller makes it again."""


@dataclass(frozen=True)
class Target:
    """Where the server is, and how to log on: what a connection needs, whichever kind it is."""

    kind: str  # tcp, tls or unix
    arguments: dict[str, Any] = field(repr=False)  # the password is among them

    def asynchronous(self) -> Any:
        classes: dict[str, Any] = {
            "tcp": asynchronous.Connection,
            "tls": asynchronous.SSLConnection,
            "unix": asynchronous.UnixDomainSocketConnection,
        }
        return classes[self.kind](**self.arguments, **_common(), retry=AsyncRetry(NoBackoff(), 0))

    def blocking(self, timeout: float) -> Any:
        classes: dict[str, Any] = {
            "tcp": blocking.Connection,
            "tls": blocking.SSLConnection,
            "unix": blocking.UnixDomainSocketConnection,
        }
        common: dict[str, Any] = {**_common(), "socket_timeout": timeout}
        return classes[self.kind](**self.arguments, **common, retry=BlockingRetry(NoBackoff(), 0))


def _common() -> dict[str, Any]:
    # RESP2: the shape of replies is the same on every server, and the client's maintenance notifications (which
    # switch off its guard against unread replies) need RESP3. Time limits are ours, around the whole call.
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 0,
    }


_KEPT_ARGUMENTS = ("host", "port", "path", "username", "password", "db", "credential_provider", "socket_keepalive")


def target(url: str) -> Target:
    """The target that a URL names. Raises RedisConfigurationError for one that can't be used."""
    scheme = url.partition("://")[0]
    # Neither the URL nor what the parser says of it is shown: a password with a / or # in it stands in both.
    if scheme not in ("redis", "rediss", "unix"):
        raise RedisConfigurationError(
            "the Redis URL has a scheme that can't be used here; give redis://, rediss://, unix:// or embedded://"
        )
    try:
        arguments = dict(asynchronous.parse_url(url))
    except (ValueError, TypeError):
        raise RedisConfigurationError(
            "the Redis URL can't be read; it must be like redis://user:password@host:6379/0, with special characters "
            "in user and password percent-encoded (/ is %2F, # is %23, @ is %40)"
        ) from None
    arguments.pop("connection_class", None)
    kind = {"redis": "tcp", "rediss": "tls", "unix": "unix"}[scheme]
    if kind != "unix":
        arguments.setdefault("host", "localhost")
        arguments["socket_keepalive"] = True
    return Target(kind, _select(arguments))


def target_of(client: Any) -> Target:
    """The target of a ready ``redis.asyncio`` client. The client itself is left alone."""
    if not isinstance(client, redis_asyncio.Redis):
        raise RedisConfigurationError(
            f"redis must be a URL or a redis.asyncio.Redis client, not {type(client).__name__}; "
            "Sentinel and Cluster clients are not supported yet"
        )
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):  # it has no address of its own: we would connect to localhost
        raise RedisConfigurationError("clients made by Sentinel are not supported yet; give the primary's URL")
    chosen = pool.connection_class
    kind = "tcp"
    if issubclass(chosen, asynchronous.UnixDomainSocketConnection):
        kind = "unix"
    elif issubclass(chosen, asynchronous.SSLConnection):
        kind = "tls"
    return Target(kind, _select(dict(pool.connection_kwargs)))


def _select(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in arguments.items()
        if value is not None and (name in _KEPT_ARGUMENTS or name.startswith("ssl_"))
    }


def translate(error: BaseException) -> RedisError:
    """An error of the client, the network or the server as one of ours. Secrets are in none of the texts used here.

    Everything that isn't surely configuration is an outage: MISCONF, NOREPLICAS, LOADING, BUSY, a demoted primary, and
    any reply that we don't know end by themselves or by an operator's hand, and no job must fail for them.
    """
    if isinstance(error.__cause__, theirs.AuthenticationError):
        error = error.__cause__  # on a Unix socket the client wraps it into one that says "no connection"
    text = str(error)
    code = text.partition(" ")[0].upper()
    if isinstance(error, theirs.OutOfMemoryError) or code == "OOM" or "-OOM " in text:  # 6.2 wraps a script's errors
        return QueueFull("Redis is out of memory and refused to take more; nothing was written. Free memory, or wait.")
    refused = (theirs.AuthenticationError, theirs.AuthorizationError, theirs.NoPermissionError)
    inside_script = "has no permissions to run" in text  # there it is an ERR
    if isinstance(error, refused) or code in ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED") or inside_script:
        return RedisConfigurationError(f"Redis refuses this user ({_short(text)}); check user name, password and ACL")
    # By OpenSSL's own codes: a host may be called redis-ssl, and a link that ends in the middle is an outage.
    if ("[SSL: " in text and "EOF" not in text and "AFTER_CLOSE" not in text) or text.startswith("Invalid SSL"):
        return RedisConfigurationError(
            f"the TLS connection to Redis can't be made ({_short(text)}); check rediss:// and ssl_*"
        )
    if code == "WRONGTYPE":
        return RedisConfigurationError(
            f"foreign data under our keys ({_short(text)}); use another namespace or key_prefix"
        )
    if code == "NOGROUP" or "NOGROUP" in text:
        return GroupMissing("the consumer group is gone: the server's data was deleted")
    if "unknown command" in text.lower():
        return RedisConfigurationError(f"the server is too old ({_short(text)}); Redis 6.2 or newer is needed")
    return RedisUnavailable(f"Redis can't be used now: {_short(text) or type(error).__name__}")


def _short(text: str) -> str:
    return text[:300].replace("\n", " ").rstrip(". ")


class Connector:
    """Makes connections, and finds the server again when it has moved or has to be started."""

    def __init__(self, locate: Locate | None, fixed: Target | None = None) -> None:
        self._locate = locate
        self._target = fixed

    async def target(self, *, again: bool = False) -> Target:
        if self._locate is not None and (again or self._target is None):
            return await asyncio.to_thread(self.target_blocking)
        assert self._target is not None
        return self._target

    def target_blocking(self) -> Target:
        """For a thread of its own."""
        if self._locate is not None:
            try:
                self._target = target(self._locate())
            except EmbeddedServerError as error:
                if self._target is None:
                    raise  # it can't be started at all
                raise RedisUnavailable(str(error)) from error  # it was there: frozen, or starting anew elsewhere
        assert self._target is not None
        return self._target


class Link:
    """One connection for one role: one call at a time, opened when needed, never shared with a blocking reader."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._failed = False
        self.client_id: int | None = None

    async def call(self, *command: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """One command, one attempt. Raises RedisError; after any failure but an error reply the connection is new."""
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    connection = self._connection
                    if connection is None or not connection.is_connected:
                        connection = await self._open()
                    await connection.send_packed_command([pack(*command)], check_health=False)
                    return await connection.read_response(disable_decoding=True)
            except theirs.NoScriptError:
                raise
            except theirs.ResponseError as error:
                # By class: the client takes the code off the texts it knows. In the text: 6.2 wraps a script's errors.
                moved = isinstance(error, (theirs.ReadOnlyError, theirs.MasterDownError))
                if moved or "-READONLY" in str(error) or str(error).startswith("UNBLOCKED"):
                    await self._drop()  # the role of that server has changed: look for the primary anew
                raise translate(error) from None
            except (theirs.RedisError, OSError, TimeoutError, asyncio.IncompleteReadError, EOFError) as error:
                await self._drop()
                raise translate(error) from None
            except asyncio.CancelledError:
                await self._drop()  # an unread reply must never meet the next caller
                raise

    async def run(self, script: Script, keys: list[str], arguments: list[Any], timeout: float = CALL_TIMEOUT) -> Any:
        """One script, by its SHA, and by its text when the server doesn't know it."""
        try:
            return await self.call(b"EVALSHA", script.sha, len(keys), *keys, *arguments, timeout=timeout)
        except theirs.NoScriptError:
            return await self.call(b"EVAL", script.text, len(keys), *keys, *arguments, timeout=timeout)

    async def open(self) -> None:
        """Connects now."""
        await self.call(b"PING")

    async def identify(self) -> int:
        """The connection's id on the server, for CLIENT UNBLOCK."""
        self.client_id = int(await self.call(b"CLIENT", b"ID"))
        return self.client_id

    async def _open(self) -> Any:
        target = await self._connector.target(again=self._failed)
        self._connection = target.asynchronous()
        self.client_id = None
        self._failed = True
        await self._connection.connect()
        self._failed = False
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection, self.client_id = self._connection, None, None
        if connection is not None:
            self._failed = True
            try:
                await connection.disconnect(nowait=True)
            except (theirs.RedisError, OSError, RuntimeError):
                pass

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                async with asyncio.timeout(1):
                    await connection.disconnect()
            except (theirs.RedisError, OSError, TimeoutError, RuntimeError):
                pass


class BlockingLink:
    """The same for a thread: a blocking connection, so that a busy event loop can't hold up what it says."""

    def __init__(self, connector: Connector, timeout: float) -> None:
        self._connector = connector
        self._timeout = timeout
        self._connection: Any = None

    def run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        try:
            return self._call(b"EVALSHA", script.sha, len(keys), *keys, *arguments)
        except theirs.NoScriptError:
            return self._call(b"EVAL", script.text, len(keys), *keys, *arguments)

    def _call(self, *command: Any) -> Any:
        try:
            if self._connection is None:
                self._connection = self._connector.target_blocking().blocking(self._timeout)
                self._connection.connect()
            self._connection.send_packed_command([pack(*command)], check_health=False)
            return self._connection.read_response(disable_decoding=True)
        except theirs.NoScriptError:
            raise
        except (TimeoutError, theirs.RedisError, OSError) as error:
            self.close()
            raise translate(error) from None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.disconnect()
            except (theirs.RedisError, OSError):
                pass


def pack(*command: Any) -> bytes:
    """A command as bytes; by hiredis, which is several times faster than the client's own way."""
    packed: bytes = hiredis.pack_command(command)
    return packed


def wait_before(attempt: int) -> float:
    """Seconds before the given further attempt (1 = the first): doubled each time, half of it random."""
    return min(FIRST_WAIT * 2.0 ** min(attempt - 1, 10), LONGEST_WAIT) * random.uniform(0.5, 1.0)


async def persist(attempt: Callable[[], Awaitable[T]], patience: float) -> T:
    """Tries until it works, or ``patience`` seconds have gone by with the server away; then raises RedisUnavailable.

    Only for what may be sent twice. Configuration errors and refusals for lack of memory are raised at once.
    """
    deadline = asyncio.get_running_loop().time() + patience
    tries = 0
    while True:
        try:
            return await attempt()
        except QueueFull:
            raise
        except RedisUnavailable:
            tries += 1
            pause = wait_before(tries)
            if asyncio.get_running_loop().time() + pause > deadline:
                raise
            await asyncio.sleep(pause)

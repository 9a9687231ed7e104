"""Target: where one server is and how to log on to it; read from a URL, or taken from a ready client."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import redis.asyncio as redis_asyncio
from redis import connection as blocking
from redis.asyncio import connection as asynchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from ..errors import RedisConfigurationError

CONNECT_TIMEOUT = 5.0

_KINDS = {"redis": "tcp", "rediss": "tls", "unix": "unix"}
_KEPT_ARGUMENTS = ("host", "port", "path", "username", "password", "db", "credential_provider", "socket_keepalive")


@dataclass(frozen=True)
class Target:
    """Where the server is, and how to log on: what a connection needs, whichever kind it is."""

    kind: str  # tcp, tls or unix
    arguments: dict[str, Any] = field(repr=False)  # the password is among them

    def at(self, host: str, port: int) -> Target:
        """Another server of the same deployment: the same rights and the same encryption."""
        return replace(self, arguments={**self.arguments, "host": host, "port": port})

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


def target(url: str) -> Target:
    """The target that a URL names. Raises RedisConfigurationError for one that can't be used."""
    scheme = url.partition("://")[0]
    # Neither the URL nor what the parser says of it is shown: a password with a / or # in it stands in both.
    if scheme not in _KINDS:
        raise RedisConfigurationError(
            "the Redis URL has a scheme that can't be used here; give redis://, rediss://, unix://, "
            "redis+sentinel://, redis+cluster:// or embedded://"
        )
    try:
        arguments = dict(asynchronous.parse_url(url))
    except (ValueError, TypeError):
        raise RedisConfigurationError(
            "the Redis URL can't be read; it must be like redis://user:password@host:6379/0, with special characters "
            "in user and password percent-encoded (/ is %2F, # is %23, @ is %40)"
        ) from None
    arguments.pop("connection_class", None)
    kind = _KINDS[scheme]
    if kind != "unix":
        arguments.setdefault("host", "localhost")
        arguments["socket_keepalive"] = True
    return Target(kind, select(arguments))


def target_of(client: redis_asyncio.Redis) -> Target:
    """The target of a ready client for one server. The client itself is left alone."""
    pool = client.connection_pool
    return Target(kind_of(pool.connection_class), select(dict(pool.connection_kwargs)))


def kind_of(connection_class: type) -> str:
    if issubclass(connection_class, asynchronous.UnixDomainSocketConnection):
        return "unix"
    return "tls" if issubclass(connection_class, asynchronous.SSLConnection) else "tcp"


def select(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of a client's arguments those that say where and who; the others are ours to choose."""
    return {
        name: value
        for name, value in arguments.items()
        if value is not None and (name in _KEPT_ARGUMENTS or name.startswith("ssl_"))
    }

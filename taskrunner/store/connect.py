"""From what a user names, a URL or a ready client, to the deployment that it stands for."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from ..errors import RedisConfigurationError
from .deployment import ClusterNodes, Deployment, OneServer, SentinelService
from .target import Target, kind_of, select, target, target_of

SENTINEL_PORT, PORT = 26379, 6379
SENTINEL_LOGIN = {"sentinel_username": "username", "sentinel_password": "password"}


def connect(redis: Any) -> Deployment:
    """The deployment that a URL names, or that a ready ``redis.asyncio`` client talks to; the client is left alone.

        redis://host:6379/0   rediss://host   unix:///path
        redis+sentinel://host:26379,host:26379/service/0
        redis+cluster://host:6379,host:6379

    ``rediss+...`` for TLS. User and password before the ``@`` are those of the Redis servers; those of the Sentinels
    are given as ``?sentinel_username=...&sentinel_password=...``. Connects to nothing yet. Raises
    RedisConfigurationError.
    """
    if not isinstance(redis, str):
        return _deployment_of(redis)
    scheme, _, kind = redis.partition("://")[0].partition("+")
    if scheme in ("redis", "rediss") and kind in ("sentinel", "cluster"):
        try:
            return _sentinels(scheme, redis) if kind == "sentinel" else _cluster(scheme, redis)
        except ValueError:
            raise RedisConfigurationError(
                f"the Redis URL can't be read; it must be like {_FORMS[kind]}, with special characters in user and "
                "password percent-encoded (/ is %2F, # is %23, @ is %40)"
            ) from None
    return OneServer(target(redis))


_FORMS = {
    "sentinel": "redis+sentinel://user:password@host:26379,host:26379/service/0",
    "cluster": "redis+cluster://user:password@host:6379,host:6379",
}


def _cluster(scheme: str, url: str) -> Deployment:
    parts = urlsplit(url)
    login, hosts = _hosts(parts.netloc, PORT)
    if parts.path not in ("", "/", "/0"):
        raise RedisConfigurationError("a cluster has no numbered databases: leave out what follows the hosts")
    return ClusterNodes(hosts, _first(scheme, login, hosts, "", parts.query))


def _sentinels(scheme: str, url: str) -> Deployment:
    parts = urlsplit(url)
    login, hosts = _hosts(parts.netloc, SENTINEL_PORT)
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise ValueError
    query = parse_qsl(parts.query)
    rest = urlencode([(name, value) for name, value in query if name not in SENTINEL_LOGIN])
    primary = _first(scheme, login, hosts, database or "0", rest)
    kept = {name: value for name, value in primary.arguments.items() if name not in ("username", "password", "db")}
    kept |= {SENTINEL_LOGIN[name]: value for name, value in query if name in SENTINEL_LOGIN}
    watchers = Target(primary.kind, kept)
    return SentinelService(unquote(service), [watchers.at(*host) for host in hosts], primary)


def _hosts(netloc: str, port: int) -> tuple[str, list[tuple[str, int]]]:
    """The user's part of a URL, as it stands, and the hosts with their ports."""
    login, at, names = netloc.rpartition("@")
    hosts: list[tuple[str, int]] = []
    for name in names.split(","):
        one = urlsplit("//" + name)
        if not one.hostname:
            raise ValueError
        hosts.append((one.hostname, one.port or port))
    return login + at, hosts


def _first(scheme: str, login: str, hosts: list[tuple[str, int]], database: str, query: str) -> Target:
    """How to log on to any of the servers, by the way of a plain URL."""
    host, port = hosts[0]
    name = f"[{host}]" if ":" in host else host
    return target(f"{scheme}://{login}{name}:{port}/{database}" + (f"?{query}" if query else ""))


def _deployment_of(client: Any) -> Deployment:
    if isinstance(client, RedisCluster):
        seeds = [(str(node.host), int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
        arguments = dict(client.connection_kwargs)
        kind = "tls" if any(name.startswith("ssl_") for name in arguments) else "tcp"
        return ClusterNodes(seeds, Target(kind, select({**arguments, "socket_keepalive": True})))
    if not isinstance(client, redis_asyncio.Redis):
        raise RedisConfigurationError(
            f"redis must be a URL or a ready redis.asyncio client (Redis or RedisCluster), not {type(client).__name__}"
        )
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return OneServer(target_of(client))
    if not pool.is_master:
        raise RedisConfigurationError("the client reads from replicas (slave_for); give one that master_for made")
    sentinels = [target_of(one) for one in pool.sentinel_manager.sentinels]
    primary = Target(kind_of(pool.connection_class), select({**pool.connection_kwargs, "socket_keepalive": True}))
    return SentinelService(str(pool.service_name), sentinels, primary)

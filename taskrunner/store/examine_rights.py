"""The examination of the user's rights: every command that taskrunner uses is tried, on keys that are thrown away."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from redis import exceptions as theirs

from ..errors import RedisConfigurationError, RedisError, RedisUnavailable
from .deployment import Deployment
from .finding import Finding
from .keys import PartitionKeys
from .links import Link
from .scripts import STATS, Script
from .translate import redirection

LEFT = 60_000
"""ms after which a throw-away key ends by itself, should its removal be forbidden."""


def trials(partition: PartitionKeys) -> list[tuple[Any, ...]]:
    """Commands that change nothing but keys of their own, which are named like a batch's and removed at the end."""
    name = f"examination-{secrets.token_hex(8)}"
    text, table, bag, ranks, stream, line, other = (partition.batch(f"{name}-{kind}") for kind in "thszxlo")
    kept = [(b"PEXPIRE", key, LEFT) for key in (text, table, bag, ranks, stream, line, other)]
    return [
        (b"EXISTS", text), (b"TIME",), (b"PING",), (b"TYPE", text),
        (b"SET", text, "1", b"PX", LEFT), (b"GET", text),
        (b"HSET", table, "a", "1"), (b"HGET", table, "a"), (b"HMGET", table, "a"), (b"HGETALL", table),
        (b"HINCRBY", table, "a", 1), (b"HEXISTS", table, "a"), (b"HVALS", table), (b"HLEN", table),
        (b"HSCAN", table, 0), (b"HSETNX", table, "a", "1"), (b"HDEL", table, "b"),
        (b"SADD", bag, "a"), (b"SMEMBERS", bag), (b"SISMEMBER", bag, "a"), (b"SREM", bag, "b"),
        (b"ZADD", ranks, 1, "a"), (b"ZSCORE", ranks, "a"), (b"ZCARD", ranks), (b"ZRANGE", ranks, 0, 0),
        (b"ZREVRANGE", ranks, 0, 0), (b"ZRANGEBYLEX", ranks, b"-", b"+"), (b"ZREVRANGEBYLEX", ranks, b"+", b"-"),
        (b"ZLEXCOUNT", ranks, b"-", b"+"), (b"ZCOUNT", ranks, 0, 1), (b"HSTRLEN", table, "a"),
        (b"ZRANGEBYSCORE", ranks, 0, 1), (b"ZREVRANGEBYSCORE", ranks, 1, 0), (b"ZREMRANGEBYSCORE", ranks, 2, 3),
        (b"ZSCAN", ranks, 0), (b"ZREM", ranks, "b"),
        (b"LPUSH", line, "a"), (b"LRANGE", line, 0, 0), (b"LTRIM", line, 0, 0), (b"GETRANGE", text, 0, 0),
        (b"SETRANGE", text, 0, "2"), (b"STRLEN", text),
        (b"SET", other, "1", b"PX", LEFT), (b"RENAME", other, text), (b"PERSIST", text),
        (b"LREM", line, 0, "b"), (b"PTTL", text),
        (b"XGROUP", b"CREATE", stream, "g", "0", b"MKSTREAM"), (b"XADD", stream, "1-1", "a", "1"),
        (b"XREADGROUP", b"GROUP", "g", "c", b"COUNT", 1, b"STREAMS", stream, ">"), (b"XLEN", stream),
        (b"XRANGE", stream, "-", "+"), (b"XPENDING", stream, "g"), (b"XCLAIM", stream, "g", "c", 0, "1-1"),
        (b"XAUTOCLAIM", stream, "g", "c", 0, "0", b"COUNT", 1), (b"XACK", stream, "g", "1-1"), (b"XDEL", stream, "1-1"),
        (b"XINFO", b"STREAM", stream), (b"XINFO", b"GROUPS", stream), (b"XINFO", b"CONSUMERS", stream, "g"),
        (b"XGROUP", b"SETID", stream, "g", "0"), (b"XGROUP", b"DELCONSUMER", stream, "g", "c"),
        (b"XTRIM", stream, b"MAXLEN", 0),
        (b"PUBLISH", partition.channel(name), ""),
        *kept, (b"DEL", text), (b"UNLINK", text, table, bag, ranks, stream, line, other),
    ]  # fmt: skip


async def examine_rights(link: Link, deployment: Deployment, partition: PartitionKeys) -> Finding:
    """Whether the user may do all that taskrunner does. Raises RedisUnavailable."""
    commands = trials(partition)
    replies = await link.exchange(commands)
    if redirection(replies[0]) is not None:
        raise RedisUnavailable("the slot of the keys is on the move")
    refused = list(_refused(commands, replies))
    if not await _may_subscribe(deployment, partition):
        refused.append("SUBSCRIBE")
    if refused:
        text = f"the user may not: {', '.join(refused)}; allow that in the ACL, for the keys {partition.prefix}* and "
        return Finding("rights", "problem", text + "the channels of the same names")
    return Finding("rights", "ok", "the user may do all that is needed")


def _refused(commands: list[tuple[Any, ...]], replies: list[Any]) -> Iterator[str]:
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, theirs.NoPermissionError):
            name: str = command[0].decode()
            yield f"{name} {command[1].decode()}" if name in ("XGROUP", "XINFO") else name


async def _may_subscribe(deployment: Deployment, partition: PartitionKeys) -> bool:
    link = Link(deployment, partition.prefix)  # a subscriber is good for nothing else afterwards
    try:
        await link.call(b"SUBSCRIBE", partition.wake)
    except RedisConfigurationError:
        return False
    finally:
        await link.close()
    return True


async def examine_scripts(link: Link, partition: PartitionKeys, script: Script = STATS) -> Finding:
    """Whether scripts run, by one that only reads. Raises RedisUnavailable."""
    names = partition.queue("examination")
    keys = [partition.workers, partition.worker_facts, partition.paused]
    keys += [names.stream, names.due, names.dead, names.waiting, names.runs, names.rates, names.tallies]
    try:
        await link.run(script, keys, ["examination", "examination"])
    except RedisUnavailable:
        raise
    except RedisError as error:
        return Finding("scripts", "problem", f"Lua scripts are refused: {error}")
    return Finding("scripts", "ok", "Lua scripts run")

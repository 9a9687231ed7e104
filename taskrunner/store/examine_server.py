"""The examination of a server: its version and role, what it keeps when it is full or dies, its clock, its cluster."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Iterator

from redis import exceptions as theirs

from ..durability import Durability
from ..errors import RedisConfigurationError
from .confirm import CONFIRMATIONS, Confirmation
from .finding import Finding, ask, facts
from .links import Link
from .translate import translate

OLDEST = (6, 2)
FULL = 0.9
"""The part of maxmemory that is too much."""
ROUND_TRIPS = 5
SKEW = 1.0
"""Seconds between two clocks that are too many."""


async def examine_server(link: Link, key: str, durability: Durability) -> AsyncIterator[Finding]:
    """The findings of the server that has ``key``. Raises RedisUnavailable."""
    info = await facts(link)
    if info is None:
        yield Finding("server", "unknown", "the user may not ask INFO, so nothing is known of version, role and memory")
    else:
        yield _version(info)
        yield _role(info)
        yield _memory(info)
    yield await _persistence(link, key, info, durability)
    yield await _clock(link)
    if info is not None and info.get("cluster_enabled") == "1":
        yield await _cluster(link)


def _version(info: dict[str, str]) -> Finding:
    if "valkey_version" in info:  # its redis_version is the one that it forked from
        return Finding("server", "ok", f"Valkey {info['valkey_version']}")
    version = info.get("redis_version", "")
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return Finding(
            "server", "unknown", f"version {version!r}; needed is Redis {_dotted(OLDEST)} or newer, or Valkey"
        )
    if number < OLDEST:
        return Finding("server", "problem", f"Redis {version} is too old: update it to {_dotted(OLDEST)} or newer")
    return Finding("server", "ok", f"Redis {version}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _role(info: dict[str, str]) -> Finding:
    if info.get("role") == "master":
        return Finding("role", "ok", f"primary, replicas connected: {info.get('connected_slaves', '0')}")
    text = "it is a replica, which takes no jobs: give the address of its primary, or a redis+sentinel:// URL"
    return Finding("role", "problem", text)


def _memory(info: dict[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", ""), int(info.get("maxmemory", "0"))
    if policy != "noeviction":
        deletes = f"maxmemory-policy is {policy}: a full server deletes keys, and with them jobs that were accepted"
        if limit:
            return Finding("memory", "problem", f"{deletes}; set it to noeviction, then dispatch raises QueueFull")
        return Finding("memory", "warning", f"{deletes}; it has no maxmemory yet, but set noeviction")
    used = int(info.get("used_memory", "0"))
    if limit and used > FULL * limit:
        text = f"{used / limit:.0%} of maxmemory are used: when it is full, dispatch raises QueueFull; free some"
        return Finding("memory", "warning", text)
    return Finding(
        "memory", "ok", f"noeviction, {used / limit:.0%} of maxmemory used" if limit else "noeviction, no limit"
    )


async def _persistence(link: Link, key: str, info: dict[str, str] | None, durability: Durability) -> Finding:
    for trouble in _refused_writes(info or {}):
        return Finding("persistence", "problem", trouble)
    if durability is not Durability.MEMORY:
        return await _confirmation(link, key, CONFIRMATIONS[durability], durability)
    if info is None:
        return Finding("persistence", "unknown", "the user may not ask INFO; durability='memory' needs none")
    if info.get("aof_enabled") == "1":
        return Finding("persistence", "ok", "append-only file; with durability='memory' nobody waits for it")
    saves = await ask(link, b"CONFIG", b"GET", b"save")
    if saves is None:
        text = "no append-only file: a server that dies loses the jobs since its last snapshot, or all"
        return Finding("persistence", "warning", f"{text}; set `appendonly yes` if they matter")
    if saves[1]:
        text = "snapshots only: a server that dies loses the jobs since the last; set `appendonly yes` if they matter"
    else:
        text = "nothing is kept: a server that dies loses all jobs; set `appendonly yes` if they matter"
    return Finding("persistence", "warning", text)


def _refused_writes(info: dict[str, str]) -> Iterator[str]:
    advice = "then it refuses all writes (MISCONF); look into its log and at its disk"
    if info.get("aof_last_write_status", "ok") != "ok":
        yield f"the last write to the append-only file failed: {advice}"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield f"the last snapshot failed: with stop-writes-on-bgsave-error {advice}"


async def _confirmation(link: Link, key: str, confirmation: Confirmation, durability: Durability) -> Finding:
    name = durability.name.lower()
    try:
        while True:
            before = confirmation
            first, told = await link.exchange([(b"EXISTS", key), confirmation.probe])
            if isinstance(first, theirs.ResponseError):
                raise translate(first)
            confirmation = confirmation.check(told)
            if confirmation is before:
                return Finding("persistence", "ok", f"durability={name!r} can be confirmed")
    except RedisConfigurationError as error:
        return Finding("persistence", "problem", str(error).removesuffix(" Nothing was written."))


async def _clock(link: Link) -> Finding:
    skews: list[float] = []
    for _ in range(ROUND_TRIPS):
        before = time.time()
        seconds, micros = await link.call(b"TIME")
        skews.append((before + time.time()) / 2 - int(seconds) - int(micros) / 1e6)
    skew = statistics.median(skews)
    if abs(skew) > SKEW:
        text = f"this machine's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the server's"
        return Finding("clock", "warning", f"{text}: an `at=` from here comes so much off; set both clocks by NTP")
    return Finding("clock", "ok", f"{abs(skew) * 1000:.0f} ms from the server's")


async def _cluster(link: Link) -> Finding:
    told: bytes | None = await ask(link, b"CLUSTER", b"INFO")
    if told is None:
        return Finding("cluster", "unknown", "the user may not ask CLUSTER INFO")
    state = dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)
    served = int(state.get("cluster_slots_ok", "0"))
    if state.get("cluster_state") != "ok" or served < 16384:
        text = f"state {state.get('cluster_state')}, {served:,} of 16,384 slots served: look at CLUSTER NODES"
        return Finding("cluster", "problem", text)
    return Finding("cluster", "ok", f"state ok, {state.get('cluster_size')} primaries, all slots served")

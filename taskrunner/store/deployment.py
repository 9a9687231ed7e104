"""Deployments: one server, a service that Sentinels watch, or a cluster; and where in it the keys of a partition are.

Searching is blocking code, since a heartbeat's thread needs it too; the event loop sends it to a thread. It happens
when a connection is first made and after one has failed, not per call.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis import exceptions as theirs
from redis.crc import key_slot

from ..errors import EmbeddedServerError, RedisConfigurationError, RedisUnavailable
from .target import Target, target
from .translate import translate

SEARCH_TIMEOUT = 2.0
"""Seconds that one node gets to say where something is; then the next one is asked."""
FRESH = 0.1
"""Seconds for which a slot map is not asked for again: all links of a process fail in the same moment."""


class Deployment(ABC):
    """Knows which server has the keys of a partition, and finds it again when it has moved or has to be started."""

    async def target(self, key: str, *, again: bool = False) -> Target:
        """The server that has a key; ``again`` when the one named last time has failed. Raises RedisError."""
        known = None if again else self.known(key)
        return await asyncio.to_thread(self.find, key) if known is None else known

    def known(self, key: str) -> Target | None:
        """Where it was last time; None when that has to be found out."""
        return None

    @abstractmethod
    def find(self, key: str) -> Target:
        """Finds out where it is now. Blocks. Raises RedisError."""

    def moved(self, key: str, host: str, port: int) -> None:
        """A server has said that the slot of this key belongs to that node. Only nodes of a cluster say that."""
        raise _no_cluster()

    def at(self, host: str, port: int) -> Target:
        """A node that another one has named, for the time of one command."""
        raise _no_cluster()


def _no_cluster() -> RedisConfigurationError:
    return RedisConfigurationError("the server is a node of a cluster; give redis+cluster://host,host")


class OneServer(Deployment):
    """A server with an address."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def known(self, key: str) -> Target | None:
        return self._target

    def find(self, key: str) -> Target:
        return self._target


class LocatedServer(Deployment):
    """A server whose URL somebody finds for us; who may start it for that (an embedded server)."""

    def __init__(self, locate: Callable[[], str]) -> None:
        self._locate = locate
        self._target: Target | None = None

    def known(self, key: str) -> Target | None:
        return self._target

    def find(self, key: str) -> Target:
        try:
            self._target = target(self._locate())
        except EmbeddedServerError as error:
            if self._target is None:
                raise  # it can't be started at all
            raise RedisUnavailable(str(error)) from error  # it was there: frozen, or starting anew elsewhere
        return self._target


class SentinelService(Deployment):
    """The primary of a service, as its Sentinels name it.

    ``primary`` tells how to log on to it; its address is what the Sentinels say. After a failure they are asked again:
    after a failover the old primary may well be there, as a replica.
    """

    def __init__(self, service: str, sentinels: Sequence[Target], primary: Target) -> None:
        self._service = service
        self._sentinels = list(sentinels)
        self._primary = primary
        self._found: Target | None = None

    def known(self, key: str) -> Target | None:
        return self._found

    def find(self, key: str) -> Target:
        failure: Exception = RedisUnavailable("no Sentinel can be reached")
        for sentinel in list(self._sentinels):
            try:
                reply = _ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            except (RedisUnavailable, RedisConfigurationError) as error:
                failure = error
                continue
            # The one that answered is asked first the next time.
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            if reply:
                self._found = self._primary.at(reply[0].decode(), int(reply[1]))
                return self._found
            failure = RedisConfigurationError(
                f"the Sentinels know no service {self._service!r}; the URL is redis+sentinel://host,host/service/db"
            )
        raise failure


class ClusterNodes(Deployment):
    """The nodes of a cluster, and which of them has a slot."""

    def __init__(self, seeds: Sequence[tuple[str, int]], login: Target) -> None:
        self._seeds = list(seeds)
        self._login = login
        self._slots: dict[int, tuple[str, int]] = {}  # only of the partitions that are used
        self._nodes: list[tuple[str, int]] = []
        self._ranges: list[tuple[int, int, tuple[str, int]]] = []
        self._asked = -FRESH
        self._turn = threading.Lock()

    def known(self, key: str) -> Target | None:
        node = self._slots.get(key_slot(key.encode()))
        return None if node is None else self.at(*node)

    def find(self, key: str) -> Target:
        with self._turn:
            if time.monotonic() - self._asked >= FRESH:
                self._read_map()
            slot = key_slot(key.encode())
            for first, last, node in self._ranges:
                if first <= slot <= last:
                    self._slots[slot] = node
                    return self.at(*node)
        raise RedisUnavailable(f"no node of the cluster serves slot {slot} now")

    def moved(self, key: str, host: str, port: int) -> None:
        self._slots[key_slot(key.encode())] = (host, port)

    def at(self, host: str, port: int) -> Target:
        return self._login.at(host or self._seeds[0][0], port)  # a node may not know its own name

    def _read_map(self) -> None:
        """Asks one node after the other for the slot map: those that were in it, in any order, then the seeds."""
        failure: Exception = RedisUnavailable("no node of the cluster can be reached")
        for node in dict.fromkeys([*random.sample(self._nodes, len(self._nodes)), *self._seeds]):
            try:
                rows = _ask(self.at(*node), "CLUSTER", "SLOTS")
            except (RedisUnavailable, RedisConfigurationError) as error:
                failure = error
                continue
            # A node that knows no name for itself gives none: then it is the one that was asked.
            named = [(row[0], row[1], ((row[2][0] or b"").decode() or node[0], row[2][1])) for row in rows]
            self._ranges = [(first, last, owner) for first, last, owner in named]
            self._nodes = list({owner for _, _, owner in named})
            self._asked = time.monotonic()
            return
        raise failure


def _ask(server: Target, *command: Any) -> Any:
    """One question to one server, on a connection of its own. Raises RedisError."""
    connection = server.blocking(SEARCH_TIMEOUT)
    connection.socket_connect_timeout = SEARCH_TIMEOUT
    try:
        connection.connect()
        connection.send_packed_command([hiredis.pack_command(command)], check_health=False)
        return connection.read_response(disable_decoding=True)
    except (theirs.RedisError, OSError, TimeoutError) as error:
        raise translate(error) from None
    finally:
        connection.disconnect()

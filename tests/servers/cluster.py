"""A cluster of three primaries, with replicas if wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.exceptions import RedisError

from tests.servers.ports import free_port
from tests.servers.server import Server
from tests.waiting import eventually

SLOTS = 16_384
DEADLINE = 60.0
"""Seconds for what takes some four: a new cluster takes writes 2 s after its slots have owners, by design."""


class Node(Server):
    """One node. ``id`` is what the others call it; ``follows`` is the primary that it was made a replica of."""

    id: str = ""
    follows: Node | None = None

    async def cluster(self, *words: str | bytes | int) -> Any:
        return await self.command("CLUSTER", *words)

    async def state(self) -> dict[str, str]:
        lines = (await self.cluster("INFO")).decode().split()
        return dict(line.split(":", 1) for line in lines)

    async def own_line(self) -> list[str]:
        """What it says of itself: id, address, flags, primary, three times, link, then its slots."""
        lines = (await self.cluster("NODES")).decode().splitlines()
        [line] = (line for line in lines if "myself" in line)
        return str(line).split()


class Cluster:
    """Three primaries that share the slots, each with ``replicas`` replicas.

    The cluster calls a node dead when it has heard nothing of it for ``node_timeout`` milliseconds; its replica takes
    over a second or two later. ``arguments`` and ``persistent`` are those of every node.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        replicas: int = 0,
        persistent: bool = False,
        fsync: str = "no",
        kind: str = "",
        node_timeout: int = 2000,
    ) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
        options += ("--cluster-node-timeout", str(node_timeout), "--repl-diskless-sync-delay", "0")
        self.nodes = [
            Node(
                folder / f"node-{number}",
                *options,
                *arguments,
                persistent=persistent,
                fsync=fsync,
                kind=kind,
                port=free_port(bus=True),
            )
            for number in range(3 * (1 + replicas))
        ]
        self.primaries = self.nodes[:3]
        """The primaries at the start. ``owner()`` tells who it is now."""
        for number, node in enumerate(self.nodes[3:]):
            node.follows = self.primaries[number % 3]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def client(self) -> redis.asyncio.RedisCluster:
        nodes = [redis.asyncio.cluster.ClusterNode("127.0.0.1", node.port) for node in self.nodes if node.running]
        return redis.asyncio.RedisCluster(startup_nodes=nodes, protocol=2)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def start(self) -> None:
        """Returns when every slot takes writes, every replica follows, and every node knows all others."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        for number, node in enumerate(self.nodes):
            node.id = (await node.cluster("MYID")).decode()
            # Nodes that start with the same epoch have to vote who gets a higher one.
            await node.cluster("SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    await node.cluster("MEET", "127.0.0.1", other.port)
        for number, node in enumerate(self.primaries):
            await node.cluster("ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        await eventually(self._complete, DEADLINE)
        for node in self.nodes[3:]:
            assert node.follows is not None
            await node.cluster("REPLICATE", node.follows.id)
        await eventually(self._replicated, DEADLINE)

    def close(self) -> None:
        """Ends every node."""
        for node in self.nodes:
            node.kill()

    def kill(self, node: Node) -> None:
        """Ends one node as a crash does. ``await node.start()`` brings it back, with what it knows of the cluster."""
        node.kill()

    async def ready(self) -> None:
        """Waits until every node that runs says that the cluster takes commands."""
        await eventually(self._up, DEADLINE)

    # -- slots -----------------------------------------------------------------------------------------------------

    async def slot_of(self, key: str) -> int:
        return int(await self._running()[0].cluster("KEYSLOT", key))

    async def owner(self, slot: int) -> Node:
        """The node that says it owns this slot. Waits for one, as there is none while a replica takes over."""
        found: Node = await eventually(lambda: self._find_owner(slot), DEADLINE)
        return found

    async def failed_over(self, slot: int, old: Node) -> Node:
        """Waits until another node than ``old`` owns this slot and the cluster takes commands; returns it."""

        async def other() -> Node | None:
            node = await self._find_owner(slot)
            return node if node is not old else None

        found: Node = await eventually(other, DEADLINE)
        await self.ready()
        return found

    async def begin_migration(self, slot: int, target: Node) -> Node:
        """From now on the owner sends those who ask for a key of this slot that it hasn't got to ``target``, with ASK.
        Returns the owner."""
        source = await self.owner(slot)
        assert source is not target, "it owns the slot already"
        await target.cluster("SETSLOT", slot, "IMPORTING", source.id)
        await source.cluster("SETSLOT", slot, "MIGRATING", target.id)
        return source

    async def move_keys(self, source: Node, slot: int, target: Node, keys: Iterable[bytes] | None = None) -> None:
        """Moves these keys of a slot, or all that are there."""
        while found := list(keys or await source.cluster("GETKEYSINSLOT", slot, 100)):
            await source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *found)
            if keys is not None:
                return

    async def end_migration(self, slot: int, target: Node) -> None:
        """All keys have been moved: everybody is told that ``target`` owns the slot. From now on there is MOVED."""
        others = [node for node in self._running() if node is not target]
        for node in (target, *others):  # first the target, so that the slot has an owner at any time
            flags = (await node.own_line())[2]
            if "master" in flags:
                await node.cluster("SETSLOT", slot, "NODE", target.id)

    async def migrate(self, slot: int, target: Node) -> None:
        """Moves a slot with its keys, as an operator does."""
        source = await self.begin_migration(slot, target)
        await self.move_keys(source, slot, target)
        await self.end_migration(slot, target)

    # -- conditions ------------------------------------------------------------------------------------------------

    def _running(self) -> list[Node]:
        return [node for node in self.nodes if node.running]

    async def _find_owner(self, slot: int) -> Node | None:
        for node in self._running():
            try:
                line = await node.own_line()
            except RedisError:
                continue
            # A slot that moves stands in brackets behind the ranges.
            ranges = [word.split("-") for word in line[8:] if not word.startswith("[")]
            if "master" in line[2] and any(int(first[0]) <= slot <= int(first[-1]) for first in ranges):
                return node
        return None

    async def _up(self) -> bool:
        try:
            states = [await node.state() for node in self._running()]
        except RedisError:
            return False
        return all(state["cluster_state"] == "ok" for state in states)

    async def _complete(self) -> bool:
        states = [await node.state() for node in self.nodes]
        wanted = {"cluster_state": "ok", "cluster_slots_ok": str(SLOTS), "cluster_known_nodes": str(len(self.nodes))}
        return all(state.items() >= wanted.items() for state in states)

    async def _replicated(self) -> bool:
        for node in self.nodes:
            lines = [line.split() for line in (await node.cluster("NODES")).decode().splitlines()]
            if sum("slave" in line[2] for line in lines) != len(self.nodes) - 3:
                return False
        states = [await node.command("INFO", "replication") for node in self.nodes[3:]]
        return all(state["role"] == "slave" and state["master_link_status"] == "up" for state in states)

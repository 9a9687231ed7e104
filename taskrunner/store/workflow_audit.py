"""The audit of workflows: that each of them can end, page by page. ``audit_workflows.lua`` says what is looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .keys import Keyspace, PartitionKeys
from .links import Link
from .scripts import AUDIT_WORKFLOWS

NAMES = 100
"""Workflows, or jobs that others wait for, that are read at a time."""
ABROAD = "abroad"

How = Literal["mend", "look"]
Damage = tuple[str, str]
"""What was found, in a word of the script's, and the id of the workflow."""


@dataclass(frozen=True, slots=True)
class WorkflowPage:
    """One step. ``cursor``: where another one can go on; '' at the end. ``damages`` were mended, or after a mere look
    would be."""

    cursor: str
    damages: list[Damage]


@dataclass(frozen=True, slots=True)
class _Abroad:
    """An open node whose job is in another partition."""

    workflow: str
    number: int
    partition: int
    job: str


@dataclass(frozen=True, slots=True)
class WorkflowAuditor:
    """Who audits the workflows of one partition. ``rest``: seconds between two passes of the whole fleet."""

    links: Sequence[Link]
    keyspace: Keyspace
    partition: PartitionKeys
    result_ttl: float
    rest: float

    async def turn(self) -> tuple[str, float]:
        """Where the fleet has come to, and seconds until it may go on, 0 for now. What two do at once is done once."""
        [(due, cursor), (seconds, micros)] = await self._link.ask(
            [(b"HMGET", self.partition.janitor, b"workflows-next", b"workflows-audit"), (b"TIME",)]
        )
        wait = (int(due) if due and due.isdigit() else 0) / 1000 - int(seconds) - int(micros) / 1e6
        return (cursor or b"").decode("utf-8", "replace"), wait if 0 < wait <= self.rest else 0.0

    async def keep(self, cursor: str) -> None:
        """Says to the fleet where a pass has come to; unless this worker goes on, another one does after ``rest``."""
        seconds, _ = await self._link.call(b"TIME")
        due = round((int(seconds) + self.rest) * 1000)
        await self._link.call(b"HSET", self.partition.janitor, b"workflows-audit", cursor, b"workflows-next", due)

    async def whole(self, how: How, cursor: str = "") -> AsyncIterator[WorkflowPage]:
        """A pass, or the rest of one from a cursor on, in steps of about a hundred things: all workflows that run, then
        all jobs that others wait for. Raises RedisError."""
        while True:
            kind, _, place = cursor.partition(" ")
            is_links, place = kind == "links", place if place.isdigit() else "0"
            scan, key = (b"HSCAN", self.partition.followers) if is_links else (b"ZSCAN", self.partition.workflows)
            after, found = await self._link.call(scan, key, place, b"COUNT", NAMES)
            async for damages in self._links(how, found[::2]) if is_links else self._nodes(how, found[::2]):
                yield WorkflowPage(cursor, damages)
            if after != b"0":
                cursor = f"{'links' if is_links else 'nodes'} {after.decode()}"
            else:
                cursor = "" if is_links else "links 0"
            yield WorkflowPage(cursor, [])
            if not cursor:
                return

    # -- what is looked at -----------------------------------------------------------------------------------

    async def _nodes(self, how: How, names: Sequence[bytes]) -> AsyncIterator[list[Damage]]:
        start, node = 0, 0
        while start < len(names):
            some = names[start : start + NAMES]
            pairs = [part for n, name in enumerate(some) for part in (name, 0 if n else node)]
            keys = [key for name in some for key in self.partition.workflow(name.decode("utf-8", "surrogateescape"))]
            done, node, *words = await self._run(how, _encoded(keys), "nodes", pairs)
            start += done
            triples = _triples(words)
            damages = [(what, id) for what, id, _ in triples if what != ABROAD]
            yield damages + await self._ask(how, [_abroad(id, where) for what, id, where in triples if what == ABROAD])

    async def _links(self, how: How, ids: Sequence[bytes]) -> AsyncIterator[list[Damage]]:
        start = 0
        while start < len(ids):
            some = ids[start : start + NAMES]
            keys = [self.partition.job(id.decode("utf-8", "surrogateescape")) for id in some]
            done, _, *words = await self._run(how, _encoded(keys), "links", some)
            start += done
            yield [(what, id) for what, id, _ in _triples(words)]

    # -- nodes whose job is in another partition -------------------------------------------------------------

    async def _ask(self, how: How, nodes: Sequence[_Abroad]) -> list[Damage]:
        """Asks the other partitions for jobs that they seem not to know; by a message, which comes behind all that was
        said before. After a mere look: those of whom nothing can be under way any more."""
        doubtful = await self._unknown(nodes)
        if not doubtful:
            return []
        if how == "mend":
            await self._run(how, [], "ask", [part for one in doubtful for part in (one.workflow, one.number)])
            return []
        if not await self._is_quiet(doubtful):
            return []
        # Nothing is on its way there. What has ended there meanwhile has said so, and then that is here or on its way.
        doubtful = await self._unknown(doubtful)
        if not doubtful or not await self._is_quiet(doubtful):
            return []
        letters = await self._link.ask(
            [(b"GETRANGE", self.partition.workflow(one.workflow)[1], one.number, one.number) for one in doubtful]
        )
        return [("ended", one.workflow) for one, letter in zip(doubtful, letters, strict=True) if letter == b"o"]

    async def _unknown(self, nodes: Sequence[_Abroad]) -> list[_Abroad]:
        """Those whose job is not alive where it should be, or does not know that it is a node."""
        doubtful: list[_Abroad] = []
        for partition in {one.partition for one in nodes if one.partition < len(self.links)}:
            some = [one for one in nodes if one.partition == partition]
            keys, jobs = self.keyspace.partitions[partition], [one.job for one in some]
            lives, texts = await self.links[partition].look(
                [(b"HMGET", keys.live, *jobs), (b"HMGET", keys.followers, *jobs)]
            )
            if lives is not None and texts is not None:
                rows = zip(some, lives, texts, strict=True)
                doubtful += [one for one, life, text in rows if life is None or not self._knows(text, one)]
        return doubtful

    def _knows(self, text: bytes | None, node: _Abroad) -> bool:
        """Whether one of a job's links is that of this node: see ``_follow.lua``."""
        wanted = [str(node.number), str(self.partition.number)]
        links = (line.split(" ", 3) for line in (text or b"").decode("utf-8", "replace").split("\n"))
        return any(link[:2] == wanted and link[3:] == [node.workflow] for link in links)

    async def _is_quiet(self, nodes: Sequence[_Abroad]) -> bool:
        """Whether no message is on its way between their partitions and this one."""
        here, lengths = self.partition, list[int]()
        for partition in {one.partition for one in nodes}:
            there = self.keyspace.partitions[partition]
            lengths.append(await self._link.call(b"XLEN", here.outbox(partition)))
            lengths.append(await self.links[partition].call(b"XLEN", there.outbox(here.number)))
        return not any(lengths)

    # -- calls -----------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Link:
        return self.links[self.partition.number]

    async def _run(self, how: How, keys: Sequence[Any], what: str, names: Sequence[Any]) -> Any:
        here = self.partition
        fixed = [here.janitor, here.live, here.watchers, here.queues, here.workflows, here.followers, here.unfolding]
        arguments = [how, here.prefix, here.wake, round(self.result_ttl * 1000) or 1, what, *names]
        return await self._link.run(AUDIT_WORKFLOWS, [*fixed, *keys], arguments)


def _encoded(keys: Sequence[str]) -> list[bytes]:
    """Names that strangers gave need not be text."""
    return [key.encode("utf-8", "surrogateescape") for key in keys]


def _abroad(workflow: str, where: str) -> _Abroad:
    number, partition, job = where.split(" ", 2)
    return _Abroad(workflow, int(number), int(partition), job)


def _triples(words: Sequence[bytes]) -> list[tuple[str, str, str]]:
    texts = [word.decode("utf-8", "replace") for word in words]
    return [(texts[n], texts[n + 1], texts[n + 2]) for n in range(0, len(texts), 3)]

"""Packing: a blueprint as what begin.lua and stage.lua take, in parts of which each is one call."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..blueprint import GIVEN, Blueprint, Followers, Fork, JobNode, Join, Piece
from ..envelope import Extra
from . import wire
from .items import add_draft
from .keys import Keyspace

CHUNK, CHUNK_BYTES = 100, 250_000
"""Most jobs behind a fork, and bytes of their letters, that one step lets start: half a millisecond of server time."""
PART, PART_BYTES = 400, 1_000_000
"""Most fields, and bytes of them, in one call."""

Fields = list[tuple[str, bytes]]


@dataclass
class _Chunks:
    """Those behind a fork, as far as they are known: the first of them are on their way already."""

    items: list[bytes] = field(default_factory=list)
    size: int = 0
    sent: int = 0


class Packing:
    """The pieces of a workflow as fields of its hash, in parts that one call takes."""

    def __init__(self, blueprint: Blueprint, keyspace: Keyspace, partition: int) -> None:
        self._blueprint = blueprint
        self._keyspace = keyspace
        self._partition = partition
        self._fields = Fields()
        self._size = 0
        self._chunks: dict[int, _Chunks] = {}
        self.nodes = 0
        self.at = 0
        """Server time in ms at which it was dispatched."""
        self.names: list[tuple[int, str]] = []
        """Ids of jobs that are the user's."""

    def parts(self) -> Iterator[Fields]:
        if self._blueprint.previous:
            self._put(f"v:{GIVEN}", self._blueprint.previous)
        for piece in self._blueprint.pieces:
            self._add(piece)
            if len(self._fields) >= PART or self._size >= PART_BYTES:
                yield self._take()
        for number in list(self._chunks):
            self._close(number)
        yield self._take()

    def _take(self) -> Fields:
        part, self._fields, self._size = self._fields, [], 0
        return part

    def _put(self, name: str, value: bytes) -> None:
        self._fields.append((name, value))
        self._size += len(value)

    def _add(self, piece: Piece) -> None:
        if isinstance(piece, Followers):
            self._put(f"f:{piece.number}", piece.followers.encode())
            return
        self.nodes += 1
        if isinstance(piece, JobNode):
            self._add_job(piece)
        elif isinstance(piece, Fork):
            self._chunks[piece.number] = _Chunks()
            if piece.behind is None:
                self._put(f"b:{piece.number}", b"%d" % piece.before)
            else:
                self._behind(piece.behind, _packed([piece.number]))
        else:
            self._add_join(piece)

    def _add_job(self, node: JobNode) -> None:
        envelope = node.draft.envelope
        self.at = self.at or envelope.enqueued_at
        if node.draft.custom_id:
            self.names.append((node.number, envelope.id))
        item = self._item(node)
        if node.behind is not None:
            self._behind(node.behind, item)
            return
        self._put(f"i:{node.number}", item)
        if node.preceding is not None:
            self._put(f"b:{node.number}", b"%d" % node.before)

    def _item(self, node: JobNode) -> bytes:
        draft = node.draft
        envelope, extras = draft.envelope, draft.envelope.extras
        if draft.lasts:
            extras[Extra.LASTS] = draft.lasts
            extras.pop(Extra.EXPIRES, None)
        if node.preceding is not None:
            preceding = node.preceding if isinstance(node.preceding, int) else list(node.preceding)
            extras[Extra.PRECEDING] = [self._blueprint.id, self._partition, preceding]
        if node.handed:
            extras[Extra.PREVIOUS] = 0  # the last one: the script puts its size there
        number = self._keyspace.partition_of(draft.digest) if draft.digest else self._partition
        keys, leases, items = list[str](), list[str](), list[Any]()
        add_draft(draft, wire.seal(envelope), keys, leases, items, self._keyspace.partitions[number])
        operations, id, task, letter, *operands = items
        before = len(orjson.dumps([id, task]))  # then comes the time of the dispatch, in 13 digits
        where = "" if number == self._partition else number
        followers = "-" if node.followers is None else node.followers
        values = [node.number, followers, where, draft.queue, operations, id, task]
        values += (letter[:before], letter[before + 13 :], int(node.handed))
        return _packed([*values, keys, operands] if keys or operands else values)

    def _add_join(self, join: Join) -> None:
        self._close(join.number - 1)
        self._put(f"m:{join.number}", b" ".join(b"%d-%d" % one for one in join.members))
        self._put(f"b:{join.number}", b"%d" % (join.before or 1))
        self._put(f"e:{join.number}", b"%d" % join.last)
        if join.spared:
            self._put(f"a:{join.number}", b" ".join(b"%d-%d" % one for one in join.spared))
        if not join.before:
            self._put(f"f:{join.number - 1}", b"%d*" % join.number)
        if join.followers:
            self._put(f"f:{join.number}", join.followers.encode())

    def _behind(self, fork: int, item: bytes) -> None:
        chunks = self._chunks[fork]
        if chunks.items and (len(chunks.items) >= CHUNK or chunks.size + len(item) > CHUNK_BYTES):
            self._flush(fork, chunks)
        chunks.items.append(item)
        chunks.size += len(item)

    def _flush(self, fork: int, chunks: _Chunks) -> None:
        self._put(f"c:{fork}:{chunks.sent}", _array(chunks.items))
        chunks.items, chunks.size, chunks.sent = [], 0, chunks.sent + 1

    def _close(self, fork: int) -> None:
        chunks = self._chunks.pop(fork)
        if chunks.items:
            self._flush(fork, chunks)
        self._put(f"c:{fork}", b"0 %d" % chunks.sent)


def _array(packed: Sequence[bytes]) -> bytes:
    """An array of what is packed, as cmsgpack reads it: https://github.com/msgpack/msgpack/blob/master/spec.md"""
    return b"\xdd%b%b" % (struct.pack(">I", len(packed)), b"".join(packed))


def _packed(values: Sequence[Any]) -> bytes:
    """Strings, and numbers as strings, and lists of these."""
    parts: list[bytes] = []
    for value in values:
        if isinstance(value, list):
            parts.append(_packed(value))
            continue
        data = value if isinstance(value, bytes) else str(value).encode()
        parts.append(b"\xdb%b%b" % (struct.pack(">I", len(data)), data))
    return _array(parts)

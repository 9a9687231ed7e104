"""Predecessors: what the jobs came to that a job of a workflow follows, read when it runs. A single one's result comes
along with the job; of several, or of a group, the results stand in the workflow, as they may be many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from .envelope import Delivery, Extra
from .payload import JSON, Serializer
from .session import Session
from .store.workflows import Value

REMEMBERED, REMEMBERED_BYTES = 16, 8_000_000
"""Of so many the results are kept, and so many bytes of them: the members of a group all follow the same."""


class Predecessors:
    """Reads them for the jobs of one runner."""

    def __init__(self, session: Session, serializer: Serializer) -> None:
        self._session = session
        self._serializer = serializer
        self._is_json = type(serializer) is JSON
        self._known: OrderedDict[str, bytes] = OrderedDict()  # what has ended stays as it is
        self._turn = asyncio.Lock()

    async def recall(self, delivery: Delivery) -> None:
        """Sets ``previous`` of a job. A node that did not succeed, or kept nothing, counts as None. Raises
        RedisUnavailable."""
        preceding = delivery.envelope.extras[Extra.PRECEDING]
        key = repr(preceding)
        if key not in self._known:
            async with self._turn:  # a hundred who begin at once follow the same: one of them reads
                if key not in self._known:
                    delivery.envelope.previous = await self._read(preceding)
                    self._remember(key, delivery.envelope.previous)
                    return
        self._known.move_to_end(key)
        delivery.envelope.previous = self._known[key]

    async def _read(self, preceding: Any) -> bytes:
        workflow, partition, nodes = preceding
        value: Value
        if isinstance(nodes, int):
            value = await self._session.value(partition, workflow, nodes)
        else:
            value = [await self._session.value(partition, workflow, one) for one in nodes]
        return self._text(value)

    def _remember(self, key: str, previous: bytes) -> None:
        self._known[key] = previous
        while len(self._known) > REMEMBERED or sum(map(len, self._known.values())) > REMEMBERED_BYTES:
            self._known.popitem(last=False)

    def _text(self, value: Value) -> bytes:
        """As the serializer would write it."""
        if isinstance(value, bytes):
            return value
        if self._is_json:
            return b"[%b]" % b",".join(self._text(one) or b"null" for one in value)
        return self._serializer.dumps(self._loaded(value))

    def _loaded(self, value: Value) -> Any:
        if isinstance(value, bytes):
            return self._serializer.loads(value) if value else None
        return [self._loaded(one) for one in value]

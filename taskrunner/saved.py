"""Saved values: what a task keeps of its work before it has ended; see ``JobContext.save``."""

from __future__ import annotations

from typing import Any

from .envelope import Delivery
from .payload import Serializer, pack_value
from .session import Session


class SavedValues:
    """Writes and reads the interim values of one runner's jobs."""

    def __init__(self, session: Session, serializer: Serializer, max_payload: int) -> None:
        self._session = session
        self._serializer = serializer
        self._max_payload = max_payload

    async def save(self, delivery: Delivery, value: Any) -> None:
        """Keeps nothing for a run that has lost its job, and whose outcome counts no more either. Raises PayloadError,
        PayloadTooLarge or RedisUnavailable."""
        what = f"the value that task {delivery.envelope.task!r} saved"
        data = pack_value(self._serializer, value, self._max_payload, what, "save plain data")
        delivery.saved = True  # before it is written: what may be there must be tidied up
        await self._session.save(delivery, data)

    async def saved(self, delivery: Delivery) -> Any:
        """Raises RedisUnavailable."""
        data = await self._session.saved(delivery.partition, delivery.envelope.id)
        return None if data is None else self._serializer.loads(data)

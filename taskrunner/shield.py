"""Shield: waiting for what must be waited for, however often the caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: asyncio.Future[T], when_cancelled: Callable[[], object] | None = None) -> T:
    """The result of ``work``, when it is done.

    When the caller is cancelled meanwhile, ``when_cancelled`` is called, each time, and the cancellation goes on when
    the work is done; what became of that is ignored then.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
            if when_cancelled is not None:
                when_cancelled()
        except BaseException:
            break  # the work's own
    if cancelled is None:
        return work.result()
    if not work.cancelled():
        work.exception()  # seen: it is ignored, and that on purpose
    raise cancelled

"""What goes on beside the course of events: reading the queue's figures, and drawing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from .scene import Scene
from .screen import FRAMES, Screen
from .work import runner

LOOK_EVERY = 0.25
"""Seconds between two looks at the queue's figures."""


def drawn(screen: Screen) -> contextlib.AbstractAsyncContextManager[None]:
    """Draws the screen again and again inside the block."""

    async def draw() -> None:
        screen.refresh()

    return _repeated(draw, 1 / FRAMES)


def watched(scene: Scene) -> contextlib.AbstractAsyncContextManager[None]:
    """Keeps the figures of the scene fresh inside the block."""

    async def look() -> None:
        store, queue = (await runner.opened()).store, runner.settings.queue
        counts = await store.inspection.counts(store.partitions[0], queue)
        scene.measured(await runner.stats(queue), counts.workers)

    return _repeated(look, LOOK_EVERY)


@contextlib.asynccontextmanager
async def _repeated(action: Callable[[], Awaitable[None]], pause: float) -> AsyncGenerator[None]:
    async def repeat() -> None:
        while True:
            await action()
            await asyncio.sleep(pause)

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])

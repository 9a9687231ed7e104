"""Signals of the operating system, for a runner that owns its process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator


@contextlib.contextmanager
def on_stop_signal(loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> Generator[None]:
    """SIGTERM and SIGINT call ``heard`` inside the block; where the loop can't do that (Windows), by the old way."""
    names = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in names}
    for number in names:
        try:
            loop.add_signal_handler(number, heard)
        except (NotImplementedError, RuntimeError):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(heard))
    try:
        yield
    finally:
        for number in names:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])

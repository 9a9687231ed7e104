"""``--stay``: after the demo, a steady stream of jobs until Ctrl-C, with a burst now and then."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

from rich.console import Console

from ... import embedded
from ...signals import on_stop_signal
from .counting import library_files
from .fleet import Fleet
from .leftovers import look_for_leftovers
from .scene import Scene
from .screen import Screen
from .watch import drawn, watched
from .work import count_file, runner

TICK = 0.2
"""Seconds between two dispatches."""
STREAM = 40
"""Jobs per second in the stream: about a quarter of what two cores do."""
BURST, BURST_EVERY = 600, 20.0
"""Jobs in a burst, which make the queue long for some seconds; and seconds from one to the next."""


async def stay_busy(console: Console) -> int:
    """Dispatches until SIGINT or SIGTERM, then drains. The exit code: 1 when something is left behind."""
    url = await asyncio.to_thread(embedded.locate, "embedded://")
    namespace = runner.settings.namespace
    command = f"taskrunner stats --url {url} --namespace {namespace} --watch"
    console.print(f"\nTo see it from another terminal:\n{command}\n", soft_wrap=True)
    scene = Scene("A steady stream of jobs, until Ctrl-C.", 0)
    fleet, stop = Fleet(scene), asyncio.Event()
    with on_stop_signal(asyncio.get_running_loop(), stop.set), Screen(console, scene) as screen:
        async with drawn(screen):
            try:
                await fleet.start()
                async with runner.start(consume=False), watched(scene):
                    await _stream(scene, stop)
            finally:
                await fleet.stop()
    async with runner:
        if purged := await runner.purge(count_file.queue):
            console.print(f"\n{purged} jobs that nobody had started are purged")
    left = await look_for_leftovers(url, namespace)
    console.print(f"\nleft behind: {left}")
    return 1 if left.wrong else 0


async def _stream(scene: Scene, stop: asyncio.Event) -> None:
    files = itertools.cycle(library_files())
    next_burst = time.monotonic() + BURST_EVERY / 4
    while not stop.is_set():
        await _dispatch(files, round(STREAM * TICK))
        if time.monotonic() > next_burst:
            next_burst += BURST_EVERY
            await _dispatch(files, BURST)
            scene.tell(f"a burst of {BURST} jobs", "bold")
        try:
            await asyncio.wait_for(stop.wait(), TICK)
        except TimeoutError:
            continue


async def _dispatch(files: Iterator[str], number: int) -> None:
    count = count_file.with_options(ignore_result=True)  # nobody asks
    await runner.dispatch_many([count.job(path) for path in itertools.islice(files, number)])

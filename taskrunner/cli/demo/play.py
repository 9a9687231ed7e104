"""The course of events: start, dispatch, kill, collect, count again, stop, compare."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time

from rich.console import Console

from ... import embedded
from ...errors import EmbeddedServerError, TaskRunnerError
from ..console import make_console
from ..supervisor import ConfigurationProblem
from .counting import Count, count_all, library_files
from .fleet import PROCESSES, Fleet, FleetProblem
from .harvest import Jobs
from .leftovers import look_for_leftovers
from .scene import Scene
from .screen import Screen, show_verdict
from .stay import stay_busy
from .verdict import Check, judge
from .watch import drawn, watched
from .work import RESERVATION, count_file, runner

KILL_AT = 1 / 3
"""Share of the results that are there when a worker is killed."""
LAST_NEWS = 50
"""Tenths of a second that the news that the queue is not long any more may take."""
TIDY_LIMIT = 8 * RESERVATION
"""Seconds after which the dead worker must have been struck off the register; half of it is usual."""

INTERRUPTED = 130  # as shells report Ctrl-C


def play(stay: bool) -> int:
    """Runs the demo. The exit code: 0 when all checks hold, 1 when one does not, 2 without a server to run on."""
    # The demo is about a server of its own, also where somebody shares one out.
    os.environ.pop("TASKRUNNER_EMBEDDED_URL", None)
    console = make_console()
    try:
        code = asyncio.run(_play(console))
        return asyncio.run(stay_busy(console)) if stay and code == 0 else code
    except (EmbeddedServerError, ConfigurationProblem) as error:
        return _say(str(error), 2)
    except (TaskRunnerError, FleetProblem) as error:
        return _say(f"the demo could not go on: {error}", 1)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def _say(text: str, code: int) -> int:
    print(f"taskrunner: {text}", file=sys.stderr)
    return code


async def _play(console: Console) -> int:
    url = await asyncio.to_thread(embedded.locate, "embedded://")
    files = library_files()
    scene = Scene(_title(files), len(files))
    with Screen(console, scene) as screen:
        async with drawn(screen):
            checks = await _perform(scene, files, url)
    show_verdict(console, scene, checks)
    return 0 if all(check.good for check in checks) else 1


def _title(files: list[str]) -> str:
    size = sum(os.path.getsize(path) for path in files)
    return (
        f"{len(files):,} files of Python {platform.python_version()}'s standard library ({size / 1e6:.0f} MB) "
        "are read, hashed and counted by jobs in two processes. One of these will be killed."
    )


async def _perform(scene: Scene, files: list[str], url: str) -> list[Check]:
    """Everything from the start of the workers to their end, and what to think of it."""
    fleet, jobs, namespace = Fleet(scene), Jobs(scene), runner.settings.namespace
    try:
        await fleet.start()
        async with runner.start(consume=False), watched(scene):
            await _work(scene, fleet, jobs, files)
            plain = await _count_again(scene, files)
            await _until_tidy(scene, url, namespace)
            stats = await runner.stats(runner.settings.queue)
    finally:
        await fleet.stop()
    left = await look_for_leftovers(url, namespace)
    recorded = stats.per_task[count_file.name].succeeded
    return judge(jobs.harvest, plain, scene.processes.values(), recorded, left)


async def _work(scene: Scene, fleet: Fleet, jobs: Jobs, files: list[str]) -> None:
    await jobs.dispatch(files)
    collecting = asyncio.create_task(jobs.collect())
    try:
        await jobs.until_done(round(len(files) * KILL_AT))
        await jobs.note_held(await fleet.kill_one())
        await collecting
    finally:
        collecting.cancel()
    scene.ended = time.monotonic()
    scene.tell("all results are there", "bold")
    for _ in range(LAST_NEWS):
        if scene.is_long:
            await asyncio.sleep(0.1)  # until the hook, which is called for each evaluation, has said that it is over


async def _count_again(scene: Scene, files: list[str]) -> dict[str, Count]:
    def counted(number: int) -> None:
        scene.checked = number

    scene.tell("counting all files once more, here and without jobs")
    return await asyncio.to_thread(count_all, files, counted)


async def _until_tidy(scene: Scene, url: str, namespace: str) -> None:
    """The others strike a dead worker off the register, once it has been silent for long enough."""
    limit = time.monotonic() + TIDY_LIMIT
    while (await look_for_leftovers(url, namespace)).consumers > PROCESSES:
        if time.monotonic() > limit:
            return  # the verdict will say so
        await asyncio.sleep(0.1)
    scene.tell("the others have struck the dead worker off the register")

"""``taskrunner run``: supervised worker processes until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal
import sys

from .supervisor import ConfigurationProblem, Supervisor, WorkerEvent
from .worker import SAME_REQUEST


def run(reference: str, processes: int, uvloop: bool, queues: str | None = None) -> int:
    """Runs workers until a signal: of these ``queues``, names with commas between them, or of all that they know. The
    exit code: 0 when all drained, 1 when one did not, 2 for a configuration problem, which is told in one line."""
    options = ["--uvloop"] if uvloop else []
    options += [f"--queues={queues}"] if queues is not None else []
    try:
        return asyncio.run(_until_signal(reference, processes, options))
    except ConfigurationProblem as problem:
        _say(str(problem))
        return 2


async def _until_signal(reference: str, processes: int, options: list[str]) -> int:
    supervisor, loop = Supervisor(reference, processes, _tell, options), asyncio.get_running_loop()
    stops, last = 0, -SAME_REQUEST

    def heard() -> None:
        nonlocal stops, last
        if loop.time() - last < SAME_REQUEST:
            return
        stops, last = stops + 1, loop.time()
        number = len(supervisor.pids)
        _say(
            [
                f"stopping {number} workers: what runs may finish; again (Ctrl-C) to hand it back at once",
                f"{number} workers hand back what they run; again (Ctrl-C) to kill them",
                f"killing {number} workers",
            ][min(stops, 3) - 1]
        )
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    return 0 if await supervisor.run() else 1


def _tell(event: WorkerEvent) -> None:
    _say(str(event))


def _say(text: str) -> None:
    print(f"taskrunner: {text}", file=sys.stderr, flush=True)

"""One worker process, as the supervisor starts it: ``python -m taskrunner.cli.worker module:runner --channel FD``.

The channel is a socket to the supervisor. Its end means that the supervisor has died, in whatever way: then this
process drains, as after SIGTERM. Over it go, one JSON object a line, ``{"problem": text}`` to say why starting again
would not help, ``{"want": "server"}`` to ask for the address of the server that all processes share, and
``{"say": "consuming"}``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence

from ..errors import EmbeddedServerError, RedisConfigurationError, UsageError
from ..runner import TaskRunner
from ..signals import on_stop_signal
from .reference import BadReference, load_runner

log = logging.getLogger("taskrunner.cli")

LOG_FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s"
SAME_REQUEST = 0.5
"""Seconds within which two signals are one request: a service manager may signal each process of a service, and the
supervisor passes on its own."""
LAST_THREADS = 1.0
"""Seconds that threads get to end after the drain; those that are idle take a millisecond."""


class Channel:
    """This process's end of the socket to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what this process starts has no supervisor to talk to
        self._socket = socket.socket(fileno=descriptor)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="taskrunner-channel", daemon=True).start()

    def _listen(self) -> None:
        # In a thread, because it must work while the runner's module is still being imported, and when the loop hangs.
        for line in self._socket.makefile("r", encoding="utf-8"):
            self._answers.put(line.rstrip("\n"))
        os.kill(os.getpid(), signal.SIGTERM)

    def ask(self, what: str) -> str:
        self.send(want=what)
        return self._answers.get()

    def send(self, **message: str) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the supervisor has died: the listener ends this process


def main() -> int:
    """Runs the worker. 0 after a drain, 2 when starting it again would not help, 1 for anything else."""
    parser = argparse.ArgumentParser(prog="python -m taskrunner.cli.worker")
    parser.add_argument("reference")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--queues", type=lambda names: [name.strip() for name in names.split(",")])
    given = parser.parse_args()
    channel = Channel(given.channel)
    try:
        loop_factory = _uvloop() if given.uvloop else None
        runner = load_runner(given.reference)
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)  # nothing, if the module has set up its own
        if runner.owns_server and "TASKRUNNER_EMBEDDED_URL" not in os.environ:
            os.environ["TASKRUNNER_EMBEDDED_URL"] = channel.ask("server")
        with asyncio.Runner(loop_factory=loop_factory) as loop:
            loop.run(_serve(runner, channel, given.queues))
    except (BadReference, RedisConfigurationError, EmbeddedServerError, UsageError) as problem:
        channel.send(problem=str(problem))
        return 2
    _end_in_spite_of_threads(runner)
    return 0


async def _serve(runner: TaskRunner, channel: Channel, queues: Sequence[str] | None) -> None:
    """Consumes until a signal, then drains; a further signal cancels what still runs and hands it back."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    serving, asked, consuming = asyncio.current_task(), 0.0, False

    def heard() -> None:
        nonlocal asked
        if not stop.is_set():
            stop.set()
            asked = loop.time()
            if not consuming and serving is not None:
                serving.cancel()  # a start can hang: in a server that doesn't answer, in a hook of the user's
        elif loop.time() - asked > SAME_REQUEST and serving is not None:
            serving.cancel()  # the runner takes that as a hurry, and ends when everything is handed back

    with on_stop_signal(loop, heard):
        try:
            async with runner.start(queues=queues):
                consuming = True
                channel.send(say="consuming")
                await stop.wait()
        except asyncio.CancelledError:
            pass


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    if importlib.util.find_spec("uvloop") is None:
        raise BadReference("uvloop is not installed: pip install uvloop, or leave out --uvloop")
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


def _end_in_spite_of_threads(runner: TaskRunner) -> None:
    """Ends the process although a plain function still runs: its job has been handed back, nobody waits for it here.

    Python can't end a thread, and would wait for it before it exits.
    """
    threads = [thread for thread in threading.enumerate() if thread.name == "AnyIO worker thread"]
    for thread in threads:
        thread.join(LAST_THREADS / len(threads))
    late = sum(thread.is_alive() for thread in threads)
    if late:
        log.warning("%d jobs of %r still run in threads; they were handed back and end with this process", late, runner)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

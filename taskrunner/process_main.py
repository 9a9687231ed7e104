"""What runs in a process of ``pool="process"``: takes a call, makes it, sends back what came out; until it is killed or
its worker is gone."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import socket
import sys
import threading
from multiprocessing import spawn
from typing import Any

from . import procedure
from .carriage import Request, pack_error, pack_result
from .context import JobContext, Surroundings, current
from .processes import HEAD
from .task import Task

_ours = sys.modules[procedure.MAIN]

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def main() -> None:
    """Serves calls over the socket that is our standard input."""
    way = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _stay_through_stops()
    _end_with(way)
    with way.makefile("rb") as requests:
        while head := requests.read(HEAD):
            size = int.from_bytes(head, "big")
            reply = answer(requests.read(size)) if size else b""
            _flush()
            way.sendall(len(reply).to_bytes(HEAD, "big") + reply)
            del reply


def answer(message: bytes) -> bytes:
    """Makes one call."""
    try:
        preparation, body = pickle.loads(message)
        if preparation is not None:
            _load_main(preparation)
        result = _call(pickle.loads(body))
    except BaseException as error:
        return pack_error(error)
    return pack_result(result)


def _flush() -> None:
    """Nobody ends this process in a way that would write out what the function has printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or none at all


def _load_main(preparation: dict[str, Any]) -> None:
    """Runs the worker's main module, once, as multiprocessing does: under another name, so that nothing starts."""
    if sys.modules[procedure.MAIN] is not _ours:
        return
    procedure.loading_main = True
    try:
        spawn.prepare(preparation)
    finally:
        procedure.loading_main = False


def _call(request: Request) -> Any:
    found = request.procedure.find()
    function: Any = found.function if isinstance(found, Task) else found
    surroundings = Surroundings(None, None, request.max_retry, lambda data: request.previous)
    context = JobContext(request.delivery, surroundings)
    token = current.set(context)
    try:
        if request.takes_context:
            return function(context, *request.args, **request.kwargs)
        return function(*request.args, **request.kwargs)
    finally:
        current.reset(token)


def _stay_through_stops() -> None:
    """A stop is the worker's business: it waits for us, or kills us. Handlers, and not SIG_IGN, which the programs that
    a task starts would inherit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _end_with(way: socket.socket) -> None:
    """Ends this process when its worker is gone, also in the middle of a call."""
    if sys.platform == "linux":
        try:  # even while native code holds the interpreter lock
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        except (OSError, AttributeError):
            pass

    def watch() -> None:
        poll = select.poll()
        poll.register(way, 0)  # tells of nothing but the end
        poll.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="taskrunner-watch", daemon=True).start()

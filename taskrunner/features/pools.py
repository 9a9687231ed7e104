"""Pools: where a task's code runs.

    @runner.task(pool="process", timeout=60)
    def thumbnails(path: str) -> int: ...

``async def`` runs on the event loop. A plain function runs in a thread (``pool="thread"``, the default), which shares
this process and its interpreter lock, and can't be interrupted; or in a process of its own (``pool="process"``), which
computes beside the others and is killed when the run has to end: by its timeout, by being cancelled, at a stop's
deadline. A process that crashes fails its job, with ``ProcessCrashed``, and nothing else.

Another process finds the function by its name, so it must be defined in a module and not inside another function.
Arguments and results travel by pickle.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from ..errors import TaskOptionError
from ..feature import Feature, Option
from ..options import Options
from ..procedure import Procedure

THREAD, PROCESS = "thread", "process"


def _pool(value: Any, what: str) -> str:
    if value not in (THREAD, PROCESS):
        raise TaskOptionError(f"{what} must be 'thread' or 'process', not {value!r}")
    return value  # type: ignore[no-any-return]


class Pools(Feature):
    """See the module's docstring. The processes themselves are the runner's (``processes.Processes``)."""

    options = {"pool": Option(THREAD, _pool, on_dispatch=False)}

    def on_register(self, where: str, function: Callable[..., Any], options: Options) -> None:
        if options["pool"] != PROCESS:
            return
        if sys.platform == "win32":
            raise TaskOptionError(f"{where}: pool='process' needs a POSIX system; use pool='thread'")
        if inspect.iscoroutinefunction(function):
            raise TaskOptionError(f"{where}: pool='process' is for plain functions; `async def` runs on the event loop")
        Procedure.of(function, f"{where}: pool='process'")

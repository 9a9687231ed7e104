"""A wall clock that a test sets, for servers and workers in processes of their own."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import in_ci

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The time of day of the processes that get its ``environment``; monotonic clocks go on as they are.

    ``folder`` takes the compiled library and the file with the offset. Without a C compiler the test is skipped, or
    fails where it must not be missing (``CI=true``).
    """

    def __init__(self, folder: Path) -> None:
        library, file = folder / "clock.so", folder / "clock-offset"
        _compile(library)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), 8)
        self.offset = 0.0
        preloaded = filter(None, [str(library), os.environ.get("LD_PRELOAD")])
        self.environment = {"LD_PRELOAD": ":".join(preloaded), "CLOCK_OFFSET_FILE": str(file)}

    def step(self, seconds: float) -> None:
        """Sets the clock forward by so many seconds, or back, at once."""
        self.offset += seconds
        self._page[:] = struct.pack("=q", round(self.offset * 1e9))

    def close(self) -> None:
        self._page.close()


def _compile(library: Path) -> None:
    compiler = shutil.which("cc")
    if sys.platform != "linux":
        pytest.skip("libraries are preloaded in another way here")
    if compiler is None:
        missing = "no C compiler (cc) for the clock that tests set; install gcc and the headers of the C library"
        pytest.fail(missing) if in_ci() else pytest.skip(missing)
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)

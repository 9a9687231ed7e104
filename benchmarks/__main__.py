"""Lists the benchmarks, or runs one: ``python -m benchmarks NAME [ARGUMENTS]``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import due, forecast, latency, limits, local, locks, memory, report, throughput, workflows

BENCHMARKS: dict[str, tuple[Callable[[list[str]], int], str | None]] = {
    "throughput": (throughput.main, throughput.__doc__),
    "latency": (latency.main, latency.__doc__),
    "memory": (memory.main, memory.__doc__),
    "due": (due.main, due.__doc__),
    "forecast": (forecast.main, forecast.__doc__),
    "locks": (locks.main, locks.__doc__),
    "limits": (limits.main, limits.__doc__),
    "workflows": (workflows.main, workflows.__doc__),
    "local": (local.main, local.__doc__),
}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in BENCHMARKS:
        return BENCHMARKS[name][0](arguments[1:])
    print("usage: python -m benchmarks NAME [--quick] [--json FILE] [--url URL] [--help]\n")
    for known, (_, about) in BENCHMARKS.items():
        print(f"  {known:<11} {report.title(about)}")
    return 0 if name in ("", "-h", "--help") else 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

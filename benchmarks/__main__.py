"""Lists the benchmarks, or runs one: ``python -m benchmarks NAME [ARGUMENTS]``."""

from __future__ import annotations

import sys

from . import forecast, latency, memory, report, throughput

BENCHMARKS = {"throughput": throughput, "latency": latency, "memory": memory, "forecast": forecast}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in BENCHMARKS:
        return BENCHMARKS[name].main(arguments[1:])
    print("usage: python -m benchmarks NAME [--quick] [--json FILE] [--url URL] [--help]\n")
    for known, module in BENCHMARKS.items():
        print(f"  {known:<11} {report.title(module.__doc__)}")
    return 0 if name in ("", "-h", "--help") else 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

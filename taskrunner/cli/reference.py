"""``module:runner``, as it is typed, to the TaskRunner that it names."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from ..runner import TaskRunner


class BadReference(Exception):
    """The text names no TaskRunner that can be had. Its message is one sentence for the person who typed it."""


def load_runner(reference: str) -> TaskRunner:
    """Imports the runner that ``module:attribute`` names; the current directory comes first. Raises BadReference."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise BadReference(f"{reference!r} names no runner: write module:attribute, such as app:runner")
    if module_name.endswith(".py") or os.sep in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise BadReference(f"{module_name!r} is a file: give the module's name, as in {dotted}:{attribute}")
    # A console script has its own folder on the path, not the one that the person is in.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    found: Any = _imported(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadReference(f"module {module_name!r} has no {attribute!r}{_runners_in(found, module_name)}")
        found = getattr(found, part)
    if not isinstance(found, TaskRunner):
        raise BadReference(f"{reference!r} is no TaskRunner but of type {type(found).__name__}")
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            text = f"there is no module {missing!r}, neither in {os.getcwd()} nor on Python's path"
            raise BadReference(text) from None
        summary = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise BadReference(f"importing {name!r} failed with {summary}{_place_of(error)}") from None


def _place_of(error: BaseException) -> str:
    """Where it was raised, in the person's own code rather than in the machinery that imports it."""
    if isinstance(error, SyntaxError):
        return ""  # its own text tells it
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _runners_in(found: Any, module_name: str) -> str:
    names = [f"{module_name}:{name}" for name, value in vars(found).items() if isinstance(value, TaskRunner)]
    return f"; did you mean {' or '.join(names)}?" if names else ", nor any other TaskRunner"

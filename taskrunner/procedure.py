"""Procedure: a function as another process finds it: by its module, and by its name there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import TaskOptionError

MAIN = "__main__"

loading_main = False
"""True while a process of ``pool="process"`` reads our main module; whatever that starts outside of an
``if __name__ == "__main__":`` it would start there as well."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """The module of a function and its qualified name in it."""

    module: str
    name: str

    @classmethod
    def of(cls, function: Callable[..., Any], where: str) -> Procedure:
        """Where the function will be found. Raises TaskOptionError, which begins with ``where``, if nowhere."""
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            reason = "it has no name of its own"
        elif "<lambda>" in name:
            reason = "a lambda has no name"
        elif "<locals>" in name:
            reason = f"{name!r} is defined inside another function"
        elif module == MAIN and not _main_has_a_source():
            reason = "it is defined on the command line or in an interactive session, which no other process can read"
        else:
            return cls(module, name)
        raise TaskOptionError(f"{where}: another process must find it by its name, and {reason}; define it in a module")

    def find(self) -> Any:
        """What stands there under that name in this process. Raises what the import raises, or AttributeError."""
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _main_has_a_source() -> bool:
    main = sys.modules.get(MAIN)
    return getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None

"""The common arguments, the arithmetic of comparing, the table and the JSON."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = Table = None  # type: ignore[assignment,misc]


def title(about: str | None) -> str:
    """The first line of a module's docstring."""
    return (about or "").partition("\n")[0]


def arguments(name: str, about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=title(about))
    parser.add_argument("--url", help="the server to use (default: an embedded one of its own)")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    return parser


@dataclass
class Comparison:
    """Ours beside bare, round by round. A ratio is taken within a round, where the machine's speed was the same."""

    ours: list[float]
    bare: list[float]

    @property
    def ratios(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def differences(self) -> list[float]:
        return [ours - bare for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what a target is held against."""
        return statistics.median(self.ratios)

    @property
    def ratio_of_medians(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.bare)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ours": self.ours,
            "bare": self.bare,
            "ratio": self.ratio,
            "ratio_of_medians": self.ratio_of_medians,
            "ratios": self.ratios,
        }


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """``median (lowest–highest)``."""
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def verdict(value: float, *, at_least: float | None = None, below: float | None = None, unit: str = "") -> str:
    """The target, and whether it is met."""
    if at_least is not None:
        return f"≥ {at_least:g}{unit} {'met' if value >= at_least else 'MISSED'}"
    if below is not None:
        return f"< {below:g}{unit} {'met' if value < below else 'MISSED'}"
    return ""


def show(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: the first column to the left, figures to the right."""
    if Console is not None and Table is not None and Console().is_terminal:
        table = Table(title=caption, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(line[n]) for line in [columns, *rows]) for n in range(len(columns))]
    print(f"\n{caption}")
    for line in [columns, ["-" * width for width in widths], *rows]:
        cells = [
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def show_machine(machine: dict[str, Any]) -> None:
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}, {machine['system']}")
    packages = [f"{name} {version}" for name, version in machine["versions"].items()]
    used = [*([machine["server"]] if machine["server"] else []), *packages]
    print(f"{', '.join(used)}, commit {machine['commit']}", flush=True)


def write(path: str | None, document: dict[str, Any]) -> None:
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, ensure_ascii=False)
            file.write("\n")
        print(f"\nwritten to {path}")

"""The console that everything is printed on."""

from __future__ import annotations

import os

from rich import box
from rich.console import Console
from rich.table import Table

PIPED_WIDTH = 160
"""Columns when nobody says how many there are: a pipe or a file, where a table must not be cut to 80."""


def make_console() -> Console:
    """Standard output. Colours only on a terminal, and never with ``NO_COLOR``."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=PIPED_WIDTH)
    return console


def make_table(title: str) -> Table:
    """A table without columns and rows, as all of ours look."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )

"""Lists and single things on a screen, however narrow it is. Nothing that is given is read as markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .console import make_console, make_table
from .printable import printable

BETWEEN = 3
"""Columns that a table has between two cells."""
WRAPPED = 24
"""Columns that the last cell of a row, which is wrapped, should have at least."""


def show_list(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Prints rows under a title; ``nothing`` if there are none. The first cell of a row names it, the last may be long.

    A table where it fits, else one paragraph a row, so that ids stay whole.
    """
    console = make_console()
    if not rows:
        console.print(Text(printable(nothing), overflow="fold"))
        return
    shown = [[printable(cell) for cell in row] for row in rows]
    used = [at for at in range(len(columns)) if any(row[at] for row in shown)]
    shown = [[row[at] for at in used] for row in shown]
    names = [columns[at] for at in used]
    widths = [max(cell_len(cell) for cell in column) for column in zip(names, *shown, strict=True)]
    if len(widths) > 1:
        widths[-1] = min(widths[-1], WRAPPED)
    fits = sum(widths) + BETWEEN * (len(widths) - 1) <= console.width
    console.print(_table(title, names, shown) if fits else _paragraphs(title, names, shown))


def show_card(title: str, fields: Sequence[tuple[str, str]], long: Sequence[tuple[str, str]] = ()) -> None:
    """Prints one thing: its fields that are not empty, one a line, and then its long texts, each under its name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in fields:
        if text:
            table.add_row(name, Text(printable(text, lines=True)))
    console = make_console()
    parts: list[RenderableType] = [Text(printable(title), style="bold", overflow="fold"), table]
    for name, text in long:
        if text:
            parts += [Text(), Text(name, style="dim"), *_folded(text.rstrip(), console.width)]
    console.print(Group(*parts))


def _folded(text: str, width: int) -> list[Text]:
    """Its lines, cut at the width and not between words, which would tear a traceback's columns apart."""
    lines = printable(text, lines=True).expandtabs().splitlines()
    return [Text(part) for line in lines for part in (chop_cells(line, width) or [""])]


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = make_table("")
    table.title = Text(printable(title))
    for at, name in enumerate(names):
        last = at == len(names) - 1
        table.add_column(name, style="" if at else "cyan", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _paragraphs(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    lines = [Text(printable(title), style="bold", overflow="fold")]
    for first, *others in rows:
        lines.append(Text(first, style="cyan", overflow="fold"))
        lines += [
            Text(f"  {name}: {cell}", overflow="fold") for name, cell in zip(names[1:], others, strict=True) if cell
        ]
    return Group(*lines)
